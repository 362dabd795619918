"""Tokens that the service puts into mails and recognises later: return paths for bounces, and unsubscribe links.

Each token names what it is about and carries a keyed hash of it. So only somebody who received a token can return
it, and a token made for a return path is not valid as a link. Tokens contain ids and the keyed hash of an address,
and nothing from which a person could be read.
"""

from __future__ import annotations

import hmac
import re
from base64 import b32decode, b32encode, urlsafe_b64decode, urlsafe_b64encode
from binascii import Error
from dataclasses import dataclass
from itertools import islice
from uuid import UUID

from notifier.domain.statuses import Channel
from notifier.security.recipient_hash import HashKey

#: How much of the keyed hash is included: 96 bits, which nobody can guess one mail at a time. Bytes.
_PROOF = 12
#: 16 bytes of id, 2 of attempt, 12 of proof: 30 bytes are 48 letters without padding. Mail servers may change
#: case, which base32 tolerates.
_BOUNCE_LENGTH = 48
#: Attempts with a number above two bytes have no return path of their own.
_MAX_ATTEMPT = 0xFFFF
#: Maximum number of return paths that are checked in one mail.
_MAX_QUOTED = 20
#: No link is longer than this; longer ones are not even decoded. Characters.
_MAX_LINK = 400
#: A longer name of an identity is left out, so that the link stays short. Bytes.
_MAX_IDENTITY = 64


@dataclass(frozen=True, slots=True)
class UnsubscribeLink:
    """What a link ends: mails of one category to one recipient."""

    #: The notification whose mail had the link.
    notification_id: UUID
    #: See `HashKey.recipient`.
    address_hash: bytes
    category: str
    #: The language of its page, BCP 47.
    locale: str
    #: Name of the identity that sent the mail; "" in older links, or if the name is long.
    identity: str = ""


class Tokens:
    """Makes and reads tokens; one object for each process. Thread-safe. A kind of token is only made if it is
    configured."""

    def __init__(self, key: HashKey, *, bounce_address: str | None = None, public_url: str | None = None) -> None:
        self._key = key
        name, _, domain = (bounce_address or "").rpartition("@")
        self._before, self._after = f"{name}+", f"@{domain}"
        self._has_bounces = bool(name)
        path = rf"{re.escape(self._before)}[a-z2-7]{{{_BOUNCE_LENGTH}}}{re.escape(self._after)}"
        self._return_path = re.compile(path.encode(), re.IGNORECASE)
        # With the key that everybody knows, everybody could unsubscribe others.
        self._links = f"{public_url.rstrip('/')}/u/" if public_url and not key.is_public else ""

    def return_path(self, notification_id: UUID, attempt: int) -> str | None:
        """The envelope sender of one attempt; None: use the From address. Made for every mail, in 5 µs."""
        if not self._has_bounces or attempt > _MAX_ATTEMPT:
            return None
        body = notification_id.bytes + attempt.to_bytes(2, "big")
        token = b32encode(body + self._proof("bounce", body)).decode("ascii")
        return f"{self._before}{token.lower()}{self._after}"

    def is_bounce_address(self, address: str) -> bool:
        """Whether mail to this address is for us: the configured address, with or without a token."""
        local, _, domain = address.strip().strip("<>").lower().rpartition("@")
        name = self._before[:-1].lower()
        return self._has_bounces and f"@{domain}" == self._after.lower() and local.partition("+")[0] == name

    def is_return_path(self, address: str) -> bool:
        """Whether the address looks like one of our return paths, whoever made it."""
        return self.is_bounce_address(address) and "+" in address.rpartition("@")[0]

    def has_return_path(self, content: bytes) -> bool:
        """Whether one of the first return paths in `content` is ours. Cheap, whatever the content."""
        found = islice(self._return_path.finditer(content), _MAX_QUOTED) if self._has_bounces else ()
        return any(self.read_return_path(one[0].decode("utf-8", "replace")) for one in found)

    def read_return_path(self, address: str) -> tuple[UUID, int] | None:
        """(id, attempt) from a return path that we made, whatever case it comes back in; otherwise None."""
        if not self.is_bounce_address(address):
            return None
        token = address.rpartition("@")[0].partition("+")[2]
        if len(token) != _BOUNCE_LENGTH:
            return None
        try:
            data = b32decode(token.upper())
        except (Error, ValueError):
            return None
        body, proof = data[:-_PROOF], data[-_PROOF:]
        if not hmac.compare_digest(proof, self._proof("bounce", body)):
            return None
        return UUID(bytes=body[:16]), int.from_bytes(body[16:], "big")

    def unsubscribe_url(
        self, notification_id: UUID, channel: Channel, address: str, category: str, locale: str, identity: str = ""
    ) -> str:
        """The link that ends this category for this recipient; "" without a public URL and a key of our own."""
        if not self._links:
            return ""
        what = f"{locale[:35]} {category}".encode()
        if identity and len(identity.encode()) <= _MAX_IDENTITY:
            what += f" {identity}".encode()
        body = notification_id.bytes + self._key.recipient(channel, address) + what
        token = urlsafe_b64encode(self._proof("unsubscribe", body) + body).decode("ascii")
        return f"{self._links}{token.rstrip('=')}"

    def read_link(self, token: str) -> UnsubscribeLink | None:
        """What the last part of a link ends; None: we did not make it."""
        if len(token) > _MAX_LINK or not token.isascii() or self._key.is_public:
            return None
        try:
            data = urlsafe_b64decode(token + "=" * (-len(token) % 4))
        except (Error, ValueError):
            return None
        proof, body = data[:_PROOF], data[_PROOF:]
        if not hmac.compare_digest(proof, self._proof("unsubscribe", body)):
            return None
        locale, _, what = body[48:].decode().partition(" ")
        category, _, identity = what.partition(" ")
        return UnsubscribeLink(UUID(bytes=body[:16]), body[16:48], category, locale, identity)

    def _proof(self, purpose: str, body: bytes) -> bytes:
        return self._key.digest(purpose, body.hex())[:_PROOF]
