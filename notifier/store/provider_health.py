"""Health of the providers, shared by all workers: what their calls came to, and operators' words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Engine, TextClause, text

from notifier.domain.statuses import Outcome
from notifier.store.engine import transaction

#: Outcomes are counted in slices of so many seconds; older ones than an hour are dropped.
SLICE_SECONDS = 10


@dataclass(frozen=True, slots=True)
class HealthCounts:
    """Calls to one provider that ended alike."""

    provider: str
    outcome: Outcome
    is_fault: bool
    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class HealthWindow:
    """What the calls to one provider within the window came to."""

    provider: str
    calls: int
    faults: int
    seconds: float


@dataclass(frozen=True, slots=True)
class HealthState:
    """An operator's word on one provider."""

    provider: str
    paused: bool
    weight: int | None


class HealthRepository:
    """Thread-safe: it holds nothing but the engine. Every method raises `ServiceUnavailable`."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def states(self) -> dict[str, HealthState]:
        """Provider → state. One without a row is in use, with the weight of notifier.toml."""
        with transaction(self._engine, is_one_statement=True) as connection:
            rows = connection.execute(_STATES).all()
        return {row.provider: HealthState(row.provider, row.paused, row.weight) for row in rows}

    def note(self, tallies: Sequence[HealthCounts], *, window_seconds: float) -> list[HealthWindow]:
        """Add calls to the counts; returns what the window now holds for the providers concerned."""
        rows = [
            {
                "provider": tally.provider,
                "outcome": f"{tally.outcome}{'_fault' if tally.is_fault else ''}",
                "count": tally.count,
                "seconds": tally.seconds,
            }
            # One order for all workers, so that they wait for each other instead of locking up.
            for tally in sorted(tallies, key=lambda t: (t.provider, t.outcome, t.is_fault))
        ]
        values = {"rows": json.dumps(rows), "slice": SLICE_SECONDS}
        with transaction(self._engine, is_one_statement=True) as connection:
            connection.execute(_NOTE, values)
        return self.windows(window_seconds=window_seconds)

    def windows(self, *, window_seconds: float) -> list[HealthWindow]:
        """What the calls of the last seconds came to, by provider."""
        with transaction(self._engine, is_one_statement=True) as connection:
            rows = connection.execute(_WINDOWS, {"window": window_seconds}).all()
        return [HealthWindow(row.provider, row.calls, row.faults, float(row.seconds)) for row in rows]

    def forget_old(self) -> int:
        """Drop counts that no window reaches any more. Returns how many rows."""
        with transaction(self._engine) as connection:
            return connection.execute(_FORGET).rowcount

    def set_paused(self, provider: str, paused: bool) -> None:
        """An operator's word: no calls until it is taken back."""
        with transaction(self._engine) as connection:
            connection.execute(_PAUSE, {"provider": provider, "paused": paused})

    def set_weight(self, provider: str, weight: int | None) -> None:
        """An operator's weight; None: the configured one again."""
        with transaction(self._engine) as connection:
            connection.execute(_WEIGH, {"provider": provider, "weight": weight})


_STATES: TextClause = text("SELECT provider, paused, weight FROM provider_states")

_NOTE: TextClause = text("""
INSERT INTO provider_outcomes AS o (provider, slice_at, outcome, count, seconds)
SELECT r.provider, to_timestamp(floor(extract(epoch FROM now()) / :slice) * :slice), r.outcome, r.count, r.seconds
FROM json_to_recordset(CAST(:rows AS json)) AS r(provider text, outcome text, count int, seconds double precision)
ON CONFLICT (provider, slice_at, outcome) DO UPDATE SET
  count = o.count + excluded.count, seconds = o.seconds + excluded.seconds
""")

_WINDOWS: TextClause = text("""
SELECT o.provider, sum(count)::int AS calls,
  coalesce(sum(count) FILTER (WHERE outcome LIKE '%\\_fault'), 0)::int AS faults, sum(seconds) AS seconds
FROM provider_outcomes AS o LEFT JOIN circuits AS c ON c.provider = o.provider AND c.sender = ''
-- What came before the circuit last closed is forgiven.
WHERE slice_at > now() - make_interval(secs => :window)
  AND (c.closed_at IS NULL OR c.open_until IS NOT NULL OR slice_at >= c.closed_at)
GROUP BY o.provider
""")

_FORGET: TextClause = text("DELETE FROM provider_outcomes WHERE slice_at < now() - interval '1 hour'")

_PAUSE: TextClause = text("""
INSERT INTO provider_states (provider, paused) VALUES (:provider, :paused)
ON CONFLICT (provider) DO UPDATE SET paused = excluded.paused, updated_at = now()
""")

_WEIGH: TextClause = text("""
INSERT INTO provider_states (provider, weight) VALUES (:provider, :weight)
ON CONFLICT (provider) DO UPDATE SET weight = excluded.weight, updated_at = now()
""")
