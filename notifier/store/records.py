"""The records that the ledger takes and returns."""

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

#: Follows a producer's name in the idempotency keys and files of its test messages; no name contains a "/".
TEST_KEYS = "/test"


@dataclass(frozen=True, slots=True)
class NewNotification:
    """A valid message to be recorded."""

    message: Message
    channel: Channel
    lane: Lane
    template_version: str
    on_unknown: OnUnknown
    #: Returned with the answer, so that the caller can find the message again.
    position: int
    #: It may have been accepted before: a duplicate may be our own doing, not the producer's.
    redelivered: bool = False
    #: Statuses that get a callback. None: no callbacks.
    callback_statuses: tuple[Status, ...] | None = None
    #: It came with a test key.
    is_test: bool = False
    #: Variables that are wiped once the message was sent.
    secret_names: tuple[str, ...] = ()
    #: How it was proven that its producer sent it.
    proof: ProducerProof = ProducerProof.NONE
    #: See `Origin`.
    sent_by: str | None = None
    #: The context that its trace goes on from. None: the message's own, if it has one.
    traceparent: str | None = None
    #: A note for the first event of its story. None: no note.
    note: str | None = None

    @property
    def key_owner(self) -> str:
        """The owner of its idempotency key. Tests have keys of their own, apart from those of the live service."""
        return self.message.producer + TEST_KEYS if self.is_test else self.message.producer


@dataclass(frozen=True, slots=True)
class NewRejection:
    queue: str
    body: bytes
    faults: tuple[Fault, ...]
    headers: dict[str, Any] = field(default_factory=dict)
    producer: str | None = None
    #: The user who published it, according to RabbitMQ. None: unknown.
    broker_user: str | None = None
    #: Position in its batch. None: it was not part of a batch.
    entry: int | None = None
    redelivered: bool = False
    #: Original number of bytes, if the body was cut. None: the length of `body`.
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Acceptance:
    position: int
    #: The id of its notification; for a duplicate, of the first one with the same key.
    id: UUID
    channel: Channel
    lane: Lane
    #: None: it was a duplicate.
    status: Status | None
    #: Why it was not accepted: its key or id is taken, or a file is missing.
    fault: Fault | None = None

    @property
    def is_duplicate(self) -> bool:
        """Whether it had been accepted before."""
        return self.status is None and self.fault is None


@record(frozen=True, slots=True)
class NotificationToSend:
    """A notification to deliver. If `Ledger.claim` returned it, it is ours until its lease ends. In `Queued.new`
    it was only read, so nobody holds it yet."""

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
    #: The number of its claim, a fencing token. If it was only read: the number that its next claim will get.
    claim: int
    #: The number of its last attempt. 0: there was none.
    attempt_count: int
    #: Number of provider calls since it was accepted, or since an operator last requeued it.
    tries: int
    #: Time since it was first due, or since an operator requeued it, by the database's clock.
    age_seconds: float
    #: Time until `expires_at`, by the database's clock. None: it does not expire.
    seconds_to_expiry: float | None
    #: When it was claimed or read, on this process's monotonic clock.
    read_at: float
    #: Why recipient and context are empty: they could not be decrypted.
    problem: str | None = None
    #: The context that its trace goes on from. None: it has no trace.
    traceparent: str | None = None

    @property
    def log_ids(self) -> dict[str, str]:
        """The fields of a log line about it."""
        return log_ids(self.id, self.traceparent)

    def seconds_to_expiry_now(self) -> float | None:
        """The present value of `seconds_to_expiry`, by a clock that nobody can set."""
        if self.seconds_to_expiry is None:
            return None
        return self.seconds_to_expiry - (time.monotonic() - self.read_at)


@dataclass(frozen=True, slots=True)
class Queued:
    """Notifications that are queued and that nobody holds yet."""

    #: Untouched since they were accepted, and without files: they may be rendered before they are claimed.
    new: list[NotificationToSend]
    #: Ids of those that must be claimed before anybody looks into them.
    others: list[UUID]
    #: Ids of those with files, which must be claimed first as well.
    with_files: list[UUID]


@record(frozen=True, slots=True)
class Guard:
    """What is looked up among the suppressions before a call."""

    #: See `HashKey.recipient_forms`.
    address_hashes: tuple[bytes, ...]
    #: Scopes beside the global one: those of the sender identity and of the category.
    sender_scope: str
    category_scope: str | None
    #: Its template is sent even against the recipient's wish, because the law requires it.
    is_exempt: bool

    @property
    def address_hash(self) -> bytes:
        return self.address_hashes[0]


@record(frozen=True, slots=True)
class NewAttempt:
    notification: NotificationToSend
    provider: str
    #: None: suppressions are not looked up.
    guard: Guard | None = None
    #: Number of calls already made under this claim.
    earlier: int = 0
    #: The version of the template that it was rendered with.
    template_version: str | None = None
    #: The sender as in the `Outgoing` of its call.
    sender_address: str | None = None

    @property
    def number(self) -> int:
        """The number of this attempt. It is the same however often the attempt is begun."""
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
    #: Fingerprint of the key of `address_hash`.
    hash_key: str
    channel: Channel
    scope: str
    reason: SuppressionReason
    source: str
    detail: str | None = None
    notification_id: UUID | None = None
    expires_at: datetime | None = None
    #: Provider and sender identity of the message that caused it. None: no message caused it.
    provider: str | None = None
    sender: str | None = None
    #: The provider refused the message at once, so the message does not count as sent.
    is_refusal: bool = False

    @property
    def is_watched(self) -> bool:
        """Whether it comes from an answer that the recipient does not exist. Too many of these mean that something
        is wrong on our side. What recipients ask for never waits."""
        reasons = (SuppressionReason.HARD_BOUNCE, SuppressionReason.INVALID_RECIPIENT)
        return self.reason in reasons and bool(self.origins)

    @property
    def origins(self) -> tuple[str, ...]:
        """The scopes of the mass alarm in which it counts."""
        named = (("provider", self.provider), ("sender", self.sender))
        return tuple(f"{kind}:{name}" for kind, name in named if name)

    def as_dict(self, id_: UUID) -> dict[str, Any]:
        """The columns of its row, for `ledger_rows.as_json`."""
        detail = self.detail and storable(self.detail)[:500]
        return {**asdict(self), "id": id_, "address_hash": self.address_hash.hex(), "detail": detail}


@record(frozen=True, slots=True)
class DeliveryResult:
    """The result that ends a claim: the new status, and the result of the attempt if there was one."""

    id: UUID
    claim: int
    status: Status
    reason: Reason | None = None
    detail: str | None = None
    #: Time from now until it is due again. None: it is never due by itself.
    due_in_seconds: float | None = None
    template_version: str | None = None
    #: Number of the attempt. None: no provider was called.
    number: int | None = None
    outcome: Outcome | None = None
    provider: str | None = None
    code: str | None = None
    #: What the provider's answer was about. None: it accepted.
    subject: Subject | None = None
    provider_message_id: str | None = None
    #: Within this space the message id stands for one message, see `providers.base.id_space`. None: it does not.
    id_space: str | None = None
    #: How we know that the message is this attempt's.
    proof: MessageProof = MessageProof.ANSWER
    #: The suppression that the provider's answer calls for.
    suppression: NewSuppression | None = None


@dataclass(frozen=True, slots=True)
class Due:
    """A notification that needs a task."""

    id: UUID
    channel: Channel
    lane: Lane
    #: It gets a task of its own, because a worker crashed while it had it in hand, maybe because of it.
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Unknown:
    """An attempt with unknown outcome. A rival may still be under way."""

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
    #: The time of this read, by the database's clock.
    looked_at: datetime
    #: As in `NotificationToSend`.
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Rivals:
    """Other attempts that a message found by a look-up may belong to."""

    #: Message ids that belong to other attempts.
    known_ids: frozenset[str]
    #: Attempts at the same recipient, near in time, that are under way or unknown too. Their texts may differ.
    attempts: tuple[Unknown, ...]
    #: The time of this read, by the database's clock.
    looked_at: datetime
