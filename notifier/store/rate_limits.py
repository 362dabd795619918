"""Turns under rate limits, and counts under caps and quotas, shared by every worker on every host."""

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

#: The most urgent first.
LANES = (Lane.URGENT, Lane.NORMAL, Lane.BULK)
#: If turns go unused for this long, nobody stands in the lines: who did was cancelled, or has expired. Longer than
#: who comes back needs after its moment: a tick of the sweep, a task and a claim. Seconds.
IDLE_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Turn:
    """When a call may begin, from now. Not `is_granted`: come back then and ask again."""

    in_seconds: float
    is_granted: bool


@dataclass(frozen=True, slots=True)
class TurnRequest:
    """One message asks for a turn."""

    #: How much it counts.
    units: int
    #: Those that wait in its lane do not come before it: it has stood in line.
    has_waited: bool = False
    #: It asks again after this at the latest, and does not stand in line if its turn comes later. Seconds.
    patience: float = float("inf")


@dataclass(frozen=True, slots=True)
class Use:
    """The answer of a cap: whether there was room, what is used now, and when its window ends, from now."""

    is_granted: bool
    used: int
    ends_in_seconds: float


class RateLimitRepository(Repository):
    """A limit is kept by handing out moments, one after the other: no window in which a burst fits, no counter to
    reset. The database's clock decides.

    Each lane has a line of its own, of which only the end is kept: who has to wait comes back about once. A line
    is a plan and grants nothing.
    """

    def take_turns(
        self, scope: str, units: Sequence[int], *, per_second: float, at_most_seconds: float
    ) -> list[Turn]:
        """The next turns of `scope`, one for each of `units` (how much it counts), in their order, past all lines.

        Granted as far as they begin within `at_most_seconds`; the others hear when it may be worth asking again.
        """
        requests = [TurnRequest(count, has_waited=True) for count in units]
        return self._take(scope, None, requests, per_second, at_most_seconds)

    def take_turns_of_lane(
        self, scope: str, lane: Lane, requests: Sequence[TurnRequest], *, per_second: float, at_most_seconds: float
    ) -> list[Turn]:
        """The next turns of `scope` for these of a lane.

        Granted as far as they begin within `at_most_seconds`, and nobody waits in a more urgent lane, nor, for
        those that have not waited yet, in this one. The others get a place at the end of their lane's line, and
        hear when their turn comes. Who has no patience for that gets no place, and hears a moment within the
        second half of its patience.

        Crash point: who dies after this has lost its turns, or its place: they pass unused. Who comes back early,
        late or not at all never breaks the limit: only what is granted is a turn.
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
            # From the moment that was read, not from now: what passes between the statements is not lost.
            moved = {"scope": scope, "base": slot.base, "seconds": ends_in - backlog, "now": slot.now}
            connection.execute(_MOVE_SLOT, {**moved, **{str(each): end for each, end in lines.items()}})
        return turns

    def use(self, scope: str, units: int, *, cap: int, window_seconds: int) -> Use:
        """Count `units` against a cap of the current window, if they fit."""
        return self._use(scope, units, cap, partial(_window, seconds=window_seconds))

    def use_of_day(self, scope: str, units: int, *, cap: int, zone: ZoneInfo) -> Use:
        """As `use`, in a window that is a day of the zone."""
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
        """Take back what was counted in the current window."""
        self._execute(_GIVE_BACK, {"scope": scope, "units": units, "window": window_seconds})

    def note_quota(self, notification_id: object, detail: str) -> None:
        """An event on the notification that came near its producer's quota."""
        self._execute(_NOTE, {"id": str(notification_id), "detail": detail})

    def forget_old(self) -> int:
        """Delete counts of windows that ended two days ago. Returns how many rows."""
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
    """Turns from `backlog` seconds on, when the last granted one ends, and when the lane's line does.

    `lines`: when the last one that waits would have had its turn. Without a lane the line is that of this call.
    """
    turns: list[Turn] = []
    above = max([lines[each] for each in LANES[: LANES.index(lane)]], default=0.0) if lane else 0.0
    ends_in, line = backlog, lines[lane] if lane else 0.0
    for request in requests:
        seconds = request.units / per_second
        # Once one has to wait, those behind it wait too: nobody overtakes.
        if ends_in <= at_most and max(above, 0.0 if request.has_waited else line) <= at_most:
            turns.append(Turn(ends_in, True))
            ends_in += seconds
            continue
        place = max(line, above, ends_in)
        if place <= request.patience:
            turns.append(Turn(place, False))
            line = place + seconds
        else:
            # Not all at one moment.
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

# What grants nothing leaves the next turn where it was: how long turns have gone unused is seen by it.
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
