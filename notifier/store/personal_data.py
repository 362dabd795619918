"""Stores personal data in rows, sealed or plain.

With keys, recipient and context are one sealed value, `sealed`, and the columns `recipient` and `context` are
NULL. Values of `secret` variables are another sealed value, `secrets`, so that they can be wiped without
decryption. Without keys everything is in its own column. Each row shows which kind it is, so both kinds can be
there.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from pydantic_core import from_json, to_json

from notifier.domain.errors import CannotOpen
from notifier.domain.message import Message
from notifier.domain.recipient_identity import recipient_identity
from notifier.domain.statuses import Channel
from notifier.security.body_hash import body_hash
from notifier.security.encryption import Sealer
from notifier.security.recipient_hash import HashKey
from notifier.store.sanitize import bytea

#: The place that each sealed value is bound to, together with the id of its row.
_PERSON, _SECRETS, _REJECTED = "notifications.sealed", "notifications.secrets", "rejected_messages.sealed"
_BOUNCE = "unread_bounces.sealed"


class PersonalRow(Protocol):
    """The columns that `PersonalData.open` reads."""

    id: UUID
    recipient: str | None
    context: dict[str, Any] | None
    sealed: bytes | None


@dataclass(frozen=True, slots=True)
class Person:
    """Recipient and context of a notification. Both are empty if it was redacted or could not be decrypted."""

    recipient: str
    context: dict[str, Any]
    #: Why they could not be decrypted, and how to fix that.
    problem: str | None = None

    @property
    def address(self) -> str:
        """See `domain.recipient_identity`."""
        return recipient_identity(self.recipient)


class UnreadableRecipient(str):
    """Stands in for a recipient that cannot be decrypted: the reason in brackets, for people. Code recognises it
    by its type, because a display name may be in brackets, too."""

    __slots__ = ()


class PersonalData:
    """Seals and opens personal data. Thread-safe."""

    def __init__(self, hash_key: HashKey | None = None, sealer: Sealer | None = None) -> None:
        self.hash_key = hash_key or HashKey()
        self.sealer = sealer or Sealer()

    def put_away(
        self, id_: UUID, channel: Channel, person: Person, secret_names: Sequence[str] = ()
    ) -> dict[str, Any]:
        """The columns of a notification that are not NULL, as JSON values.

        Raises:
            ValueError: JSON cannot hold the context.
        """
        address = person.address
        row: dict[str, Any] = {"address_hash": bytea(self.hash_key.recipient(channel, address))}
        if secret_names:
            row["secret_names"] = list(secret_names)
        if not self.sealer.is_on:
            return row | {"recipient": person.recipient, "address": address, "context": person.context}
        context = person.context
        if secret_names:
            secrets = {name: context[name] for name in secret_names if name in context}
            context = {name: value for name, value in context.items() if name not in secrets}
            row["secrets"] = bytea(self.sealer.seal(_place(_SECRETS, id_), to_json(secrets)))
        content = to_json([person.recipient, context])
        return row | {"sealed": bytea(self.sealer.seal(_place(_PERSON, id_), content))}

    def open(self, row: PersonalRow) -> Person:
        """Open a row, without its sealed secrets.

        Raises:
            CannotOpen: the key is missing; the error names it.
        """
        if row.sealed is None:
            return Person(row.recipient or "", row.context or {})
        recipient, context = from_json(self.sealer.open(_place(_PERSON, row.id), row.sealed))
        return Person(recipient, context)

    def open_to_send(self, row: PersonalRow, secrets: bytes | None) -> Person:
        """`open`, with the secrets. On failure, a person with a `problem`, so that other notifications go on."""
        try:
            person = self.open(row)
            if secrets:
                values = from_json(self.sealer.open(_place(_SECRETS, row.id), secrets))
                return Person(person.recipient, person.context | values)
        except CannotOpen as error:
            return Person("", {}, str(error))
        return person

    def recipient_of(self, row: PersonalRow) -> str | None:
        """The recipient for people. None: it was redacted. An `UnreadableRecipient`: it cannot be decrypted."""
        if row.sealed is None:
            return row.recipient
        try:
            return self.open(row).recipient
        except CannotOpen as error:
            return UnreadableRecipient(f"({error})")

    def body_hash(self, message: Message, content: Mapping[str, Any]) -> bytes:
        """A hash of the message's `content`. With a hash key it is a keyed hash: it outlives what is wiped and
        redacted, and without the key nobody can recover that by trying values."""
        digest = body_hash(message, content)
        return digest if self.hash_key.is_public else self.hash_key.digest("body", digest.hex())

    def is_same_body(self, message: Message, known: bytes) -> bool:
        """Whether `known` is the `body_hash` of this message, made with keys or without."""
        return self.is_same_digest(body_hash(message), known)

    def is_same_digest(self, digest: bytes, known: bytes) -> bool:
        """`is_same_body` for the plain digest of a message, as `notifier.security.body_hash` makes it."""
        return known in (digest, self.hash_key.digest("body", digest.hex()))

    def put_away_rejected(self, id_: UUID, body: bytes, headers: dict[str, Any]) -> dict[str, Any]:
        """The columns of a rejected message."""
        if not self.sealer.is_on:
            return {"body": body, "headers": json.dumps(headers), "sealed": None}
        content = json.dumps(headers).encode() + b"\0" + body
        return {"body": b"", "headers": "{}", "sealed": self.sealer.seal(_place(_REJECTED, id_), content)}

    def open_rejected(
        self, id_: UUID, body: bytes, headers: dict[str, Any], sealed: bytes | None
    ) -> tuple[bytes, dict[str, Any]]:
        """Body and headers of a rejected message.

        Raises:
            CannotOpen: the key is missing; the error names it.
        """
        if sealed is None:
            return bytes(body), headers
        found, _, content = self.sealer.open(_place(_REJECTED, id_), sealed).partition(b"\0")
        return content, json.loads(found)

    def put_away_bounce(self, id_: UUID, content: bytes) -> dict[str, Any]:
        """The columns of a returned mail."""
        if not self.sealer.is_on:
            return {"content": content, "sealed": None}
        return {"content": b"", "sealed": self.sealer.seal(_place(_BOUNCE, id_), content)}

    def open_bounce(self, id_: UUID, content: bytes, sealed: bytes | None) -> bytes:
        """The returned mail.

        Raises:
            CannotOpen: the key is missing; the error names it.
        """
        return bytes(content) if sealed is None else self.sealer.open(_place(_BOUNCE, id_), sealed)

    def reseal_secrets(self, id_: UUID, secrets: bytes) -> bytes:
        """The same secrets, sealed under the first key.

        Raises:
            CannotOpen: the key is missing; the error names it.
        """
        place = _place(_SECRETS, id_)
        return self.sealer.seal(place, self.sealer.open(place, secrets))


def _place(column: str, id_: UUID) -> str:
    return f"{column}:{id_}"
