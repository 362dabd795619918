"""When each step of upkeep last ran, and how the run ended."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import TextClause, text

from notifier.store import binds
from notifier.store.engine import transaction
from notifier.store.repository import Repository

#: A step is late if it has not succeeded for this long. A step that succeeds every night never is, even if the
#: clock goes back and the day has 25 hours. Hours.
LATE_HOURS = 26
#: A step that failed, or whose worker died, runs again after this. Hours.
AGAIN_HOURS = 1
_FAILURE_LENGTH = 500


@dataclass(frozen=True, slots=True)
class UpkeepState:
    step: str
    #: When the last run began.
    started_at: datetime
    #: When a run last succeeded. None: none has.
    last_success_at: datetime | None
    last_failure_at: datetime | None
    #: Why that run failed.
    failure: str | None
    #: Hours since the last success. None: there was none.
    hours_since_success: float | None
    #: No run has succeeded for `LATE_HOURS`.
    is_late: bool
    #: An operator asked for a run, and none has begun since.
    is_asked: bool

    @property
    def has_failed(self) -> bool:
        """Whether a run has failed since the last success."""
        failed, done = self.last_failure_at, self.last_success_at
        return failed is not None and (done is None or failed > done)


class UpkeepRepository(Repository):
    def begin(self, step: str) -> None:
        self._execute(_BEGIN, {"step": step})

    def succeed(self, step: str) -> None:
        self._execute(_SUCCEED, {"step": step})

    def fail(self, step: str, failure: str) -> None:
        self._execute(_FAIL, {"step": step, "failure": failure[:_FAILURE_LENGTH]})

    def ask(self, step: str) -> None:
        """Ask for a run, as if the step were late. A step that never ran is late anyway."""
        self._execute(_ASK, {"step": step})

    def take_late(self, steps: Sequence[str]) -> str | None:
        """Begin the first of `steps` that is late and not running, or asked for. Only one caller gets it."""
        with transaction(self._engine) as connection:
            late = connection.execute(_LATE, {"steps": list(steps), **_HOURS}).scalars().all()
            taken = (connection.execute(_TAKE, {"step": step, **_HOURS}).scalar() for step in late)
            return next((step for step in taken if step is not None), None)

    def states(self) -> list[UpkeepState]:
        """The states of all steps that ever ran, by name."""
        return self._records(UpkeepState, _STATES, {"late": LATE_HOURS})


_HOURS = {"late": LATE_HOURS, "again": AGAIN_HOURS}

_BEGIN: TextClause = text("""
INSERT INTO upkeep_runs (step) VALUES (:step) ON CONFLICT (step) DO UPDATE SET started_at = now()
""")

_SUCCEED: TextClause = text("""
INSERT INTO upkeep_runs (step, last_success_at) VALUES (:step, now())
ON CONFLICT (step) DO UPDATE SET last_success_at = now()
""")

_FAIL: TextClause = text("""
INSERT INTO upkeep_runs (step, last_failure_at, failure) VALUES (:step, now(), :failure)
ON CONFLICT (step) DO UPDATE SET last_failure_at = now(), failure = excluded.failure
""")

_IS_LATE = "coalesce(u.last_success_at, '-infinity') < now() - make_interval(hours => :late)"
_IS_FREE = "u.started_at < now() - make_interval(hours => :again)"

_IS_ASKED = "coalesce(u.asked_at > u.started_at, false)"
_IS_DUE = f"({_IS_ASKED} OR ({_IS_LATE} AND {_IS_FREE}))"

# Not the time when the transaction began: a run that begins before the commit may have read nothing of this
# request.
_ASK: TextClause = text("""
UPDATE upkeep_runs SET asked_at = greatest(clock_timestamp(), started_at + interval '1 microsecond')
WHERE step = :step
""")

_LATE: TextClause = text(f"""
SELECT s.step FROM unnest(:steps) WITH ORDINALITY AS s(step, place) LEFT JOIN upkeep_runs AS u ON u.step = s.step
WHERE u.step IS NULL OR {_IS_DUE} ORDER BY s.place
""").bindparams(binds.texts("steps"))

# If two find it late at the same time, the row decides who gets it.
_TAKE: TextClause = text(f"""
INSERT INTO upkeep_runs AS u (step) VALUES (:step)
ON CONFLICT (step) DO UPDATE SET started_at = clock_timestamp() WHERE {_IS_DUE}
RETURNING step
""")

_STATES: TextClause = text(f"""
SELECT step, started_at, last_success_at, last_failure_at, failure,
  CAST(extract(epoch FROM now() - last_success_at) / 3600 AS float8)
    AS hours_since_success, {_IS_LATE} AS is_late, {_IS_ASKED} AS is_asked
FROM upkeep_runs AS u ORDER BY step
""")
