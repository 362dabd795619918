"""Turns under rate limits, and counts under caps and quotas, shared by every worker on every host."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from zoneinfo import ZoneInfo

from sqlalchemy import TextClause, text

from notifier.domain.local_days import day_bounds, day_of
from notifier.store.engine import transaction
from notifier.store.repository import Repository


@dataclass(frozen=True, slots=True)
class Turn:
    """When a call may begin, from now. Not `is_granted`: come back then and ask again."""

    in_seconds: float
    is_granted: bool


@dataclass(frozen=True, slots=True)
class Use:
    """The answer of a cap: whether there was room, what is used now, and when its window ends, from now."""

    is_granted: bool
    used: int
    ends_in_seconds: float


class RateLimitRepository(Repository):
    """A limit is kept by handing out moments, one after the other: no window in which a burst fits, no counter to
    reset. The database's clock decides.
    """

    def take_turns(
        self, scope: str, units: Sequence[int], *, per_second: float, at_most_seconds: float
    ) -> list[Turn]:
        """The next turns of `scope`, one for each of `units` (how much it counts), in their order.

        Granted as far as they begin within `at_most_seconds`; the others hear when it may be worth asking again.
        """
        with transaction(self._engine) as connection:
            connection.execute(_MAKE_SLOT, {"scope": scope})
            slot = connection.execute(_LOCK_SLOT, {"scope": scope}).one()
            backlog = float(slot.backlog)
            turns, ends_in = _hand_out(units, backlog, per_second, at_most_seconds)
            # From the moment that was read, not from now: what passes between the statements is not lost.
            connection.execute(_MOVE_SLOT, {"scope": scope, "base": slot.base, "seconds": ends_in - backlog})
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


def _hand_out(units: Sequence[int], backlog: float, per_second: float, at_most: float) -> tuple[list[Turn], float]:
    """Turns from `backlog` seconds on, and when the last granted one ends."""
    turns: list[Turn] = []
    ends_in = waits_until = backlog
    for count in units:
        # Once one has to wait, those behind it wait too: nobody overtakes.
        if ends_in <= at_most and waits_until == ends_in:
            turns.append(Turn(ends_in, True))
            ends_in = waits_until = ends_in + count / per_second
        else:
            turns.append(Turn(waits_until, False))
            waits_until += count / per_second
    return turns, ends_in


_MAKE_SLOT: TextClause = text("""
INSERT INTO rate_slots (scope, next_at) VALUES (:scope, clock_timestamp()) ON CONFLICT DO NOTHING
""")

_LOCK_SLOT: TextClause = text("""
WITH slot AS (SELECT next_at FROM rate_slots WHERE scope = :scope FOR UPDATE)
SELECT greatest(next_at, now) AS base, extract(epoch FROM greatest(next_at, now) - now) AS backlog
FROM slot CROSS JOIN LATERAL (SELECT clock_timestamp() AS now) AS clock
""")

_MOVE_SLOT: TextClause = text("""
UPDATE rate_slots SET next_at = CAST(:base AS timestamptz) + make_interval(secs => :seconds) WHERE scope = :scope
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
