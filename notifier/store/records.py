"""What goes into the ledger and what comes out of it."""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass, field
from datetime import datetime
from typing import Any
from uuid import UUID

from notifier.domain.errors import Fault
from notifier.domain.message import Message
from notifier.domain.producers import ProducerProof
from notifier.domain.record import record
from notifier.domain.statuses import (
    Channel,
    Lane,
    MessageProof,
    OnUnknown,
    Outcome,
    Reason,
    Status,
    Subject,
    SuppressionReason,
)
from notifier.domain.trace_context import log_ids
from notifier.store.sanitize import storable

#: Follows a producer's name in the idempotency keys of its test messages, and in their files; no name has a "/".
TEST_KEYS = "/test"


@dataclass(frozen=True, slots=True)
class NewNotification:
    """A valid message to be recorded."""

    message: Message
    channel: Channel
    lane: Lane
    template_version: str
    on_unknown: OnUnknown
    #: Returned with the answer, for the caller to find the message again.
    position: int
    #: It may have been taken in before: a duplicate may be our own failure, not the producer's repetition.
    redelivered: bool = False
    #: Statuses with a callback; None: no callbacks.
    callback_statuses: tuple[Status, ...] | None = None
    #: It came with a test key.
    is_test: bool = False
    #: Variables that are wiped once it was sent.
    secret_names: tuple[str, ...] = ()
    #: How it was proven that its producer sent it.
    proof: ProducerProof = ProducerProof.NONE
    #: See `Origin`.
    sent_by: str | None = None
    #: Where its trace goes on; None: as its message says, if it says so.
    traceparent: str | None = None
    #: For the first line of its story; None: nothing.
    note: str | None = None

    @property
    def key_owner(self) -> str:
        """The owner of its idempotency key: keys of test messages are apart from those of the live service."""
        return self.message.producer + TEST_KEYS if self.is_test else self.message.producer


@dataclass(frozen=True, slots=True)
class NewRejection:
    queue: str
    body: bytes
    faults: tuple[Fault, ...]
    headers: dict[str, Any] = field(default_factory=dict)
    producer: str | None = None
    #: The user who published it, as RabbitMQ says; None: unknown.
    broker_user: str | None = None
    #: Position in its batch; None: it was alone.
    entry: int | None = None
    redelivered: bool = False
    #: Bytes that it had; None: the length of `body`.
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Acceptance:
    position: int
    #: The notification: its own, or the first one with the same key.
    id: UUID
    channel: Channel
    lane: Lane
    #: None: it was a duplicate.
    status: Status | None
    #: Why it was not accepted after all: its key or id is taken.
    fault: Fault | None = None

    @property
    def is_duplicate(self) -> bool:
        """Whether it had been accepted before."""
        return self.status is None and self.fault is None


@record(frozen=True, slots=True)
class NotificationToSend:
    """From `Ledger.claim` it is ours until its lease ends; in `Queued.new` it was only read: nobody's yet."""

    id: UUID
    producer: str
    channel: Channel
    lane: Lane
    recipient: str
    #: See `domain.recipient_identity`.
    address: str
    template: str
    locale: str | None
    context: dict[str, Any]
    sender: str | None
    reply_to: str | None
    expires_at: datetime | None
    on_unknown: OnUnknown
    #: Ids.
    attachments: tuple[UUID, ...]
    #: Only the simulator may be called for it.
    is_test: bool
    #: The number of its claim, a fencing token. If it was only read: the number that its claim will get.
    claim: int
    #: The number of its last attempt; 0: there was none.
    attempt_count: int
    #: Provider calls since an operator last retried it.
    tries: int
    #: Since it was first due, or retried by an operator; by the database's clock.
    age_seconds: float
    #: Until `expires_at`, by the database's clock; None: it does not expire.
    seconds_to_expiry: float | None
    #: When it was claimed or read, on this process's monotonic clock.
    read_at: float
    #: Why recipient and context are empty: they could not be decrypted.
    problem: str | None = None
    #: Where its trace goes on; None: it has none.
    traceparent: str | None = None

    @property
    def log_ids(self) -> dict[str, str]:
        """For a log line about it."""
        return log_ids(self.id, self.traceparent)

    def seconds_to_expiry_now(self) -> float | None:
        """What is left of `seconds_to_expiry`, by a clock that nobody can set."""
        if self.seconds_to_expiry is None:
            return None
        return self.seconds_to_expiry - (time.monotonic() - self.read_at)


@dataclass(frozen=True, slots=True)
class Queued:
    """Notifications that are queued, and nobody's yet."""

    #: Untouched since they were accepted, and without files: they may be rendered before they are claimed.
    new: list[NotificationToSend]
    #: To be claimed before anybody looks into them.
    others: list[UUID]
    #: The same, with files.
    with_files: list[UUID]


@record(frozen=True, slots=True)
class Guard:
    """The look-up among the suppressions before a call."""

    #: See `HashKey.recipient_forms`.
    address_hashes: tuple[bytes, ...]
    #: Scopes beside the global one: the sender identity's and the category's.
    sender_scope: str
    category_scope: str | None
    #: Its template is sent against recipients' wishes: the law says so.
    is_exempt: bool

    @property
    def address_hash(self) -> bytes:
        return self.address_hashes[0]


@record(frozen=True, slots=True)
class NewAttempt:
    notification: NotificationToSend
    provider: str
    #: None: no look-up.
    guard: Guard | None = None
    #: Calls made under this claim before.
    earlier: int = 0
    #: Of the content that is rendered for it.
    template_version: str | None = None
    #: As in the `Outgoing` of its call.
    sender_address: str | None = None

    @property
    def number(self) -> int:
        """The number of its attempt, the same however often it is begun."""
        return self.notification.attempt_count + self.earlier + 1


@record(frozen=True, slots=True)
class Started:
    """An attempt whose row is committed: the call may be made."""

    id: UUID
    claim: int
    number: int
    provider: str


@dataclass(frozen=True, slots=True)
class NewSuppression:
    address_hash: bytes
    #: Fingerprint of the key of the hash.
    hash_key: str
    channel: Channel
    scope: str
    reason: SuppressionReason
    source: str
    detail: str | None = None
    notification_id: UUID | None = None
    expires_at: datetime | None = None
    #: Provider and sender identity of the message that caused it; None: no message did.
    provider: str | None = None
    sender: str | None = None
    #: The message was refused at once, so it does not count as sent.
    is_refusal: bool = False

    @property
    def is_watched(self) -> bool:
        """Whether it comes from an answer that the recipient does not exist: if there are too many, something is
        wrong with us. What recipients wish never waits."""
        reasons = (SuppressionReason.HARD_BOUNCE, SuppressionReason.INVALID_RECIPIENT)
        return self.reason in reasons and bool(self.origins)

    @property
    def origins(self) -> tuple[str, ...]:
        """The scopes of the mass alarm that it counts for."""
        named = (("provider", self.provider), ("sender", self.sender))
        return tuple(f"{kind}:{name}" for kind, name in named if name)

    def as_dict(self, id_: UUID) -> dict[str, Any]:
        """The columns, for `ledger_rows.as_json`."""
        detail = self.detail and storable(self.detail)[:500]
        return {**asdict(self), "id": id_, "address_hash": self.address_hash.hex(), "detail": detail}


@record(frozen=True, slots=True)
class DeliveryResult:
    """The end of a claim: the new status, and the result of the attempt if there was one."""

    id: UUID
    claim: int
    status: Status
    reason: Reason | None = None
    detail: str | None = None
    #: From now until it is due again; None: never by itself.
    due_in_seconds: float | None = None
    template_version: str | None = None
    #: The attempt: None when no provider was called.
    number: int | None = None
    outcome: Outcome | None = None
    provider: str | None = None
    code: str | None = None
    #: What the provider's answer was about, unless it accepted.
    subject: Subject | None = None
    provider_message_id: str | None = None
    #: Within it that id stands for one message, see `providers.base.id_space`; None: it does not.
    id_space: str | None = None
    #: How we know that the message is this attempt's.
    proof: MessageProof = MessageProof.ANSWER
    #: What the provider's answer means for messages to come.
    suppression: NewSuppression | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """A notification that needs a task."""

    id: UUID
    channel: Channel
    lane: Lane
    #: It was in hand when a worker crashed, and may have caused it: others must not suffer.
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """An attempt with unknown outcome; as a rival, it may still be under way."""

    id: UUID
    channel: Channel
    lane: Lane
    recipient: str
    #: See `domain.recipient_identity`.
    address: str
    template: str
    locale: str | None
    context: dict[str, Any]
    sender: str | None
    on_unknown: OnUnknown
    claim: int
    crash_count: int
    number: int
    provider: str
    #: Version and sender address of what it sent. None: from before attempts kept them.
    template_version: str | None
    sender_address: str | None
    started_at: datetime
    finished_at: datetime | None
    #: Now, by the database's clock.
    looked_at: datetime
    #: As in `NotificationToSend`.
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Rivals:
    """Other attempts that a message found by a look-up may belong to."""

    #: Ids that belong to other attempts at this recipient.
    known_ids: frozenset[str]
    #: Attempts at it near in time that are under way or unknown too. Their texts may differ.
    attempts: tuple[Unknown, ...]
    #: Now, by the database's clock.
    looked_at: datetime
