"""Keyed hashes, by which the service recognises people without storing their addresses.

A plain hash of a telephone number hides nothing, because there are few enough numbers to try them all. So every
hash is an HMAC-SHA256 under `NOTIFIER_HASH_KEY`. Each use has its own purpose in the hashed text, so a hash made
for one use is never valid for another.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from functools import cached_property

from notifier.domain.recipient_identity import earlier_forms, recipient_identity
from notifier.domain.statuses import Channel

#: Used while no key is set. Everybody can read it here, so it protects nobody: `notifier doctor` warns.
PUBLIC_KEY = "notifier: no NOTIFIER_HASH_KEY is set"


@dataclass(frozen=True)
class HashKey:
    """The key for hashes. Create it once for each process; a hash takes about a microsecond."""

    secret: str = field(default=PUBLIC_KEY, repr=False)

    @property
    def is_public(self) -> bool:
        return self.secret == PUBLIC_KEY

    @cached_property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that tell this key from others and reveal nothing about it."""
        return self.digest("fingerprint").hex()[:16]

    @cached_property
    def _begun(self) -> hmac.HMAC:
        return hmac.new(self.secret.encode(), digestmod="sha256")

    def digest(self, purpose: str, *parts: str) -> bytes:
        """32 bytes that only a holder of the key can compute. No part may contain a NUL character."""
        text = "\0".join((purpose, *parts)).encode("utf-8", "surrogatepass")
        # Not `hmac.digest`: it releases the interpreter's lock for this microsecond, and then has to wait for it.
        digest = self._begun.copy()
        digest.update(text)
        return digest.digest()

    def recipient(self, channel: Channel, address: str) -> bytes:
        """The hash of a recipient: a number, or an address with or without a display name."""
        return self.digest("recipient", channel, recipient_identity(address))

    def recipient_forms(self, channel: Channel, address: str) -> list[bytes]:
        """The same hash, and the one that older versions made of this spelling, if it differs."""
        earlier = [self.digest("recipient", channel, form) for form in earlier_forms(address)]
        return [self.recipient(channel, address), *earlier]
