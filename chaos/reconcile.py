"""Compares four books: what was confirmed to producers, the record, what providers accepted, and of what the
producers were notified."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import pairwise
from uuid import UUID

import psycopg

from chaos.endpoint import TOLD
from chaos.load import Published
from notifier.domain.statuses import Status, may_follow

#: At rest: ended, or held. A held notification is still looked up at its provider for a while, but never sent
#: again.
_SETTLED = """(status IN ('sent', 'delivered', 'undelivered', 'failed', 'expired', 'cancelled', 'suppressed')
  OR (status = 'unknown' AND (due_at IS NULL OR on_unknown = 'hold')))"""


@dataclass(frozen=True, slots=True)
class Row:
    """One notification in the record, with its attempts, and its statuses in order."""

    status: str
    is_settled: bool
    on_unknown: str
    attempts: int
    unknowns: int
    history: tuple[str, ...]
    #: Attempts without an end.
    open_attempts: int = 0
    #: How often it came again and was recognised by its idempotency key.
    repeats: int = 0
    #: Statuses whose callbacks are on their way: it was at rest, and a provider reported something later.
    telling: tuple[str, ...] = ()


@dataclass(slots=True)
class Findings:
    """What the books say about the messages of one scenario."""

    #: Published, with a confirmation.
    messages: int = 0
    #: Confirmed, but neither settled in the record nor rejected.
    lost: int = 0
    #: Of the lost: those that are in the record and still on their way.
    unsettled: int = 0
    #: Confirmed, and lost with the broker's own data (only if that loss is the fault).
    gone_with_broker: int = 0
    #: Calls that reached a provider, and how many it accepted.
    provider_calls: int = 0
    provider_acceptances: int = 0
    #: Attempts recorded with the outcome unknown.
    unknowns: int = 0
    #: Publishes that were repeated and recognised by their idempotency key.
    repeats: int = 0
    #: Acceptances beyond 1 + attempts recorded as unknown; with `hold`, beyond 1.
    unrecorded_duplicates: int = 0
    #: Calls that reached a provider without an attempt in the record.
    unrecorded_calls: int = 0
    #: Statuses of which the producer was notified, and those of which it should have been but was not.
    told: int = 0
    untold: int = 0
    #: Attempts of settled messages without an end.
    open_attempts: int = 0
    #: Status histories with a step that is not in `status.TRANSITIONS`.
    unlawful: int = 0
    statuses: dict[str, int] = field(default_factory=dict)
    #: Ids of the messages behind counts that must be 0.
    suspects: list[str] = field(default_factory=list)


class Books:
    """Reads the record directly, bypassing every proxy."""

    def __init__(self, database_url: str) -> None:
        self._url = database_url
        #: Set if the record was restored from a backup of this database, which alone has the calls made after the
        #: backup.
        self.first_life = ""

    def unsettled(self, label: str, wanted: Iterable[UUID], *, may_be_gone: bool) -> int:
        """How many confirmed messages, and callbacks about them, have not come to rest yet."""
        query = f"SELECT id, {_SETTLED} FROM notifications WHERE reference = %s"
        callbacks = """SELECT count(*) FROM notifications AS n JOIN callbacks AS c ON c.notification_id = n.id
          WHERE n.reference = %s AND c.state NOT IN ('delivered', 'parked')"""
        with psycopg.connect(self._url, connect_timeout=5) as connection:
            found: dict[UUID, bool] = dict(connection.execute(query, [label]).fetchall())
            untold = connection.execute(callbacks, [label]).fetchone()
        waiting = sum(not settled for settled in found.values())
        missing = sum(id_ not in found for id_ in wanted)
        return waiting + (0 if may_be_gone else missing) + (untold[0] if untold else 0)

    def rows(self, label: str) -> dict[UUID, Row]:
        query = f"""
        SELECT n.id, n.status, {_SETTLED}, n.on_unknown,
          (SELECT count(*) FROM attempts AS a WHERE a.notification_id = n.id),
          (SELECT count(*) FROM attempts AS a WHERE a.notification_id = n.id AND a.outcome = 'unknown'),
          (SELECT array_agg(e.status ORDER BY e.id) FROM events AS e
           WHERE e.notification_id = n.id AND e.status IS NOT NULL),
          (SELECT count(*) FROM attempts AS a WHERE a.notification_id = n.id AND a.finished_at IS NULL),
          (SELECT count(*) FROM events AS e WHERE e.notification_id = n.id AND e.kind = 'duplicate'),
          (SELECT array_agg(c.status) FROM callbacks AS c
           WHERE c.notification_id = n.id AND c.state NOT IN ('delivered', 'parked'))
        FROM notifications AS n WHERE n.reference = %s"""
        with psycopg.connect(self._url, connect_timeout=5) as connection:
            found = connection.execute(query, [label]).fetchall()
        calls, doubts = self._only_in_first_life(label)
        return {
            id_: Row(
                status,
                is_settled,
                policy,
                attempts + calls[id_],
                unknowns + doubts[id_],
                tuple(history or ()),
                open_attempts,
                repeats,
                tuple(way or ()),
            )
            for id_, status, is_settled, policy, attempts, unknowns, history, open_attempts, repeats, way in found
        }

    def _only_in_first_life(self, label: str) -> tuple[Counter[UUID], Counter[UUID]]:
        """Attempts that the record does not have, and those of them whose outcome nobody knows."""
        if not self.first_life:
            return Counter(), Counter()
        query = """SELECT a.notification_id, a.number, a.started_at, a.outcome
          FROM attempts AS a JOIN notifications AS n ON n.id = a.notification_id WHERE n.reference = %s"""
        with psycopg.connect(self._url, connect_timeout=5) as connection:
            kept = {row[:3] for row in connection.execute(query, [label]).fetchall()}
        with psycopg.connect(self.first_life, connect_timeout=5) as connection:
            gone = [row for row in connection.execute(query, [label]).fetchall() if row[:3] not in kept]
        doubts = Counter(id_ for id_, _, _, outcome in gone if outcome in (None, "unknown"))
        return Counter(id_ for id_, *_ in gone), doubts

    def rejected(self) -> str:
        """The bodies of all rejected messages, in one text that can be searched for ids."""
        with psycopg.connect(self._url, connect_timeout=5) as connection:
            found = connection.execute("SELECT body FROM rejected_messages").fetchall()
        return "\n".join(bytes(body).decode("utf-8", "replace") for (body,) in found)


def reconcile(
    messages: Sequence[Published],
    rows: dict[UUID, Row],
    rejected: str,
    calls: Counter[str],
    accepted: Counter[str],
    told: Mapping[UUID, Set[str]],
    *,
    may_be_gone: bool,
) -> Findings:
    """Compare the four books. A pure function."""
    found = Findings(statuses=dict(Counter(row.status for row in rows.values())))
    for message in messages:
        row = rows.get(message.id)
        taken, called = accepted[message.to], calls[message.to]
        found.messages += message.confirmed
        found.provider_calls += called
        found.provider_acceptances += taken
        found.repeats += row.repeats if row else 0
        wrong = _count_losses(found, message, row, rejected, may_be_gone=may_be_gone)
        wrong |= _count_calls(found, row, called, taken)
        wrong |= _count_callbacks(found, row, told.get(message.id, frozenset()))
        if wrong:
            found.suspects.append(str(message.id))
    return found


def _count_losses(
    found: Findings, message: Published, row: Row | None, rejected: str, *, may_be_gone: bool
) -> bool:
    if row is not None and row.is_settled:
        return False
    if row is not None:
        found.unsettled += 1
        found.lost += 1
        return True
    if not message.confirmed or str(message.id) in rejected:
        return False
    if may_be_gone:
        found.gone_with_broker += 1
        return False
    found.lost += 1
    return True


def _count_calls(found: Findings, row: Row | None, called: int, taken: int) -> bool:
    attempts, unknowns = (row.attempts, row.unknowns) if row else (0, 0)
    allowed = 1 if row and row.on_unknown == "hold" else 1 + unknowns
    duplicates, unrecorded = max(0, taken - allowed), max(0, called - attempts)
    lawful = row is None or all(may_follow(Status(old), Status(new)) for old, new in pairwise(row.history))
    found.unknowns += unknowns
    found.unrecorded_duplicates += duplicates
    found.unrecorded_calls += unrecorded
    found.unlawful += not lawful
    has_open = row is not None and row.is_settled and row.open_attempts > 0
    found.open_attempts += has_open
    return bool(duplicates or unrecorded or not lawful or has_open)


def _count_callbacks(found: Findings, row: Row | None, told: Set[str]) -> bool:
    wanted = TOLD.intersection(row.history).difference(row.telling) if row else frozenset()
    found.told += len(told)
    found.untold += len(wanted - told)
    return not told >= wanted
