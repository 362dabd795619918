"""Notifications that ended without success lately, counted by cause."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import TextClause, text

from notifier.domain.statuses import Status
from notifier.store import binds
from notifier.store.repository import Repository
from notifier.store.rows import from_row
from notifier.store.schema.partitions import first_id

#: Maximum number of notifications that `newest` reads: an outage of one night may fail a million.
COUNTED = 10_000


@dataclass(frozen=True, slots=True)
class FailureGroup:
    """Notifications that ended in the same way."""

    status: str
    reason: str | None
    provider: str | None
    template: str
    count: int


class FailureRepository(Repository):
    def newest(self, statuses: Sequence[Status], since: datetime) -> list[FailureGroup]:
        """Groups of the `COUNTED` newest notifications in these statuses, accepted since then, largest first.

        `statuses`: only statuses that the partial index of states covers.
        """
        values = {"statuses": list(statuses), "since": first_id(since), "most": COUNTED}
        return [from_row(FailureGroup, row) for row in self._rows(_NEWEST, values, is_one_statement=True)]


# Each status is read from the newest end of the index, and no further than the limit. Without a limit the planner
# reads all states and messages of that time. The condition on the status is the index's own.
_NEWEST: TextClause = text("""
WITH found AS MATERIALIZED (
  SELECT s.id, s.status, s.reason, s.provider
  FROM unnest(:statuses) AS wanted(status) CROSS JOIN LATERAL (
    SELECT id, status, reason, provider FROM states
    WHERE status = wanted.status AND status NOT IN ('queued', 'sending', 'sent', 'delivered') AND id >= :since
    ORDER BY id DESC LIMIT :most
  ) AS s
  ORDER BY s.id DESC LIMIT :most
)
SELECT n.status, n.reason, n.provider, m.template, count(*)::int AS count
FROM found AS n JOIN messages AS m ON m.id = n.id
GROUP BY 1, 2, 3, 4 ORDER BY count DESC
""").bindparams(binds.texts("statuses"))
