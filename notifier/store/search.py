"""Reads the record: the story of one notification, searches, counts, rejected messages."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from enum import StrEnum
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Executable, Select, TextClause, func, or_, select, text

from notifier.domain.errors import CannotOpen, NotFound, ServiceUnavailable, StatementCancelled, WrongSelection
from notifier.store import filters
from notifier.store.attachments import AttachmentView, views_of
from notifier.store.engine import allow_seconds, transaction
from notifier.store.filters import Filter as Filter
from notifier.store.filters import conditions
from notifier.store.ledger_sql import LISTED_DUPLICATES
from notifier.store.personal_data import PersonalData
from notifier.store.rejected_selection import IS_INTERRUPTED, RejectedSelection, chosen
from notifier.store.repository import Repository
from notifier.store.rows import columns_of, from_row, newest
from notifier.store.schema.notifications import Attempt, Event, Notification, ProviderMessage, RejectedMessage

#: Notifications of one page of an export.
EXPORT_PAGE = 1000


@dataclass(frozen=True, slots=True)
class NotificationView:
    """One notification as auditors see it, without its context, which may hold secrets."""

    id: UUID
    producer: str
    idempotency_key: str | None
    channel: str
    lane: str
    #: None if it was redacted. If its key is missing, an `UnreadableRecipient` says why it cannot be shown.
    recipient: str | None
    template: str
    template_version: str
    locale: str | None
    sender: str | None
    reference: str | None
    metadata: dict[str, Any]
    send_at: datetime | None
    expires_at: datetime | None
    on_unknown: str
    status: str
    reason: str | None
    detail: str | None
    due_at: datetime | None
    attempt_count: int
    provider: str | None
    provider_message_id: str | None
    accepted_at: datetime
    updated_at: datetime
    sent_at: datetime | None
    #: True if it was sent with a test key: no provider was called.
    is_test: bool
    #: How the service knows that the producer sent it: a `ProducerProof`. None if it is older than this column.
    proof: str | None
    #: Who sent it: `key:<id>`, `user:<broker user>`, `recurring:<id>` or `operator:<name>`. None if that is not
    #: known, or if it is older than this column.
    sent_by: str | None
    #: Id of its trace, 32 hexadecimal digits. None if it has no trace.
    trace_id: str | None


@dataclass(frozen=True, slots=True)
class AttemptView:
    number: int
    provider: str
    started_at: datetime
    finished_at: datetime | None
    outcome: str | None
    reason: str | None
    code: str | None
    detail: str | None
    provider_message_id: str | None
    #: How we know that the provider's message is this attempt's: `answer`, `report` or `look_up`, see
    #: `MessageProof`.
    #: None: the provider's ids do not stand for one message each, or the attempt is older than this column.
    proof: str | None = None
    #: What the answer was about.
    subject: str | None = None
    #: Version of the template that was rendered for this attempt. None: the attempt is older than this column.
    template_version: str | None = None
    #: The sender as the provider got it: the From address, maybe with a display name; the number; or the id of a
    #: service there that chooses one of its numbers itself. None: the attempt is older than this column.
    sender_address: str | None = None


@dataclass(frozen=True, slots=True)
class EventView:
    id: int
    recorded_at: datetime
    occurred_at: datetime | None
    kind: str
    status: str | None
    reason: str | None
    attempt: int | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class Story:
    notification: NotificationView
    attempts: tuple[AttemptView, ...]
    events: tuple[EventView, ...]
    #: The files of the mail. Of a deleted file, only the id.
    attachments: tuple[AttachmentView, ...] = ()
    #: Version of the template when the message was accepted.
    accepted_version: str = ""

    @property
    def duplicates(self) -> int:
        """How often the same message came again, up to `LISTED_DUPLICATES`, which means that or more."""
        return sum(event.kind == "duplicate" for event in self.events)

    @property
    def duplicates_in_words(self) -> str:
        """The number of duplicates for people. Empty: there was none."""
        found = self.duplicates
        return f"at least {found}" if found >= LISTED_DUPLICATES else str(found or "")


@dataclass(frozen=True, slots=True)
class RejectedView:
    """One rejected message. `body` is the part of it that is kept: at most 64 KiB of `body_size`."""

    id: UUID
    received_at: datetime
    queue: str
    producer: str | None
    body: bytes
    body_size: int
    entry: int | None
    headers: dict[str, Any]
    faults: list[dict[str, str]]
    redelivered: bool
    #: When an operator published it again.
    replayed_at: datetime | None
    #: The operator record of the replay that claimed it last.
    replay_id: UUID | None
    #: When that replay claimed it; it has not ended …
    claimed_at: datetime | None
    #: … and will not, because it was interrupted.
    is_interrupted: bool
    #: The user who published it, according to RabbitMQ. None: nobody can say.
    broker_user: str | None


@dataclass(frozen=True, slots=True)
class Count:
    channel: str
    status: str
    count: int


class Dimension(StrEnum):
    STATUS = "status"  #: where they stand
    CHANNEL = "channel"  #: how they travel
    TEMPLATE = "template"  #: what they say
    PROVIDER = "provider"  #: which one took them, or was called last; empty: none was called
    PRODUCER = "producer"  #: who sent them
    HOUR = "hour"  #: when they were accepted, UTC


@dataclass(frozen=True, slots=True)
class GroupCount:
    #: One value for each requested dimension, in their order.
    values: tuple[str | None, ...]
    count: int


#: If several ids begin alike, this many are named.
_SIMILAR_IDS = 5
_VIEW = (
    *columns_of(
        NotificationView,
        Notification,
        metadata=Notification.metadata_,
        template_version=func.coalesce(Notification.sent_version, Notification.template_version),
        # From "00-<trace id>-<span id>-<flags>".
        trace_id=func.substr(Notification.traceparent, 4, 32),
    ),
    # For `PersonalData.recipient_of`, which reads it as well.
    Notification.sealed,
)
_PROOF = (
    select(ProviderMessage.proof)
    .where(
        ProviderMessage.notification_id == Attempt.notification_id,
        ProviderMessage.attempt == Attempt.number,
        ProviderMessage.provider_message_id == Attempt.provider_message_id,
    )
    .scalar_subquery()
)
_ATTEMPT = columns_of(AttemptView, Attempt, proof=_PROOF)
_EVENT = columns_of(EventView, Event)
_REJECTED = (
    *columns_of(RejectedView, RejectedMessage, is_interrupted=IS_INTERRUPTED),
    RejectedMessage.sealed,
)


_DIMENSIONS: Mapping[Dimension, Any] = {
    Dimension.STATUS: Notification.status,
    Dimension.CHANNEL: Notification.channel,
    Dimension.TEMPLATE: Notification.template,
    Dimension.PROVIDER: Notification.provider,
    Dimension.PRODUCER: Notification.producer,
    Dimension.HOUR: func.to_char(Notification.accepted_at, text('\'YYYY-MM-DD"T"HH24:00:00"Z"\'')),
}


class Audit(Repository):
    def __init__(
        self, engine: Engine, personal_data: PersonalData | None = None, seconds: float | None = None
    ) -> None:
        super().__init__(engine)
        self._personal_data = personal_data or PersonalData()
        #: Maximum time of a statement. None: the engine's limit.
        self._seconds = seconds

    def id_between(self, first: UUID, last: UUID, within: Filter = Filter()) -> UUID:  # noqa: B008
        """The only notification within a filter that has an id from `first` to `last`, which may be equal.

        Raises:
            NotFound: there is none.
            WrongSelection: there are several; some are named.
        """
        query = self._filtered(select(Notification.id).where(Notification.id.between(first, last)), within)
        found: list[UUID] = [row.id for row in self._rows(query.order_by(Notification.id).limit(_SIMILAR_IDS))]
        if not found:
            named = f"the id {first}" if first == last else f"an id from {first} to {last}"
            raise NotFound(f"no notification has {named}")
        if len(found) > 1:
            raise WrongSelection(
                f"several ids begin like this; give more characters: {', '.join(map(str, found))}"
            )
        return found[0]

    def recipient_hashes(self, recipient: str) -> tuple[bytes, ...]:
        """The value for `Filter.recipient_hashes`. Raises `InvalidMessage` for a wrong number."""
        return tuple(filters.hashes_of(Filter(recipient=recipient), self._personal_data.hash_key))

    def with_provider_id(self, provider_message_id: str, within: Filter = Filter()) -> list[UUID]:  # noqa: B008
        """Notifications within a filter whose provider message has this id. Only providers whose ids stand for one
        message each are searched."""
        rows = self._rows(_WITH_PROVIDER_ID, {"id": provider_message_id}, is_one_statement=True)
        known = Notification.id.in_([row.notification_id for row in rows])
        return [row.id for row in self._rows(self._filtered(select(Notification.id).where(known), within))]

    def story(self, notification_id: UUID) -> Story:
        """The notification with its attempts and events, oldest first. Only the first `LISTED_DUPLICATES` of its
        duplicates are there: the record may hold more from before they were limited.

        Raises:
            NotFound: no notification has this id.
        """
        with self._read_only() as connection:
            accepted = Notification.template_version.label("accepted_version")
            query = select(*_VIEW, Notification.attachments, accepted).where(Notification.id == notification_id)
            found: Any = connection.execute(query).one_or_none()
            if found is None:
                raise NotFound(f"no notification has the id {notification_id}")
            calls = select(*_ATTEMPT).where(Attempt.notification_id == notification_id)
            attempts = connection.execute(calls.order_by(Attempt.number)).all()
            events = connection.execute(_events(notification_id)).all()
            attachments = views_of(connection, found.attachments) if found.attachments else ()
        return Story(
            notification=self._view(found),
            attempts=tuple(from_row(AttemptView, attempt) for attempt in attempts),
            events=tuple(from_row(EventView, event) for event in events),
            attachments=tuple(attachments),
            accepted_version=found.accepted_version,
        )

    def search(self, wanted: Filter, *, limit: int = 50, before: UUID | None = None) -> list[NotificationView]:
        """Newest first. `before` is the last id of the previous page."""
        query = self._filtered(select(*_VIEW), wanted)
        if before is not None:
            query = query.where(*filters.before(before))
        query = newest(query, Notification.id, limit=limit, before=None)
        return [self._view(row) for row in self._rows(query)]

    def count(self) -> list[Count]:
        """Numbers of notifications by channel and status, without those of test keys."""
        columns = (Notification.channel, Notification.status)
        counted: Any = select(*columns, func.count().label("count"))
        query = self._filtered(counted, Filter(is_test=False))
        return self._records(Count, query.group_by(*columns).order_by(*columns))

    def group(self, wanted: Filter, by: Sequence[Dimension]) -> list[GroupCount]:
        """Numbers of notifications that the filter finds, by these dimensions. Reads all of them."""
        columns = [_DIMENSIONS[dimension] for dimension in by]
        counted: Any = select(*columns, func.count())
        query = self._filtered(counted, wanted).group_by(*columns).order_by(*columns)
        return [GroupCount(tuple(row[:-1]), row[-1]) for row in self._rows(query)]

    def pages(self, wanted: Filter) -> Iterator[list[NotificationView]]:
        """All notifications that the filter finds, newest first.

        Each page is a statement of its own, so that a slow reader holds no transaction and no memory.
        """
        before: UUID | None = None
        while page := self.search(wanted, limit=EXPORT_PAGE, before=before):
            yield page
            if len(page) < EXPORT_PAGE:
                return
            before = page[-1].id

    def rejected(
        self,
        wanted: RejectedSelection = RejectedSelection(),  # noqa: B008 - it cannot change
        *,
        limit: int = 50,
        before: UUID | None = None,
    ) -> list[RejectedView]:
        """Newest first. `before` is the last id of the previous page."""
        query = select(*_REJECTED).where(*chosen(wanted))
        query = newest(query, RejectedMessage.id, limit=limit, before=before)
        return [self._rejected_view(row) for row in self._rows(query)]

    def rejected_message(self, rejected_id: UUID) -> RejectedView:
        """The rejected message. Raises `NotFound`."""
        rows = self._rows(select(*_REJECTED).where(RejectedMessage.id == rejected_id))
        if not rows:
            raise NotFound(f"no rejected message has the id {rejected_id}")
        return self._rejected_view(rows[0])

    def _rows(
        self, query: Executable, values: Mapping[str, Any] | None = None, *, is_one_statement: bool = False
    ) -> Sequence[Any]:
        with self._read_only() as connection:
            return connection.execute(query, values).all()

    @contextmanager
    def _read_only(self) -> Iterator[Connection]:
        """A transaction for one read.

        Raises:
            WrongSelection: it took too long.
        """
        try:
            with transaction(self._engine, plans_by_values=True) as connection:
                if self._seconds is not None:
                    # For the transaction, not for the session, which may belong to a pooler.
                    allow_seconds(connection, self._seconds)
                yield connection
        except ServiceUnavailable as error:
            if self._seconds is None or not isinstance(error, StatementCancelled):
                raise
            raise WrongSelection(
                f"what is asked for was not found within {self._seconds:g} s: give since and until nearer to each "
                "other, or recipient or reference"
            ) from None

    def _filtered(self, query: Select[Any], wanted: Filter) -> Select[Any]:
        return query.where(*conditions(wanted, self._personal_data.hash_key))

    def _view(self, row: Any) -> NotificationView:
        view = from_row(NotificationView, row)
        return view if row.sealed is None else replace(view, recipient=self._personal_data.recipient_of(row))

    def _rejected_view(self, row: Any) -> RejectedView:
        view = from_row(RejectedView, row)
        try:
            body, headers = self._personal_data.open_rejected(view.id, view.body, view.headers, row.sealed)
        except CannotOpen as error:
            body, headers = f"({error})".encode(), {}
        return replace(view, body=body, headers=headers)


def _events(notification_id: UUID) -> Select[Any]:
    of_it, duplicate = Event.notification_id == notification_id, Event.kind == "duplicate"
    listed = select(Event.id).where(of_it, duplicate).order_by(Event.id).limit(LISTED_DUPLICATES)
    return select(*_EVENT).where(of_it, or_(~duplicate, Event.id.in_(listed))).order_by(Event.id)


# The key begins with the id space. There are only a few id spaces, so each is looked into.
_WITH_PROVIDER_ID: TextClause = text("""
WITH RECURSIVE spaces AS (
  (SELECT id_space FROM provider_messages ORDER BY id_space LIMIT 1)
  UNION ALL
  SELECT (SELECT p.id_space FROM provider_messages AS p WHERE p.id_space > spaces.id_space ORDER BY 1 LIMIT 1)
  FROM spaces WHERE spaces.id_space IS NOT NULL
)
SELECT m.notification_id FROM spaces JOIN provider_messages AS m
ON m.id_space = spaces.id_space AND m.provider_message_id = :id
""")
