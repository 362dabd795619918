"""What to search notifications for, and how much that may read."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from sqlalchemy import ColumnElement, or_

from notifier.domain.errors import InvalidMessage, WrongSelection
from notifier.domain.recipient_identity import number_faults
from notifier.domain.statuses import Channel, Status
from notifier.security.recipient_hash import HashKey
from notifier.store.schema.notifications import Notification
from notifier.store.schema.partitions import first_id

#: What has to be read one by one is read of no longer time than this.
MAX_SPAN = timedelta(days=31)


@dataclass(frozen=True, slots=True)
class Filter:
    """What to search for; None: anything. All that is given must hold. Times are of acceptance by the producer's
    id, `since` inclusive, `until` exclusive."""

    #: An address, with or without display name, or a number.
    recipient: str | None = None
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
    #: Names and values that its metadata holds. No index is for these, see `check_span`.
    metadata: dict[str, str] | None = None
    #: Those of test keys, or all others.
    is_test: bool | None = None
    #: Only of these channels, and of templates whose names are of one of these patterns (`order_*`).
    channels: tuple[str, ...] | None = None
    templates: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        """Raises `InvalidMessage` for a number that is none: it would find nobody, as if there were nothing."""
        if self.recipient is not None and "@" not in self.recipient:
            faults = number_faults(self.recipient.strip(), "recipient")
            if faults:
                raise InvalidMessage(faults)

    @property
    def is_exact(self) -> bool:
        """Whether it finds a few, by an index, however many there are."""
        return any(value is not None for value in (self.recipient, self.reference, self.idempotency_key))

    @property
    def may_take_long(self) -> bool:
        """Whether much may be read for a page of it, because no index is for what it asks."""
        unindexed = (self.metadata, self.reason, self.provider, self.channel, self.channels, self.templates)
        is_common = self.status in (Status.SENT, Status.DELIVERED)
        return not self.is_exact and (is_common or any(value is not None for value in unindexed))

    def check_span(self, now: datetime) -> None:
        """Let pass what reads no more than `MAX_SPAN` of notifications one by one.

        Raises:
            WrongSelection: metadata is asked for of a longer time.
        """
        if self.metadata is None or self.is_exact:
            return
        if self.since is None or (self.until or now) - self.since > MAX_SPAN:
            raise WrongSelection(
                "metadata is searched one by one: give recipient or reference, or since and until at most "
                f"{MAX_SPAN.days} days apart"
            )


def conditions(wanted: Filter, hash_key: HashKey) -> Iterator[ColumnElement[bool]]:
    """The filter as conditions on `notifications`."""
    names: Sequence[str] = (
        "reference",
        "idempotency_key",
        "producer",
        "channel",
        "status",
        "reason",
        "template",
        "provider",
        "is_test",
    )
    for name in names:
        value = getattr(wanted, name)
        if value is not None:
            yield getattr(Notification, name) == value
    if wanted.channels is not None:
        yield Notification.channel.in_(wanted.channels)
    if wanted.templates is not None:
        yield or_(*(Notification.template.like(_like(pattern), escape="\\") for pattern in wanted.templates))
    if wanted.metadata is not None:
        yield Notification.metadata_.contains(wanted.metadata)
    if wanted.recipient is not None:
        yield Notification.address_hash.in_(hashes_of(wanted, hash_key))
    # Ids sort by time, so a span of time is a span of the primary key, and of partitions.
    if wanted.since is not None:
        yield Notification.id >= first_id(wanted.since)
    if wanted.until is not None:
        yield Notification.id < first_id(wanted.until)


def _like(pattern: str) -> str:
    """The pattern of template names, which has `*` and `?` and nothing else that is special, for LIKE."""
    return pattern.replace("_", "\\_").replace("*", "%").replace("?", "_")


def hashes_of(wanted: Filter, hash_key: HashKey) -> list[bytes]:
    """What the recipient is known by: on the channel asked for, or on either."""
    recipient = wanted.recipient or ""
    known = [channel for channel in Channel if wanted.channel in (None, channel)]
    # A number gets no mail, and an address no text.
    likely = [channel for channel in known if (channel is Channel.EMAIL) == ("@" in recipient)]
    return [form for channel in likely or known for form in hash_key.recipient_forms(channel, recipient)]
