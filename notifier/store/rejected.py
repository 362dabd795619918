"""Rejected messages for operators: find those to publish again, claim and mark them, delete them.

A replay claims a message before it publishes it, so two replays at the same time never publish the same one.
Crash points:

- after the claim, before the broker has the message: nothing was published. The claim ends after `CLAIM_SECONDS`,
  the message has counted as not replayed all along, and the next replay takes it;
- after the broker has it, before it is marked: the same. Unchanged, it is published twice, and its key makes the
  second one a duplicate. An edited message goes into the record and not to the broker. It may have another key
  each time, so its claim never ends by itself. Whoever replays it again has to confirm that, after the page has
  said what may have happened to the first one;
- after the mark: done, but the operator record has no end.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, TextClause, func, select, text

from notifier.domain.errors import CannotOpen
from notifier.store import binds
from notifier.store.engine import transaction
from notifier.store.operator_actions import ActionCounts, act_on_page, begin_record, note_result
from notifier.store.personal_data import PersonalData
from notifier.store.rejected_selection import CLAIM_SECONDS, IS_INTERRUPTED, RejectedSelection, chosen
from notifier.store.repository import Repository
from notifier.store.rows import columns_of, from_row, newest, oldest
from notifier.store.schema.notifications import RejectedMessage
from notifier.store.schema.operations import OperatorRecord

#: Rejected messages of one page. Each may hold 64 KiB.
PAGE = 100
#: Maximum number of rejected messages that `groups` reads: a faulty producer makes a million in one night.
COUNTED = 10_000
#: Action in the operator record of a replay with an edited body.
EDITED = "replay_edited"


@dataclass(frozen=True, slots=True)
class KeptRejection:
    id: UUID
    queue: str
    body: bytes
    body_size: int
    entry: int | None
    headers: dict[str, Any]
    replayed_at: datetime | None
    #: When a replay claimed it that has not ended yet.
    claimed_at: datetime | None
    #: That replay was interrupted and will not end.
    is_interrupted: bool
    #: Who replayed it last, or holds it. None: nobody, or it is older than this column.
    replayed_by: str | None
    #: The action of that operator record: "replay_rejected", "replay_edited".
    replay_action: str | None
    #: The user who first published it, according to RabbitMQ.
    broker_user: str | None
    #: Why body and headers are empty: they are sealed and could not be opened.
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class CodeCount:
    """How many rejected messages have this as the code of their first reason."""

    code: str
    count: int


_KEPT: Any = (
    *columns_of(
        KeptRejection,
        RejectedMessage,
        without=["problem"],
        is_interrupted=IS_INTERRUPTED,
        replayed_by=OperatorRecord.operator,
        replay_action=OperatorRecord.action,
    ),
    RejectedMessage.sealed,
)


@dataclass(frozen=True, slots=True)
class RejectedGroup:
    """Rejected messages of one producer whose first reason has the same code."""

    #: None: the producer could not be read.
    producer: str | None
    code: str
    count: int
    #: How many of these were never replayed.
    waiting: int
    newest_at: datetime


class Rejections(Repository):
    def __init__(self, engine: Engine, personal_data: PersonalData | None = None) -> None:
        super().__init__(engine)
        self._personal_data = personal_data or PersonalData()

    def page(self, selection: RejectedSelection, *, after: UUID | None, again: bool = True) -> list[KeptRejection]:
        """The next page, oldest first: at most `PAGE` messages with ids above `after`.

        Without `again` a filter leaves out messages that were replayed; ids find them all the same.
        """
        query = select(*_KEPT).outerjoin(OperatorRecord, OperatorRecord.id == RejectedMessage.replay_id)
        query = query.where(*chosen(selection, again=again))
        rows = self._rows(oldest(query, RejectedMessage.id, limit=PAGE, after=after))
        return [self._opened(from_row(KeptRejection, row), row.sealed) for row in rows]

    def _opened(self, kept: KeptRejection, sealed: bytes | None) -> KeptRejection:
        try:
            body, headers = self._personal_data.open_rejected(kept.id, kept.body, kept.headers, sealed)
        except CannotOpen as error:
            return replace(kept, problem=str(error))
        return replace(kept, body=body, headers=headers)

    def count(self, selection: RejectedSelection, *, again: bool = True) -> list[CodeCount]:
        """How many messages `page` would find, by code, largest first."""
        first = RejectedMessage.faults[0]["code"].astext
        counted: Any = select(func.coalesce(first, "").label("code"), func.count().label("count"))
        query = counted.where(*chosen(selection, again=again)).group_by(first).order_by(func.count().desc(), first)
        return self._records(CodeCount, query)

    def groups(self) -> list[RejectedGroup]:
        """The newest `COUNTED` messages by producer and code; groups with the most waiting messages come first."""
        code = func.coalesce(RejectedMessage.faults[0]["code"].astext, "").label("code")
        columns: Any = (RejectedMessage.producer, code, RejectedMessage.replayed_at, RejectedMessage.received_at)
        latest = newest(select(*columns), RejectedMessage.id, limit=COUNTED, before=None).subquery()
        waiting = func.count().filter(latest.c.replayed_at.is_(None)).label("waiting")
        counted: Any = select(
            latest.c.producer,
            latest.c.code,
            func.count().label("count"),
            waiting,
            func.max(latest.c.received_at).label("newest_at"),
        )
        order = (waiting.desc(), latest.c.producer, latest.c.code)
        return self._records(RejectedGroup, counted.group_by(latest.c.producer, latest.c.code).order_by(*order))

    def claim(self, ids: Sequence[UUID], record: UUID, *, again: bool, over: bool) -> set[UUID]:
        """Claim these messages for the replay of this record. Returns the claimed ones. Not claimed are messages
        that were replayed meanwhile, unless `again`, and those that another replay holds.

        `over`: also claim messages of which an interrupted replay may have published an edited copy.
        """
        with transaction(self._engine) as connection:
            return _claim(connection, ids, record, again=again, over=over)

    def claim_for_edit(
        self, id_: UUID, operator: str, selection: Mapping[str, Any], reason: str | None, *, over: bool
    ) -> UUID | None:
        """Claim a message that was not replayed, and begin the operator record. Returns the record's id. None:
        somebody else was first, and nothing is recorded. `over`: as in `claim`."""
        with transaction(self._engine) as connection:
            # Record and claim are committed together or not at all, so their order does not matter.
            begun = begin_record(connection, operator, EDITED, selection, reason)
            if _claim(connection, [id_], begun.id, again=False, over=over):
                return begun.id
            connection.rollback()
        return None

    def end_claims(
        self, published: Sequence[UUID], left: Sequence[UUID], record: UUID, tally: ActionCounts
    ) -> None:
        """Mark the published messages, release the others, and note the counts in the record."""
        with transaction(self._engine) as connection:
            connection.execute(
                _END_CLAIMS, {"ids": [*published, *left], "done": list(published), "record": record}
            )
            note_result(connection, record, tally, is_finished=False)

    def purge_page(
        self, selection: RejectedSelection, record: UUID, *, after: UUID | None, tally: ActionCounts
    ) -> tuple[ActionCounts, UUID | None]:
        """Delete the next page; see `act_on_page`."""

        def purge(connection: Connection, rows: Sequence[Any]) -> None:
            connection.execute(_PURGE, {"ids": [row.id for row in rows]})

        query = select(RejectedMessage.id).where(*chosen(selection))
        query = oldest(query, RejectedMessage.id, limit=PAGE * 10, after=after)
        return act_on_page(self._engine, query, record, tally, purge)


def _claim(connection: Connection, ids: Sequence[UUID], record: UUID, *, again: bool, over: bool) -> set[UUID]:
    values = {"ids": list(ids), "record": record, "again": again, "over": over, "seconds": CLAIM_SECONDS}
    return set(connection.execute(_CLAIM, {**values, "edited": EDITED}).scalars())


# Locked in the order of ids, so that two replays of overlapping pages do not deadlock.
_CLAIM: TextClause = text("""
UPDATE rejected_messages SET replay_id = :record, claimed_at = now() WHERE id IN (
  SELECT m.id FROM rejected_messages AS m
  WHERE m.id = ANY(:ids) AND (:again OR m.replayed_at IS NULL) AND (m.claimed_at IS NULL OR (
    m.claimed_at < now() - make_interval(secs => :seconds) AND (:over OR NOT EXISTS (
      SELECT FROM operator_records AS r WHERE r.id = m.replay_id AND r.action = :edited))))
  ORDER BY m.id FOR UPDATE
) RETURNING id
""").bindparams(binds.IDS, binds.uuid("record"))

_END_CLAIMS: TextClause = text("""
UPDATE rejected_messages SET claimed_at = NULL,
  replayed_at = CASE WHEN id = ANY(:done) THEN now() ELSE replayed_at END
WHERE id = ANY(:ids) AND replay_id = :record
""").bindparams(binds.IDS, binds.uuids("done"), binds.uuid("record"))

_PURGE: TextClause = text("""
DELETE FROM rejected_messages WHERE id = ANY(:ids)
""").bindparams(binds.IDS)
