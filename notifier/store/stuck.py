"""Finds notifications that are late, and why, for `notifier stuck`."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from uuid import UUID

from sqlalchemy import TextClause, text

from notifier.domain.statuses import Channel, Lane, Reason
from notifier.store import binds
from notifier.store.acceptance import REDISPATCH_SECONDS
from notifier.store.notification_rules import LIVE
from notifier.store.repository import Repository
from notifier.store.rows import from_row

#: Notifications that were due this long ago are late: the sweep runs every second. Seconds.
LATE_SECONDS = 60
#: The next sweep sees a lease that ended, so within this time it is not late yet. Seconds.
LEASE_GRACE_SECONDS = 5


class Cause(StrEnum):
    """Why something is late."""

    NOT_GIVEN_OUT = "not_given_out"  #: it is due, and no sweep dispatched it
    NOT_TAKEN = "not_taken"  #: it was dispatched more than once, and no worker claimed it
    LEASE_OVER = "lease_over"  #: its worker died, and no sweep noticed
    HELD = "held"  #: nobody knows whether the provider took it; an operator decides
    RESTORED = "restored"  #: it had not ended in a backup that was restored; an operator releases it
    PROVIDER_ACCOUNT = "provider_account"  #: waits until our account at the provider is in order
    SENDER_REFUSED = "sender_refused"  #: waits until a provider takes our sender identity again
    NOT_CONFIGURED = "not_configured"  #: waits until a provider or sender is configured
    TEMPLATE_ERROR = "template_error"  #: waits until its template is fixed
    PAUSED = "paused"  #: waits because an operator paused every provider of its channel
    RATE_LIMITED = "rate_limited"  #: waits for its turn under a limit, a cap or a quota


@dataclass(frozen=True, slots=True)
class Late:
    """Notifications of one channel and lane that are late for the same cause."""

    cause: Cause
    channel: Channel
    lane: Lane
    count: int
    #: Since when the one that has waited longest has waited.
    oldest: datetime
    #: Detail of one of them, from the provider or from us.
    detail: str | None
    #: Ids of those that have waited longest.
    ids: tuple[UUID, ...]


class Lateness(Repository):
    def late(self, *, ids: int = 10, paused: Collection[Channel] = tuple(Channel)) -> list[Late]:
        """Notifications that are late now, in groups, oldest first, each with its `ids` oldest ids. `paused`:
        channels that have no provider in use. On other channels, a notification that waits for a paused provider
        is tried when it is due, and does not count."""
        parameters = {
            "paused": sorted(paused),
            "late": LATE_SECONDS,
            "grace": LEASE_GRACE_SECONDS,
            "ids": ids,
            **{f"redispatch_{lane}": seconds for lane, seconds in REDISPATCH_SECONDS.items()},
        }
        return [from_row(Late, row, count=row.total) for row in self._rows(_LATE, parameters)]


_REASONS = ("provider_account", "sender_refused", "not_configured", "template_error", "rate_limited")
_WAITING = ", ".join(f"'{Reason(reason)}'" for reason in _REASONS)

# The due_at of a queued notification changes each time the sweep dispatches it again, so only the event of that
# shows that nobody claims it. The event is looked for only where there has been time for one.
_LATE: TextClause = text(f"""
WITH open AS MATERIALIZED (
  SELECT n.id, n.channel, n.lane, n.reason, n.detail, n.status, n.due_at, n.updated_at,
    greatest(m.accepted_at, m.send_at, n.replayed_at) AS first_due_at,
    CASE n.lane WHEN 'urgent' THEN :redispatch_urgent WHEN 'normal' THEN :redispatch_normal
      ELSE :redispatch_bulk END AS redispatch
  FROM states AS n JOIN messages AS m ON m.id = n.id
  -- What is scheduled for later is not late, and may be a whole campaign.
  WHERE {LIVE} AND (n.status <> 'scheduled' OR n.due_at < now())
), judged AS (
  SELECT id, channel, lane, detail, due_at, updated_at, first_due_at,
    CASE
      WHEN status = 'sending' THEN
        CASE WHEN due_at < now() - make_interval(secs => :grace) THEN 'lease_over' END
      WHEN status = 'unknown' AND reason = 'restored' THEN 'restored'
      WHEN status = 'unknown' AND due_at IS NULL THEN 'held'
      WHEN due_at < now() - make_interval(secs => :late) THEN 'not_given_out'
      WHEN status IN ('queued', 'retrying') AND reason IN ({_WAITING}) THEN reason
      -- An operator's retry says nothing in its detail.
      WHEN status IN ('queued', 'retrying') AND reason = 'operator' AND detail IS NOT NULL
        AND channel = ANY(:paused) THEN 'paused'
      WHEN status = 'queued' AND first_due_at < now() - make_interval(secs => redispatch) AND (
        SELECT e.kind FROM events AS e WHERE e.notification_id = open.id AND e.kind IN ('status', 'redispatched')
        ORDER BY e.id DESC LIMIT 1) = 'redispatched' THEN 'not_taken'
    END AS cause
  FROM open
), timed AS (
  SELECT id, channel, lane, detail, cause, CASE
    WHEN cause IN ('not_given_out', 'lease_over') THEN due_at WHEN cause IN ('held', 'restored') THEN updated_at
    ELSE first_due_at END AS since
  FROM judged WHERE cause IS NOT NULL
)
SELECT cause, channel, lane, count(*) AS total, min(since) AS oldest,
  (array_agg(detail ORDER BY since, id))[1] AS detail,
  (array_agg(id ORDER BY since, id))[1:CAST(:ids AS int)] AS ids
FROM timed GROUP BY cause, channel, lane ORDER BY oldest, cause, channel, lane
""").bindparams(binds.texts("paused"))  # noqa: S608 - constants joined with constants
