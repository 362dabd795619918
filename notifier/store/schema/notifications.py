"""The tables of notifications. The comments on columns are their reference; `migrations/` makes them.

A notification is a row of `messages` and a row of `states`. `messages`, `attempts` and `events` are partitioned by
the notification's UUIDv7: a look-up by id reads one partition of each, and retention is DROP TABLE. Triggers on
`states` write `callbacks`: see `store.ledger`.
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
    """What was accepted: one message to one recipient on one channel. Written once; only what protects people's
    data is changed later."""

    __tablename__ = "messages"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    #: The service that published it.
    producer: Mapped[str]
    #: Its key, if it gave one; uniqueness is kept by `idempotency_keys`.
    idempotency_key: Mapped[str | None]
    channel: Mapped[str]
    lane: Mapped[str]
    #: As the producer wrote it: an address, maybe with a display name, or an E.164 number.
    #: None: sealed or redacted.
    recipient: Mapped[str | None]
    #: The bare address in lower case, or the number. None: sealed or redacted.
    address: Mapped[str | None]
    #: Keyed hash of channel and address, for searches. None: from before there were hashes.
    address_hash: Mapped[bytes | None] = mapped_column(LargeBinary)
    template: Mapped[str]
    #: Content hash of the template that it was accepted against.
    template_version: Mapped[str]
    locale: Mapped[str | None]
    #: None: sealed or redacted.
    context: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    #: Recipient and context, encrypted, see `store.personal_data`. None: they are in their columns, or redacted.
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    #: Values of `secret` variables, encrypted; None: they stand in the context, or there are none.
    secrets: Mapped[bytes | None] = mapped_column(LargeBinary)
    #: Names of its `secret` variables; empty: their values were wiped. None: it had none.
    secret_names: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    #: Name of the sender identity; None: the template's.
    sender: Mapped[str | None]
    reply_to: Mapped[str | None]
    reference: Mapped[str | None]
    metadata_: Mapped[dict[str, Any]] = mapped_column("metadata", server_default=text("'{}'"))
    send_at: Mapped[datetime | None]
    expires_at: Mapped[datetime | None]
    callback_url: Mapped[str | None]
    #: The template's policy when it was accepted.
    on_unknown: Mapped[str]
    #: When it entered the record.
    accepted_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: Ids of its files, in their order; None: there are none.
    attachments: Mapped[list[UUID] | None] = mapped_column(ARRAY(PG_UUID(as_uuid=True)))
    #: How it was proven that its producer sent it, see `ProducerProof`. None: from before that was recorded.
    proof: Mapped[str | None]
    #: Who sent it: "key:<id>", "user:<broker user>", "recurring:<id>" or "operator:<name>". None: nobody can say,
    #: the service made it itself, or it is from before that was recorded.
    sent_by: Mapped[str | None]
    #: W3C Trace Context that its trace goes on from. None: it has no trace.
    traceparent: Mapped[str | None]

    __table_args__ = (
        one_of("channel", Channel),
        one_of("lane", Lane),
        one_of("on_unknown", OnUnknown),
        # Searches, newest first.
        Index(None, "address_hash", "id", postgresql_where=text("address_hash IS NOT NULL")),
        Index(None, "producer", "id"),
        Index(None, "template", "id"),
        Index(None, "reference", "id", postgresql_where=text("reference IS NOT NULL")),
        {"postgresql_partition_by": "RANGE (id)"},
    )


class State(Base):
    """Where a notification stands. Each move rewrites this row and not its message's, so it is short, has few
    indexes, and has no partitions: an update would set all of them up."""

    __tablename__ = "states"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    #: When something has to happen to it next; None: never by itself. See docs/explanation/state-and-time.md.
    due_at: Mapped[datetime | None]
    updated_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: When a provider accepted it.
    sent_at: Mapped[datetime | None]
    #: When an operator last retried it: its deadline counts from there. None: from when it was due.
    replayed_at: Mapped[datetime | None]
    #: Of the task that made the claim, for a repeated statement to find what it had claimed. None: not claimed
    #: yet.
    claim_token: Mapped[UUID | None]
    #: Counts claims: the fencing token of the worker that holds it.
    claim: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: The last claim that its worker confirmed: asked for after a worker died with it.
    confirmed_claim: Mapped[int | None] = mapped_column(Integer)
    #: How often its worker died before it wrote a result; too often, and it is poison.
    crash_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: Provider calls so far.
    attempt_count: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: `attempt_count` when an operator last retried it: its tries count from there, too.
    replayed_attempts: Mapped[int] = mapped_column(Integer, server_default=text("0"))
    #: As the message's, for counts and tasks of what is due: there may be millions.
    channel: Mapped[str]
    lane: Mapped[str]
    #: Sent with a test key: no provider is called for it, and no statistics count it.
    is_test: Mapped[bool] = mapped_column(server_default=text("false"))
    #: It has `secret` variables: the values in its message are wiped when it ends.
    has_secrets: Mapped[bool] = mapped_column(server_default=text("false"))
    status: Mapped[str]
    #: Why it is where it is; None while nothing is wrong.
    reason: Mapped[str | None]
    #: Free text beside the reason.
    detail: Mapped[str | None]
    #: Who accepted it, and under which id; else who was called last. None: nobody was, or the row is from before
    #: failures kept it.
    provider: Mapped[str | None]
    provider_message_id: Mapped[str | None]
    #: Content hash of the template that it was sent with.
    sent_version: Mapped[str | None]
    #: Statuses with a callback; None: no callbacks. See docs/explanation/callbacks.md.
    callback_statuses: Mapped[list[str] | None] = mapped_column(ARRAY(Text))

    __table_args__ = (
        one_of("status", Status),
        # The sweep's index. What is `queued` or `sending` is found by it, too: it always has a `due_at`.
        Index(None, "due_at", postgresql_where=text("due_at IS NOT NULL")),
        # Searches, newest first. What is `sent` is found by time; the rest is few.
        Index(
            None, "status", "id", postgresql_where=text("status NOT IN ('queued', 'sending', 'sent', 'delivered')")
        ),
        # Rows die young, near the end of the table and of its indexes: a small share of a large table is many.
        {"postgresql_with": {"autovacuum_vacuum_scale_factor": "0.02"}},
    )


class _Notification(Base):
    """A message and its state. The view `notifications` shows the same to people."""

    __table__ = join(StoredMessage.__table__, State.__table__, StoredMessage.id == State.id)
    id = column_property(StoredMessage.__table__.c.id, State.__table__.c.id)
    channel = column_property(StoredMessage.__table__.c.channel, State.__table__.c.channel)
    lane = column_property(StoredMessage.__table__.c.lane, State.__table__.c.lane)
    metadata_ = StoredMessage.__table__.c.metadata


#: Its columns are those of `StoredMessage` and `State`; `id`, `channel` and `lane` are the message's.
Notification: Any = _Notification


class Attempt(Base):
    """One call to one provider. The row is committed before the call and completed after it."""

    __tablename__ = "attempts"

    notification_id: Mapped[UUID] = mapped_column(primary_key=True)
    #: From 1, in the order of the calls.
    number: Mapped[int] = mapped_column(Integer, primary_key=True, autoincrement=False)
    provider: Mapped[str]
    #: Content hash of the template that was rendered for it. None: from before attempts kept it.
    template_version: Mapped[str | None]
    #: Our From address or number, as the provider got it. None: from before attempts kept it.
    sender_address: Mapped[str | None]
    started_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: None while the call is under way, or if nobody lived to write its result.
    finished_at: Mapped[datetime | None]
    outcome: Mapped[str | None]
    reason: Mapped[str | None]
    #: The provider's own code.
    code: Mapped[str | None]
    detail: Mapped[str | None]
    provider_message_id: Mapped[str | None]
    #: What the answer was about, see `status.Subject`; None: it was accepted, or is older than this column.
    subject: Mapped[str | None]

    __table_args__ = (
        one_of("outcome", Outcome),
        {"postgresql_partition_by": "RANGE (notification_id)"},
    )


class ProviderMessage(Base):
    """A message at a provider, and the one attempt that it belongs to: the key makes a second one impossible.

    Only of providers whose ids each stand for one message (`providers.base.id_space`): a relay's queue ids repeat.
    """

    __tablename__ = "provider_messages"

    #: Its id is unique within it; providers of one kind share it.
    id_space: Mapped[str] = mapped_column(primary_key=True)
    provider_message_id: Mapped[str] = mapped_column(primary_key=True)
    notification_id: Mapped[UUID]
    #: Number of the attempt.
    attempt: Mapped[int] = mapped_column(Integer)
    #: How we know.
    proof: Mapped[str]

    __table_args__ = (
        one_of("proof", MessageProof),
        # What an attempt has; and retention.
        Index("ix_provider_messages_notification_id", "notification_id"),
    )


class Event(Base):
    """Append-only: every transition, every duplicate, every provider event."""

    __tablename__ = "events"

    notification_id: Mapped[UUID] = mapped_column(primary_key=True)
    #: Order of recording.
    id: Mapped[int] = mapped_column(BigInteger, Identity(always=True), primary_key=True)
    recorded_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: The provider's time, for what a provider reported.
    occurred_at: Mapped[datetime | None]
    #: "accepted", "status", "duplicate", "redispatched", "held", "operator", "quota", "provider",
    #: "provider_message", "no_receipt", "recipient", "came_back_unread", "auto_reply" or "suppression_held".
    kind: Mapped[str]
    #: The status that it has from here on; None if the event changed nothing.
    status: Mapped[str | None]
    reason: Mapped[str | None]
    #: Number of the attempt it belongs to.
    attempt: Mapped[int | None]
    detail: Mapped[str | None]

    __table_args__ = ({"postgresql_partition_by": "RANGE (notification_id)"},)


class IdempotencyKey(Base):
    """One row for each (producer, key): what makes a second message the same notification."""

    __tablename__ = "idempotency_keys"

    #: With "/test" behind it, which no producer's name has, for messages of test keys: their keys are apart.
    producer: Mapped[str] = mapped_column(primary_key=True)
    #: The idempotency key, or the message's id where it gave none.
    key: Mapped[str] = mapped_column(primary_key=True)
    #: SHA-256 of the content; another body under the same key is refused.
    body_hash: Mapped[bytes] = mapped_column(LargeBinary)
    notification_id: Mapped[UUID]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())


class RejectedMessage(Base):
    """A message that the intake could not accept."""

    __tablename__ = "rejected_messages"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    received_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: The queue it came by.
    queue: Mapped[str]
    #: As it says itself, if that could be read.
    producer: Mapped[str | None]
    #: The bytes as they came, at most the first 64 KiB; empty if they are sealed.
    body: Mapped[bytes] = mapped_column(LargeBinary)
    #: Their full length.
    body_size: Mapped[int] = mapped_column(BigInteger)
    #: Position in its batch, from 0; None: the message was alone.
    entry: Mapped[int | None] = mapped_column(Integer)
    headers: Mapped[dict[str, Any]]
    #: Headers and body, encrypted; None: they stand in their columns.
    sealed: Mapped[bytes | None] = mapped_column(LargeBinary)
    #: [{"field", "code", "problem", "fix"}]
    faults: Mapped[list[Any]]
    #: It may have been delivered or taken in before: the same bytes may be here twice.
    redelivered: Mapped[bool]
    #: When an operator last published it again; None: never.
    replayed_at: Mapped[datetime | None]
    #: The operator record of the replay that last took it in hand.
    replay_id: Mapped[UUID | None]
    #: That replay took it then, and has not ended; None: none has it in hand. See `store.rejected`.
    claimed_at: Mapped[datetime | None]
    #: The user who published it, as RabbitMQ says. None: nobody can say, or from before that was recorded.
    broker_user: Mapped[str | None]

    __table_args__ = (Index("ix_rejected_messages_received_at", "received_at"),)


class StoredAttachment(Base):
    """A file that a producer uploaded, to be sent with its mails."""

    __tablename__ = "attachments"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    #: Whose messages may name it; with "/test" behind it, whose tests.
    producer: Mapped[str]
    #: Of the file, as the recipient sees it.
    name: Mapped[str]
    #: "application/pdf", "text/csv; charset=utf-8".
    content_type: Mapped[str]
    #: Bytes.
    size: Mapped[int] = mapped_column(Integer)
    sha256: Mapped[bytes] = mapped_column(LargeBinary)
    content: Mapped[bytes] = mapped_column(LargeBinary)
    #: When it was last uploaded.
    uploaded_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: When the last notification that names it was due to be sent; None: none names it.
    needed_until: Mapped[datetime | None]

    __table_args__ = (
        Index("uq_attachments_producer_sha256", "producer", "sha256", "name", "content_type", unique=True),
    )


class Suppression(Base):
    """A recipient who must not be sent to. The address itself is not here, only the keyed hash of it.

    A row is never deleted: one that was lifted or that expired says why the recipient got nothing back then.
    """

    __tablename__ = "suppressions"

    id: Mapped[UUID] = mapped_column(primary_key=True)
    #: HMAC of channel and address, see `notifier.security.recipient_hash`.
    address_hash: Mapped[bytes] = mapped_column(LargeBinary)
    #: Fingerprint of the key it was made under; under another one it is not found.
    hash_key: Mapped[str]
    channel: Mapped[str]
    #: "global", "sender:<identity>" or "category:<name>".
    scope: Mapped[str]
    reason: Mapped[str]
    #: "provider:<name>", "webhook:<name>", "operator:<login>", "import:<login>", "bounce", "unsubscribe".
    source: Mapped[str]
    #: Why, in somebody's words, without personal data.
    detail: Mapped[str | None]
    #: The one that caused it.
    notification_id: Mapped[UUID | None]
    created_at: Mapped[datetime] = mapped_column(server_default=func.now())
    #: None: it does not end by itself.
    expires_at: Mapped[datetime | None]
    #: When it was ended; None: it was not.
    lifted_at: Mapped[datetime | None]
    #: Who ended it, as in `source`; "expiry": it had expired when another took its place; "replaced": the other
    #: one ends later.
    lifted_by: Mapped[str | None]
    lifted_detail: Mapped[str | None]
    #: Provider of the message that caused it; None: no message did, or it is from before this was kept.
    provider: Mapped[str | None]
    #: Its sender identity.
    sender: Mapped[str | None]

    __table_args__ = (
        one_of("channel", Channel),
        one_of("reason", SuppressionReason),
        # For the workers' look-up before every call; and only one of a kind at a time.
        Index(
            "uq_suppressions_address_hash",
            "address_hash",
            "scope",
            "reason",
            unique=True,
            postgresql_where=text("lifted_at IS NULL"),
        ),
        # The whole story of one recipient.
        Index("ix_suppressions_address_hash_id", "address_hash", "id"),
        # Whether any was made under another key. Not partial: its condition would be that of the workers' look-up,
        # which the planner could then have read all of it.
        Index("ix_suppressions_hash_key", "hash_key"),
    )
