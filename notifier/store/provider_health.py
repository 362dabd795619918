"""The health of providers, shared by all workers: the outcomes of their calls, and what operators set."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import TextClause, text

from notifier.domain.statuses import Outcome
from notifier.store.repository import Repository
from notifier.store.rows import from_row

#: Outcomes are counted in slices of this length and kept for an hour. Seconds.
SLICE_SECONDS = 10


@dataclass(frozen=True, slots=True)
class HealthCounts:
    """Calls to one provider with the same outcome."""

    provider: str
    outcome: Outcome
    is_fault: bool
    count: int
    seconds: float


@dataclass(frozen=True, slots=True)
class HealthWindow:
    """The calls to one provider within the window."""

    provider: str
    calls: int
    faults: int
    seconds: float


@dataclass(frozen=True, slots=True)
class HealthState:
    provider: str
    paused: bool
    weight: int | None


class HealthRepository(Repository):
    def states(self) -> dict[str, HealthState]:
        """Provider → state. A provider without a row is in use, with the weight of notifier.toml."""
        rows = self._rows(_STATES, is_one_statement=True)
        return {row.provider: from_row(HealthState, row) for row in rows}

    def note(self, tallies: Sequence[HealthCounts], *, window_seconds: float) -> list[HealthWindow]:
        """Add calls to the counts. Returns what the window now holds for these providers."""
        rows = [
            {
                "provider": tally.provider,
                "outcome": f"{tally.outcome}{'_fault' if tally.is_fault else ''}",
                "count": tally.count,
                "seconds": tally.seconds,
            }
            # All workers use the same order, so that they do not deadlock.
            for tally in sorted(tallies, key=lambda t: (t.provider, t.outcome, t.is_fault))
        ]
        self._execute(_NOTE, {"rows": json.dumps(rows), "slice": SLICE_SECONDS}, is_one_statement=True)
        return self.windows(window_seconds=window_seconds)

    def windows(self, *, window_seconds: float) -> list[HealthWindow]:
        """The calls of the last `window_seconds`, by provider."""
        rows = self._rows(_WINDOWS, {"window": window_seconds}, is_one_statement=True)
        return [from_row(HealthWindow, row) for row in rows]

    def forget_old(self) -> int:
        """Delete counts that no window reaches any more. Returns the number of rows."""
        return self._execute(_FORGET)

    def set_paused(self, provider: str, paused: bool) -> None:
        self._execute(_PAUSE, {"provider": provider, "paused": paused})

    def set_weight(self, provider: str, weight: int | None) -> None:
        """Set the weight. None: use the configured weight again."""
        self._execute(_WEIGH, {"provider": provider, "weight": weight})


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
