"""Reads the newest heartbeats of each channel and lane."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import TextClause, text

from notifier.domain.statuses import Channel, Lane
from notifier.store import binds
from notifier.store.repository import Repository
from notifier.store.schema.partitions import first_id


@dataclass(frozen=True, slots=True)
class NewestHeartbeat:
    channel: Channel
    lane: Lane
    #: When the newest heartbeat was accepted.
    accepted_at: datetime
    #: When the newest one that a provider took was sent. None: no provider took any.
    sent_at: datetime | None
    #: Time since then.
    sent_seconds_ago: float | None


class HeartbeatRepository(Repository):
    def newest(self, producer: str, since: datetime) -> list[NewestHeartbeat]:
        """The newest heartbeats with ids from `since` on, so that the cost does not grow with their number."""
        return self._records(NewestHeartbeat, NEWEST, {"producer": producer, "low": first_id(since)})


# OFFSET keeps the planner from also reading the states of all other messages of that time.
NEWEST: TextClause = text("""
SELECT m.channel, m.lane, max(m.accepted_at) AS accepted_at, max(s.sent_at) AS sent_at,
  CAST(extract(epoch FROM now() - max(s.sent_at)) AS float8) AS sent_seconds_ago
FROM messages AS m
CROSS JOIN LATERAL (SELECT n.sent_at FROM states AS n WHERE n.id = m.id AND NOT n.is_test OFFSET 0) AS s
WHERE m.producer = :producer AND m.id >= :low
GROUP BY 1, 2
""").bindparams(binds.uuid("low"))
