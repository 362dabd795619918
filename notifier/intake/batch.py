"""A batch of messages as the broker delivered them, and the outcome of taking it in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

from notifier.domain.errors import Fault
from notifier.domain.producers import Origin
from notifier.domain.statuses import Channel, Lane

#: Maximum number of messages in a batch.
BATCH_SIZE = 200


@dataclass(frozen=True, slots=True)
class Received:
    """A message as the broker delivered it, unread."""

    body: bytes
    channel: Channel
    lane: Lane
    #: Application headers, of any shape.
    headers: Mapping[str, Any] = field(default_factory=dict)
    content_type: str | None = None
    content_encoding: str | None = None
    #: The property `user_id`, which RabbitMQ verifies. None: not set, or another kind of broker.
    broker_user: str | None = None
    #: It may be recorded already, because the broker delivers it again or our own first try failed.
    redelivered: bool = False
    #: Where the message is from. None: its broker user says. Only our own process sets it; it cannot be claimed
    #: over the broker.
    origin: Origin | None = None
    #: Faults that the reader found; because of them the message is rejected.
    faults: tuple[Fault, ...] = ()
    #: Original size of the body in bytes, if `body` was cut. None: `body` is whole.
    size: int | None = None


@dataclass(frozen=True, slots=True)
class IntakeSummary:
    """Counts of entries; each entry of a batch message counts."""

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class IntakeAnswer:
    """The outcome of one message whose sender waits: the notification, or why there is none."""

    id: UUID | None
    is_replay: bool
    faults: tuple[Fault, ...] = ()


#: Takes a batch; when it returns, the batch is recorded. Raises ServiceUnavailable if the batch must be kept.
Handle = Callable[[Sequence[Received]], object]
#: Publishes deliver tasks: channel, lane, ids. May raise anything: the sweep publishes what was not published.
PublishTasks = Callable[[Channel, Lane, Sequence[UUID]], None]
