"""Keyed hashes: how the service remembers people without writing their addresses down.

A plain hash of a telephone number hides nothing: there are few enough numbers to try them all. So everything is an
HMAC-SHA256 under `NOTIFIER_HASH_KEY`, and each use has a purpose of its own in what is hashed: what was made for
one can never stand for another.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass, field
from functools import cached_property

from notifier.domain.recipient_identity import earlier_forms, recipient_identity
from notifier.domain.statuses import Channel

#: Stands in while no key is set. Everyone can read it here, so it protects nobody: `notifier doctor` warns.
PUBLIC_KEY = "notifier: no NOTIFIER_HASH_KEY is set"


@dataclass(frozen=True)
class HashKey:
    """Made once for each process; a hash takes about a microsecond."""

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
        """32 bytes that only a holder of the key can make. No part may hold a NUL character."""
        text = "\0".join((purpose, *parts)).encode("utf-8", "surrogatepass")
        # Not `hmac.digest`: that lets go of the interpreter for this microsecond, and then waits for a turn.
        digest = self._begun.copy()
        digest.update(text)
        return digest.digest()

    def recipient(self, channel: Channel, address: str) -> bytes:
        """The hash of a recipient: an address, with or without a display name, or a number."""
        return self.digest("recipient", channel, recipient_identity(address))

    def recipient_forms(self, channel: Channel, address: str) -> list[bytes]:
        """The same, and the hash from before all spellings were one, if it was another."""
        earlier = [self.digest("recipient", channel, form) for form in earlier_forms(address)]
        return [self.recipient(channel, address), *earlier]
