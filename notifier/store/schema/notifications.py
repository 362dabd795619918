"""The tables of notifications. The comments on columns are their reference; `migrations/` makes the tables.

A notification is a row of `messages` and a row of `states`. `messages`, `attempts` and `events` are partitioned by
the notification's UUIDv7. So a look-up by id reads one partition of each, and retention is a DROP TABLE. Triggers
on `states` write `callbacks`: see `store.ledger`.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import BigInteger, Identity, Index, Integer, LargeBinary, Text, func, join, text
from sqlalchemy.dialects.postgresql import ARRAY, JSONB
from sqlalchemy.dialects.postgresql import UUID as PG_UUID
from sqlalchemy.orm import Mapped, column_property, mapped_column

from notifier.domain.statuses import Channel, Lane, MessageProof, OnUnknown, Outcome, Status, SuppressionReason
from notifier.store.schema.base import Base, one_of


class StoredMessage(Base):
    """What was accepted: one message to one recipient on one channel. Written once; later changes only protect
    people's data."""

    __tablename__ = "messages"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    #: The producer that published it.
    producer: Mapped[str]
    #: Its key, if the producer gave one. `idempotency_keys` keeps keys unique.
    idempotency_key: Mapped[str | None]
    channel: Mapped[str]
    lane: Mapped[str]
    #: As the producer wrote it: an address, maybe with a name, or an E.164 number. None: sealed or redacted.
    recipient: Mapped[str | None]
    #: The bare address in lower case, or the number. None: sealed or redacted.
    address: Mapped[str | None]
    #: Keyed hash of channel and address, for searches. None: the row is older than this column.
    address_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    template: Mapped[str]
    #: Content hash of the template when the message was accepted.
    template_version: Mapped[str]
    locale: Mapped[str | None]
    #: None: sealed or redacted.
    context: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    #: Recipient and context, encrypted, see `store.personal_data`. None: they are in their columns, or redacted.
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    #: Values of `secret` variables, encrypted. None: they are in the context, or there are none.
    secrets: Mapped[bytes | None] = mapped_column(LargeBinary)
    #: Names of its `secret` variables. Empty: their values were wiped. None: it had none.
    secret_names: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    #: Name of the sender identity. None: the template's.
    sender: Mapped[str | None]
    reply_to: Mapped[str | None]
    reference: Mapped[str | None]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", server_default=text("'{}'"))
    send_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    callback_url: Mapped[str | None]
    #: The template's policy when the message was accepted.
    on_unknown: Mapped[str]
    #: When it entered the record.
    accepted_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: Ids of its files, in their order. None: it has none.
    attachments: Mapped[list[UUID] | None] = mapped_column(ARRAY(PG_UUID(as_uuid=True)))
    #: How it was proven that its producer sent it, see `ProducerProof`. None: the row is older than this column.
    proof: Mapped[str | None]
    #: Who sent it: "key:<id>", "user:<broker user>", "recurring:<id>" or "operator:<name>". None: nobody can say,
    #: the service made it itself, or the row is older than this column.
    sent_by: Mapped[str | None]
    #: The W3C Trace Context that its trace goes on from. None: it has no trace.
    traceparent: Mapped[str | None]

    __table_args__ = (
        one_of("channel", Channel),
        one_of("lane", Lane),
        one_of("on_unknown", OnUnknown),
        # For searches, newest first.
        Index(None, "address_hash", "id", postgresql_where=text("address_hash IS NOT NULL")),
        Index(None, "producer", "id"),
        Index(None, "template", "id"),
        Index(None, "reference", "id", postgresql_where=text("reference IS NOT NULL")),
        {"postgresql_partition_by": "RANGE (id)"},
    )


class State(Base):
    """Where a notification stands. Each change rewrites this row, not the message's. So the row is short, has few
    indexes, and its table has no partitions, because an update would set all of them up."""

    __tablename__ = "states"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    #: When the next step is due. None: nothing happens by itself. See docs/explanation/state-and-time.md.
    due_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: When a provider accepted it.
    sent_at: Mapped[datetime | None]
    #: When an operator last retried it: its deadline counts from then. None: its deadline counts from when it was
    #: due.
    replayed_at: Mapped[datetime | None]
    #: Token of the task that made the claim, by which a repeated statement finds what it had claimed. None: not
    #: claimed yet.
    claim_token: Mapped[UUID | None]
    #: Number of claims so far: the fencing token of the worker that holds it.
    claim: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: The last claim that its worker confirmed. Workers confirm claims only after a worker has died with one.
    confirmed_claim: Mapped[int | None] = mapped_column(Integer)
    #: How often its worker died before it wrote a result. If that is too often, the notification is poison.
    crash_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: Number of provider calls so far.
    attempt_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: `attempt_count` when an operator last retried it: its tries are counted from there.
    replayed_attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: Copied from the message, for counts and tasks of what is due: there may be millions.
    channel: Mapped[str]
    lane: Mapped[str]
    #: Sent with a test key: no provider is called for it, and no statistics count it.
    is_test: Mapped[bool] = mapped_column(server_default=text("false"))
    #: It has `secret` variables, whose values in the message are wiped when it ends.
    has_secrets: Mapped[bool] = mapped_column(server_default=text("false"))
    status: Mapped[str]
    #: Why it has this status. None as long as nothing is wrong.
    reason: Mapped[str | None]
    #: Free text in addition to the reason.
    detail: Mapped[str | None]
    #: The provider that accepted it, with its id of the message; otherwise the provider called last. None: none
    #: was called, or the row is from before failures recorded it.
    provider: Mapped[str | None]
    provider_message_id: Mapped[str | None]
    #: Content hash of the template that it was sent with.
    sent_version: Mapped[str | None]
    #: Statuses with a callback; None: no callbacks. See docs/explanation/callbacks.md.
    callback_statuses: Mapped[list[str] | None] = mapped_column(ARRAY(Text))

    __table_args__ = (
        one_of("status", Status),
        # For the sweep. It also finds what is `queued` or `sending`, which always has a `due_at`.
        Index(None, "due_at", postgresql_where=text("due_at IS NOT NULL")),
        # For searches, newest first. What is `sent` is found by time; the other statuses are few.
        Index(
            None, "status", "id", postgresql_where=text("status NOT IN ('queued', 'sending', 'sent', 'delivered')")
        ),
        # Rows die young, near the end of the table and its indexes. A small share of a large table is many rows.
        {"postgresql_with": {"autovacuum_vacuum_scale_factor": "0.02"}},
    )


class _Notification(Base):
    """A message and its state. The view `notifications` shows the same to people."""

    __table__ = join(StoredMessage.__table__, State.__table__, StoredMessage.id == State.id)
    id = column_property(StoredMessage.__table__.c.id, State.__table__.c.id)
    channel = column_property(StoredMessage.__table__.c.channel, State.__table__.c.channel)
    lane = column_property(StoredMessage.__table__.c.lane, State.__table__.c.lane)
    metadata_ = StoredMessage.__table__.c.metadata


#: Has the columns of `StoredMessage` and `State`; `id`, `channel` and `lane` are the message's.
Notification: Any = _Notification


class Attempt(Base):
    """One call to one provider. The row is committed before the call and completed after it."""

    __tablename__ = "attempts"

    notification_id: Mapped[UUID] = mapped_column(primary_key=True)
    #: From 1, in the order of the calls.
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    provider: Mapped[str]
    #: Content hash of the template that was rendered for it. None: the attempt is older than this column.
    template_version: Mapped[str | None]
    #: Our From address or number, as the provider got it. None: the attempt is older than this column.
    sender_address: Mapped[str | None]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: None while the call is under way, or if the worker died before it wrote the result.
    finished_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    reason: Mapped[str | None]
    #: The provider's own code.
    code: Mapped[str | None]
    detail: Mapped[str | None]
    provider_message_id: Mapped[str | None]
    #: What the answer was about, see `statuses.Subject`. None: it was accepted, or is older than this column.
    subject: Mapped[str | None]

    __table_args__ = (
        one_of("outcome", Outcome),
        {"postgresql_partition_by": "RANGE (notification_id)"},
    )


class ProviderMessage(Base):
    """A message at a provider, and the one attempt that it belongs to. The key makes a second attempt impossible.

    Only for providers whose ids each stand for one message (`providers.base.id_space`): a relay's queue ids
    repeat.
    """

    __tablename__ = "provider_messages"

    #: The id is unique within this space. Providers of one kind share it.
    id_space: Mapped[str] = mapped_column(primary_key=True)
    provider_message_id: Mapped[str] = mapped_column(primary_key=True)
    notification_id: Mapped[UUID]
    #: Number of the attempt.
    attempt: Mapped[int] = mapped_column(Integer)
    #: How we know that the message is this attempt's.
    proof: Mapped[str]

    __table_args__ = (
        one_of("proof", MessageProof),
        # For the messages of an attempt, and for retention.
        Index("ix_provider_messages_notification_id", "notification_id"),
    )


class Event(Base):
    """One line of a notification's story: a change of status, a duplicate, a provider event. Append-only."""

    __tablename__ = "events"

    notification_id: Mapped[UUID] = mapped_column(primary_key=True)
    #: In the order of recording.
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: The provider's time, if a provider reported the event.
    occurred_at: Mapped[datetime | None]
    #: "accepted", "status", "duplicate", "redispatched", "held", "operator", "quota", "provider",
    #: "provider_message", "no_receipt", "recipient", "came_back_unread", "auto_reply" or "suppression_held".
    kind: Mapped[str]
    #: The status from here on. None: the event changed no status.
    status: Mapped[str | None]
    reason: Mapped[str | None]
    #: Number of the attempt that it belongs to.
    attempt: Mapped[int | None]
    detail: Mapped[str | None]

    __table_args__ = ({"postgresql_partition_by": "RANGE (notification_id)"},)


class IdempotencyKey(Base):
    """One row for each (producer, key): what makes a second message the same notification."""

    __tablename__ = "idempotency_keys"

    #: For messages of test keys followed by "/test", which no producer's name contains: tests have their own keys.
    producer: Mapped[str] = mapped_column(primary_key=True)
    #: The idempotency key, or the message's id if it has none.
    key: Mapped[str] = mapped_column(primary_key=True)
    #: SHA-256 of the content. Another body under the same key is refused.
    body_hash: Mapped[bytes] = mapped_column(LargeBinary)
    notification_id: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class RejectedMessage(Base):
    """A message that the intake could not accept."""

    __tablename__ = "rejected_messages"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: The queue that it came by.
    queue: Mapped[str]
    #: The producer that it names, if that could be read.
    producer: Mapped[str | None]
    #: The bytes as they came, at most the first 64 KiB. Empty if they are sealed.
    body: Mapped[bytes] = mapped_column(LargeBinary)
    #: Their full length.
    body_size: Mapped[int] = mapped_column(BigInteger)
    #: Position in its batch, from 0. None: it was not part of a batch.
    entry: Mapped[int | None] = mapped_column(Integer)
    headers: Mapped[dict[str, Any]]
    #: Headers and body, encrypted. None: they are in their columns.
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    #: [{"field", "code", "problem", "fix"}]
    faults: Mapped[list[Any]]
    #: It may have been delivered or read before, so the same bytes may be here twice.
    redelivered: Mapped[bool]
    #: When an operator last published it again. None: never.
    replayed_at: Mapped[datetime | None]
    #: The operator record of the replay that claimed it last.
    replay_id: Mapped[UUID | None]
    #: When that replay claimed it, if it has not ended. None: no replay holds it. See `store.rejected`.
    claimed_at: Mapped[datetime | None]
    #: The user who published it, according to RabbitMQ. None: nobody can say, or it is older than this column.
    broker_user: Mapped[str | None]

    __table_args__ = (Index("ix_rejected_messages_received_at", "received_at"),)


class StoredAttachment(Base):
    """A file that a producer uploaded, to be sent with its mails."""

    __tablename__ = "attachments"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    #: The producer whose messages may name it; followed by "/test", whose tests may.
    producer: Mapped[str]
    #: Name of the file, as the recipient sees it.
    name: Mapped[str]
    #: "application/pdf", "text/csv; charset=utf-8".
    content_type: Mapped[str]
    #: Bytes.
    size: Mapped[int] = mapped_column(Integer)
    sha256: Mapped[bytes] = mapped_column(LargeBinary)
    content: Mapped[bytes] = mapped_column(LargeBinary)
    #: When it was last uploaded.
    uploaded_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: When the last notification that names it was due to be sent. None: none has named it.
    needed_until: Mapped[datetime | None]

    __table_args__ = (
        Index("uq_attachments_producer_sha256", "producer", "sha256", "name", "content_type", unique=True),
    )


class Suppression(Base):
    """A recipient who must not be sent to. The address itself is not here, only its keyed hash.

    A row is never deleted: one that was lifted or has expired explains why the recipient got nothing at that time.
    """

    __tablename__ = "suppressions"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    #: HMAC of channel and address, see `notifier.security.recipient_hash`.
    address_hash: Mapped[bytes] = mapped_column(LargeBinary)
    #: Fingerprint of the key that the hash was made with. Under another key the row is not found.
    hash_key: Mapped[str]
    channel: Mapped[str]
    #: "global", "sender:<identity>" or "category:<name>".
    scope: Mapped[str]
    reason: Mapped[str]
    #: "provider:<name>", "webhook:<name>", "operator:<login>", "import:<login>", "bounce", "unsubscribe".
    source: Mapped[str]
    #: Why, in somebody's own words, without personal data.
    detail: Mapped[str | None]
    #: The notification that caused it.
    notification_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: When it ends. None: it does not end by itself.
    expires_at: Mapped[datetime | None]
    #: When it was ended. None: it was not.
    lifted_at: Mapped[datetime | None]
    #: Who ended it, as in `source`. "expiry": it had expired when another one replaced it. "replaced": the other
    #: one ends later, or is its copy under a new hash key.
    lifted_by: Mapped[str | None]
    lifted_detail: Mapped[str | None]
    #: Provider of the message that caused it. None: no message caused it, or it is older than this column.
    provider: Mapped[str | None]
    #: Sender identity of that message.
    sender: Mapped[str | None]

    __table_args__ = (
        one_of("channel", Channel),
        one_of("reason", SuppressionReason),
        # For the workers' look-up before every call. It also allows only one of a kind at a time.
        Index(
            "uq_suppressions_address_hash",
            "address_hash",
            "scope",
            "reason",
            unique=True,
            postgresql_where=text("lifted_at IS NULL"),
        ),
        # For the whole story of one recipient.
        Index("ix_suppressions_address_hash_id", "address_hash", "id"),
        # Whether any was made under another key. Not partial, because its condition would be the same as that of
        # the workers' look-up, and then the planner could choose to read all of it.
        Index("ix_suppressions_hash_key", "hash_key"),
    )
