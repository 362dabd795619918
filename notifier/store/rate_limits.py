"""Turns under rate limits, and counts under caps and quotas, shared by all workers on all hosts."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

from sqlalchemy import TextClause, text

from notifier.domain.local_days import day_bounds, day_of
from notifier.domain.statuses import Lane
from notifier.store.engine import transaction
from notifier.store.repository import Repository

#: Most urgent first.
LANES = (Lane.URGENT, Lane.NORMAL, Lane.BULK)
#: If turns go unused for this long, nobody stands in the lines any more: the messages were cancelled or have
#: expired. Longer than a message needs to come back when its turn is due: a tick of the sweep, a task and a claim.
#: Seconds.
IDLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Turn:
    """When a call may begin, from now. If not `is_granted`, come back at that time and ask again."""

    in_seconds: float
    is_granted: bool


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """The request of one message for a turn."""

    #: How many units it counts.
    units: int
    #: It has stood in line already, so those that wait in its lane do not come before it.
    has_waited: bool = False
    #: It asks again after this at the latest. If its turn comes later, it does not stand in line. Seconds.
    patience: float = float("inf")


@dataclass(frozen=True, slots=True)
class Use:
    """The answer of a cap: whether there was room, what is used now, and in how many seconds its window ends."""

    is_granted: bool
    used: int
    ends_in_seconds: float


class RateLimitRepository(Repository):
    """Keeps limits by handing out moments, one after the other. So there is no window that a burst fits into, and
    no counter to reset. The database's clock counts.

    Each lane has a line of its own, of which only the end is stored: a message that has to wait comes back about
    once. A line is a plan and grants nothing.
    """

    def take_turns(
        self, scope: str, units: Sequence[int], *, per_second: float, at_most_seconds: float
    ) -> list[Turn]:
        """The next turns of `scope` for requests of `units` each, in their order, past all lines.

        Turns that begin within `at_most_seconds` are granted. The others say when it may be worth asking again.
        """
        requests = [TurnRequest(count, has_waited=True) for count in units]
        return self._take(scope, None, requests, per_second, at_most_seconds)

    def take_turns_of_lane(
        self, scope: str, lane: Lane, requests: Sequence[TurnRequest], *, per_second: float, at_most_seconds: float
    ) -> list[Turn]:
        """The next turns of `scope` for these requests of a lane.

        A turn is granted if it begins within `at_most_seconds` and nobody waits in a more urgent lane, nor, for a
        request that has not waited yet, in this lane. Other requests get a place at the end of their lane's line,
        and learn when their turn comes. A request without the patience for that gets no place, and is told a
        moment within the second half of its patience.

        Crash point: a process that dies after this loses its turns or its places, which pass unused. Coming back
        early, late or never cannot break the limit, because only what is granted is a turn.
        """
        return self._take(scope, lane, requests, per_second, at_most_seconds)

    def _take(
        self, scope: str, lane: Lane | None, requests: Sequence[TurnRequest], per_second: float, at_most: float
    ) -> list[Turn]:
        with transaction(self._engine) as connection:
            slot = connection.execute(_LOCK_SLOT, {"scope": scope}).one_or_none()
            if slot is None:
                connection.execute(_MAKE_SLOT, {"scope": scope})
                slot = connection.execute(_LOCK_SLOT, {"scope": scope}).one()
            backlog, is_idle = float(slot.backlog), slot.idle > IDLE_SECONDS
            lines = {each: 0.0 if is_idle else float(getattr(slot, each)) for each in LANES}
            turns, ends_in, line = _hand_out(requests, lane, backlog, lines, per_second, at_most)
            if lane is not None:
                lines[lane] = line
            # Counted from the moment that was read, not from now, so that no time between the statements is lost.
            moved = {"scope": scope, "base": slot.base, "seconds": ends_in - backlog, "now": slot.now}
            connection.execute(_MOVE_SLOT, {**moved, **{str(each): end for each, end in lines.items()}})
        return turns

    def use(self, scope: str, units: int, *, cap: int, window_seconds: int) -> Use:
        """Count `units` against a cap in the current window, if they fit."""
        return self._use(scope, units, cap, partial(_window, seconds=window_seconds))

    def use_of_day(self, scope: str, units: int, *, cap: int, zone: ZoneInfo) -> Use:
        """Like `use`, with a day of the zone as the window."""
        return self._use(scope, units, cap, lambda now: day_bounds(day_of(now, zone), zone))

    def _use(
        self, scope: str, units: int, cap: int, window: Callable[[datetime], tuple[datetime, datetime]]
    ) -> Use:
        with transaction(self._engine) as connection:
            now: datetime = connection.execute(_NOW).scalar_one()
            began_at, ends_at = window(now)
            values = {"scope": scope, "units": units, "cap": cap, "window_at": began_at}
            used = connection.execute(_USE, values).scalar_one_or_none() if units <= cap else None
        return Use(used is not None, used or cap, (ends_at - now).total_seconds())

    def give_back(self, scope: str, units: int, *, window_seconds: int) -> None:
        """Take back units that were counted in the current window."""
        self._execute(_GIVE_BACK, {"scope": scope, "units": units, "window": window_seconds})

    def note_quota(self, notification_id: object, detail: str) -> None:
        """Write an event for the notification that came near its producer's quota."""
        self._execute(_NOTE, {"id": str(notification_id), "detail": detail})

    def forget_old(self) -> int:
        """Delete counts of windows that ended two days ago. Returns the number of rows."""
        return self._execute(_FORGET)


def _window(now: datetime, seconds: int) -> tuple[datetime, datetime]:
    began_at = datetime.fromtimestamp(now.timestamp() // seconds * seconds, UTC)
    return began_at, began_at + timedelta(seconds=seconds)


def _hand_out(
    requests: Sequence[TurnRequest],
    lane: Lane | None,
    backlog: float,
    lines: Mapping[Lane, float],
    per_second: float,
    at_most: float,
) -> tuple[list[Turn], float, float]:
    """The turns from `backlog` seconds on, when the last granted one ends, and when the lane's line ends.

    `lines`: when the last message that waits in each lane would have had its turn. Without a lane, the line is
    only this call's.
    """
    turns: list[Turn] = []
    above = max([lines[each] for each in LANES[: LANES.index(lane)]], default=0.0) if lane else 0.0
    ends_in, line = backlog, lines[lane] if lane else 0.0
    for request in requests:
        seconds = request.units / per_second
        # Once a request has to wait, those behind it wait too: nobody overtakes.
        if ends_in <= at_most and max(above, 0.0 if request.has_waited else line) <= at_most:
            turns.append(Turn(ends_in, True))
            ends_in += seconds
            continue
        place = max(line, above, ends_in)
        if place <= request.patience:
            turns.append(Turn(place, False))
            line = place + seconds
        else:
            # Spread, so that they do not all come back at one moment.
            turns.append(Turn(request.patience * random.uniform(0.5, 1.0), False))  # noqa: S311 - spreads load
    return turns, ends_in, line


_MAKE_SLOT: TextClause = text("""
INSERT INTO rate_slots (scope, next_at) VALUES (:scope, clock_timestamp()) ON CONFLICT DO NOTHING
""")

_LOCK_SLOT: TextClause = text("""
WITH slot AS (SELECT * FROM rate_slots WHERE scope = :scope FOR UPDATE)
SELECT now, greatest(next_at, now) AS base, extract(epoch FROM greatest(next_at, now) - now) AS backlog,
  extract(epoch FROM now - next_at) AS idle,
  coalesce(extract(epoch FROM greatest(urgent_until - now, '0')), 0) AS urgent,
  coalesce(extract(epoch FROM greatest(normal_until - now, '0')), 0) AS normal,
  coalesce(extract(epoch FROM greatest(bulk_until - now, '0')), 0) AS bulk
FROM slot CROSS JOIN LATERAL (SELECT clock_timestamp() AS now) AS clock
""")

# If nothing is granted, the next turn stays where it was, so that it shows how long turns have gone unused.
_MOVE_SLOT: TextClause = text("""
UPDATE rate_slots SET
  next_at = CASE WHEN :seconds > 0 THEN CAST(:base AS timestamptz) + make_interval(secs => :seconds)
    ELSE next_at END,
  urgent_until = CAST(:now AS timestamptz) + make_interval(secs => nullif(:urgent, 0)),
  normal_until = CAST(:now AS timestamptz) + make_interval(secs => nullif(:normal, 0)),
  bulk_until = CAST(:now AS timestamptz) + make_interval(secs => nullif(:bulk, 0))
WHERE scope = :scope
""")

_NOW: TextClause = text("SELECT now()")

_USE: TextClause = text("""
INSERT INTO usage_counts AS u (scope, window_at, count)
VALUES (:scope, :window_at, :units)
ON CONFLICT (scope, window_at) DO UPDATE SET count = u.count + excluded.count
WHERE u.count + excluded.count <= :cap
RETURNING count
""")

_GIVE_BACK: TextClause = text("""
UPDATE usage_counts SET count = greatest(0, count - :units)
WHERE scope = :scope AND window_at = to_timestamp(floor(extract(epoch FROM now()) / :window) * :window)
""")

_NOTE: TextClause = text("""
INSERT INTO events (notification_id, kind, detail) VALUES (CAST(:id AS uuid), 'quota', :detail)
""")

_FORGET: TextClause = text("DELETE FROM usage_counts WHERE window_at < now() - interval '2 days'")
