"""The filter of notifications, and the bounds on how much a search may read."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from sqlalchemy import ColumnElement, or_

from notifier.domain.errors import InvalidMessage, WrongSelection
from notifier.domain.recipient_identity import number_faults
from notifier.domain.statuses import Channel, Status
from notifier.security.recipient_hash import HashKey
from notifier.store.rows import matching
from notifier.store.schema.notifications import Notification, State, StoredMessage
from notifier.store.schema.partitions import first_id

#: A condition without an index reads notifications one by one, so it may span at most this time.
MAX_SPAN = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class Filter:
    """All conditions must hold. None: no condition. Times are the times in the ids; `since` is inclusive, `until`
    exclusive."""

    #: An address, with or without display name, or a number.
    recipient: str | None = None
    #: The recipient's hashes, instead of an address.
    recipient_hashes: tuple[bytes, ...] | None = None
    reference: str | None = None
    idempotency_key: str | None = None
    producer: str | None = None
    channel: str | None = None
    status: str | None = None
    reason: str | None = None
    template: str | None = None
    provider: str | None = None
    since: datetime | None = None
    until: datetime | None = None
    #: Names and values that the metadata must hold. They have no index, see `check_span`.
    metadata: dict[str, str] | None = None
    #: True: only those of test keys. False: only the others.
    is_test: bool | None = None
    #: Only these channels, and templates whose names match one of these patterns (`order_*`).
    channels: tuple[str, ...] | None = None
    templates: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Raises `InvalidMessage` for a wrong number, which would find nothing."""
        if self.recipient is not None and "@" not in self.recipient:
            faults = number_faults(self.recipient.strip(), "recipient")
            if faults:
                raise InvalidMessage(faults)

    @property
    def is_exact(self) -> bool:
        """Whether an index leads to a few notifications."""
        named = (self.recipient, self.recipient_hashes, self.reference, self.idempotency_key)
        return any(value is not None for value in named)

    @property
    def may_take_long(self) -> bool:
        """Whether a page may take long, because a condition has no index."""
        unindexed = (self.metadata, self.reason, self.provider, self.channel, self.channels, self.templates)
        is_common = self.status in (Status.SENT, Status.DELIVERED)
        return not self.is_exact and (is_common or any(value is not None for value in unindexed))

    def check_span(self, now: datetime) -> None:
        """Raises `WrongSelection` if metadata is searched over more than `MAX_SPAN`."""
        if self.metadata is None or self.is_exact:
            return
        if self.since is None or (self.until or now) - self.since > MAX_SPAN:
            raise WrongSelection(
                "metadata is searched one by one: give recipient or reference, or since and until at most "
                f"{MAX_SPAN.days} days apart"
            )


def conditions(wanted: Filter, hash_key: HashKey) -> Iterator[ColumnElement[bool]]:
    """The filter as conditions on `Notification`."""
    yield from matching(Notification, wanted, "reference", "idempotency_key", "producer", "channel", "status")
    yield from matching(Notification, wanted, "reason", "template", "provider", "is_test")
    if wanted.channels is not None:
        yield Notification.channel.in_(wanted.channels)
    if wanted.templates is not None:
        yield or_(*(Notification.template.like(_like(pattern), escape="\\") for pattern in wanted.templates))
    if wanted.metadata is not None:
        yield Notification.metadata_.contains(wanted.metadata)
    if wanted.recipient is not None:
        yield Notification.address_hash.in_(hashes_of(wanted, hash_key))
    if wanted.recipient_hashes is not None:
        yield Notification.address_hash.in_(wanted.recipient_hashes)
    # The index on rows with a `due_at` holds these; the index on the other statuses does not.
    if wanted.status in (Status.QUEUED, Status.SENDING):
        yield State.due_at.is_not(None)
    # Ids sort by time, so a span of time is a range of the primary keys, and of partitions.
    if wanted.since is not None:
        yield from after(first_id(wanted.since), inclusive=True)
    if wanted.until is not None:
        yield from before(first_id(wanted.until))


def before(id_: UUID) -> Iterator[ColumnElement[bool]]:
    """Notifications with smaller ids. The condition is given for both tables, so that the planner can begin with
    either."""
    yield from (StoredMessage.id < id_, State.id < id_)


def after(id_: UUID, *, inclusive: bool = False) -> Iterator[ColumnElement[bool]]:
    """Notifications with larger ids; see `before`."""
    for column in (StoredMessage.id, State.id):
        yield column >= id_ if inclusive else column > id_


def _like(pattern: str) -> str:
    """The pattern for LIKE of a pattern of template names, in which only `*` and `?` are special."""
    return pattern.replace("_", "\\_").replace("*", "%").replace("?", "_")


def hashes_of(wanted: Filter, hash_key: HashKey) -> list[bytes]:
    """The recipient's hashes: on the given channel, or on both."""
    recipient = wanted.recipient or ""
    known = [channel for channel in Channel if wanted.channel in (None, channel)]
    # Numbers get no mail, and addresses no SMS.
    likely = [channel for channel in known if (channel is Channel.EMAIL) == ("@" in recipient)]
    return [form for channel in likely or known for form in hash_key.recipient_forms(channel, recipient)]
