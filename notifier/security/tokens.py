"""What the service puts into a mail to know it again: the return path of its bounces, the link that ends its kind.

Each token names what it is about and carries a keyed hash of it, so only who was given one can hand it back, and
one made for a return path is none for a link. Nothing in them is readable as a person: ids, and the keyed hash of
an address.
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

#: Of the keyed hash so much goes along: 96 bits, which nobody guesses one mail at a time. Bytes.
_PROOF = 12
#: 16 bytes of id, 2 of the attempt, 12 of proof: 30 bytes are 48 letters without padding. Mail servers may fold
#: case, which base32 does not mind.
_BOUNCE_LENGTH = 48
#: More attempts than two bytes count have no return path of their own.
_MAX_ATTEMPT = 0xFFFF
#: Return paths that are looked at in one mail.
_MAX_QUOTED = 20
#: A link is never longer; of more nothing is even decoded. Characters.
_MAX_LINK = 400
#: A longer name of an identity is left out, so that the link stays short. Bytes.
_MAX_IDENTITY = 64


@dataclass(frozen=True, slots=True)
class UnsubscribeLink:
    """What a link ends: mails of one category to one recipient."""

    #: The mail that the link was in.
    notification_id: UUID
    #: See `HashKey.recipient`.
    address_hash: bytes
    category: str
    #: BCP 47: in which language its page is.
    locale: str
    #: Name of the identity that sent the mail; "" in older links, and where it is long.
    identity: str = ""


class Tokens:
    """Thread-safe; one for each process. Without the setting for a kind, none is made."""

    def __init__(self, key: HashKey, *, bounce_address: str | None = None, public_url: str | None = None) -> None:
        self._key = key
        name, _, domain = (bounce_address or "").rpartition("@")
        self._before, self._after = f"{name}+", f"@{domain}"
        self._has_bounces = bool(name)
        path = rf"{re.escape(self._before)}[a-z2-7]{{{_BOUNCE_LENGTH}}}{re.escape(self._after)}"
        self._return_path = re.compile(path.encode(), re.IGNORECASE)
        # Under the key that everybody knows, everybody could end what others want to get.
        self._links = f"{public_url.rstrip('/')}/u/" if public_url and not key.is_public else ""

    def return_path(self, notification_id: UUID, attempt: int) -> str | None:
        """The envelope sender of one attempt; None: that of the From header. Made for every mail: 5 µs."""
        if not self._has_bounces or attempt > _MAX_ATTEMPT:
            return None
        body = notification_id.bytes + attempt.to_bytes(2, "big")
        token = b32encode(body + self._proof("bounce", body)).decode("ascii")
        return f"{self._before}{token.lower()}{self._after}"

    def is_bounce_address(self, address: str) -> bool:
        """Whether mail to it is for us: the configured address, with or without a token."""
        local, _, domain = address.strip().strip("<>").lower().rpartition("@")
        name = self._before[:-1].lower()
        return self._has_bounces and f"@{domain}" == self._after.lower() and local.partition("+")[0] == name

    def is_return_path(self, address: str) -> bool:
        """Whether it looks like one of ours, whoever made it."""
        return self.is_bounce_address(address) and "+" in address.rpartition("@")[0]

    def has_return_path(self, content: bytes) -> bool:
        """Whether one of the first return paths in `content` is ours. Cheap, whatever the content."""
        found = islice(self._return_path.finditer(content), _MAX_QUOTED) if self._has_bounces else ()
        return any(self.read_return_path(one[0].decode("utf-8", "replace")) for one in found)

    def read_return_path(self, address: str) -> tuple[UUID, int] | None:
        """(id, attempt) of a return path that we made, in whatever case it comes back; otherwise None."""
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
