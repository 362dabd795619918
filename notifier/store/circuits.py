"""Circuits, shared by all workers: one for each provider, and one for each sender that a provider refuses.

Every statement commits by itself. If a worker dies between the result of a call and its effect here, the next call
has the same effect. If it dies while it probes, the probe is free again when its lease ends.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass
from datetime import datetime
from uuid import UUID

from sqlalchemy import TextClause, text

from notifier.domain.retry_policy import ASLEEP_SECONDS
from notifier.domain.routing import NO_PROVIDER_NOW, PROBE_GRACE_SECONDS
from notifier.domain.statuses import Channel, Reason
from notifier.store import binds
from notifier.store.repository import Repository
from notifier.store.rows import from_row

#: Maximum number of notifications that one resume hastens, and how many of them are due in a second.
HASTENED, HASTENED_PER_SECOND = 10_000, 100.0
#: The first ones are due after this: all workers have heard of the resume. Seconds.
HASTEN_AFTER_SECONDS = 2.0
#: How many of a channel one sweep wakes when a provider can be called, and when one may be probed.
WOKEN, WOKEN_TO_PROBE = 1000, 3
#: What has just fallen asleep is left alone: a worker that has not heard of news for a second routes by the old.
#: Seconds.
LEAST_SLEEP_SECONDS = 5.0

#: In place of a sender's name: the circuit of the provider itself.
NO_SENDER = ""


@dataclass(frozen=True, slots=True)
class CircuitKey:
    provider: str
    #: Name of the sender identity; "": the provider's own.
    sender: str = NO_SENDER


@dataclass(frozen=True, slots=True)
class CircuitState:
    key: CircuitKey
    #: None: closed; 0 or less: due for a probe.
    open_for_seconds: float | None
    opened_at: datetime | None
    open_until: datetime | None
    reason: Reason | None
    detail: str | None
    openings: int
    #: The notifications that opened it, or probed it since.
    probers: frozenset[UUID]
    #: Messages in a row that were refused for their sender.
    refusals: int
    #: Their destinations, where the answer may be about the destination.
    refused_destinations: frozenset[str]


@dataclass(frozen=True, slots=True)
class CircuitRefusal:
    """A message that a provider refused for its sender."""

    by: UUID
    reason: Reason
    detail: str
    #: Set if the answer may be about the destination; "": it is surely about the sender.
    destination: str = ""
    #: It, or another message to that destination, was refused before.
    is_repeated: bool = False


@dataclass(frozen=True, slots=True)
class Affected:
    """Notifications that wait behind circuits."""

    channel: Channel
    reason: Reason
    producer: str
    count: int


class CircuitRepository(Repository):
    def states(self) -> list[CircuitState]:
        """Circuits that are open, or whose sender was refused since it was last accepted."""
        rows = self._rows(_STATES, is_one_statement=True)
        return [from_row(CircuitState, row, key=from_row(CircuitKey, row)) for row in rows]

    def open(
        self,
        key: CircuitKey,
        pause_seconds: float,
        reason: Reason,
        detail: str,
        *,
        by: UUID | None,
        again: bool,
        is_repeated: bool = False,
    ) -> bool:
        """Open it, or, after a probe that failed, open it `again`. An open circuit stays as it is.

        `by`: the notification whose answer caused it; it does not probe. `is_repeated`: it was tried before, so it
        does not count as another opening. Returns whether we opened it.
        """
        values = {"pause": pause_seconds, "reason": reason, "detail": detail[:300], "by": by, "again": again}
        return bool(self._rows(_OPEN, {**asdict(key), **values, "more": 0 if is_repeated else 1}))

    def refuse(self, key: CircuitKey, pause_seconds: float, refusal: CircuitRefusal, *, at_most: int) -> bool:
        """Count a message that was refused for its sender. At `at_most` in a row, open the sender's circuit; after
        a probe, open it again. A message counts once, and so does a destination that the answers may be about.
        Returns whether we opened it."""
        values = {
            "pause": pause_seconds,
            "reason": refusal.reason,
            "detail": refusal.detail[:300],
            "by": refusal.by,
            "to": refusal.destination or None,
            "more": 0 if refusal.is_repeated else 1,
            "at_most": at_most,
        }
        return bool(self._scalar(_REFUSE, {**asdict(key), **values}))

    def accept(self, accepted: Collection[tuple[CircuitKey, float]]) -> None:
        """(key, seconds ago): a message of that sender was accepted, so its circuit starts afresh."""
        # One order for all workers, so that they wait for each other instead of locking up.
        in_order = sorted(accepted, key=lambda one: astuple(one[0]))
        rows = [{**asdict(key), "ago": ago} for key, ago in in_order]
        self._execute(_ACCEPT, {"rows": json.dumps(rows)}, is_one_statement=True)

    def close(self, key: CircuitKey) -> bool:
        """Returns whether it was open."""
        return bool(self._rows(_CLOSE, asdict(key)))

    def close_all(self, provider: str) -> None:
        """Close the provider's circuit and those of its senders."""
        self._execute(_CLOSE_ALL, {"provider": provider})

    def take_probe(
        self, key: CircuitKey, by: UUID, *, lease_seconds: float, grace_seconds: float, is_fresh: bool
    ) -> bool:
        """Whether the notification `by` may probe a provider whose pause is over; then no other may for
        `lease_seconds`. One that opened or probed the circuit before never may. One that is not fresh, so that its
        answer may be known already, may if no fresh one came within `grace_seconds`, doubled with each probe."""
        values = {"by": by, "lease": lease_seconds, "grace": grace_seconds, "fresh": is_fresh}
        return bool(self._rows(_PROBE, {**asdict(key), **values}))

    def affected(self, reasons: Collection[Reason]) -> list[Affected]:
        """Notifications that wait for one of these reasons, the largest number first."""
        rows = self._rows(_AFFECTED, {"reasons": list(reasons)}, is_one_statement=True)
        return [from_row(Affected, row, count=row.total) for row in rows]

    def hasten(self, channel: Channel, reasons: Collection[Reason]) -> tuple[int, float]:
        """What waits for a provider of the channel comes soon, instead of at its own time: what found every one of
        them paused, and what waits for one of these reasons. Returns how many, and when the last of them is due:
        seconds from now.

        They are due one after the other, so that the provider is not flooded, and no later than before. Beyond
        `HASTENED` they keep their time. Rows that somebody else has locked are left alone; a claim, later, is what
        it always is.
        """
        values = {"channel": channel, "reasons": sorted(reasons), "limit": HASTENED}
        count = self._execute(_HASTEN, {**values, "first": HASTEN_AFTER_SECONDS, "rate": HASTENED_PER_SECOND})
        return count, HASTEN_AFTER_SECONDS + count / HASTENED_PER_SECOND if count else 0.0

    def wake(self, providers: Mapping[Channel, Sequence[str]]) -> int:
        """Make due what sleeps because no provider of its channel could be called: up to `WOKEN` if one can be by
        now, urgent ones first; if one may only be probed, a few that may. Returns how many.

        Nothing is remembered between two calls: what a crash left undone, the next one does. It looks only as
        long after an outage as anything can sleep.
        """
        rows = [
            {"channel": channel, "provider": name, "detail": NO_PROVIDER_NOW.format(channel)}
            for channel, names in providers.items()
            for name in names
        ]
        values = {
            "rows": json.dumps(rows),
            "woken": WOKEN,
            "to_probe": WOKEN_TO_PROBE,
            "least": LEAST_SLEEP_SECONDS,
            "asleep": ASLEEP_SECONDS,
            "grace": PROBE_GRACE_SECONDS,
        }
        return self._execute(_WAKE, values)

    def accepted_since_refused(self, key: CircuitKey, notification_id: UUID) -> bool:
        """Whether the provider accepted a message of that sender after it first refused this one."""
        reasons = [Reason.SENDER_REFUSED, Reason.PROVIDER_ACCOUNT]
        values = {**asdict(key), "id": notification_id, "reasons": reasons}
        return bool(self._scalar(_ACCEPTED_SINCE, values, is_one_statement=True))


_STATES: TextClause = text("""
SELECT provider, sender,
  -- While one probes, the others wait for it.
  CASE WHEN open_until IS NOT NULL THEN extract(epoch FROM greatest(open_until, probe_until) - now()) END
    AS open_for_seconds, opened_at, open_until, reason,
  detail, openings, probers, refusals, refused_destinations
FROM circuits WHERE open_until IS NOT NULL OR refusals > 0 ORDER BY provider, sender
""")

_OPEN: TextClause = text("""
INSERT INTO circuits AS c (provider, sender, open_until, opened_at, reason, detail, openings, probed_by, probers)
VALUES (:provider, :sender, now() + make_interval(secs => :pause), now(), :reason, :detail, 1, CAST(:by AS uuid),
  array_remove(ARRAY[CAST(:by AS uuid)], NULL))
ON CONFLICT (provider, sender) DO UPDATE SET
  open_until = excluded.open_until, opened_at = coalesce(c.opened_at, now()), reason = excluded.reason,
  detail = excluded.detail, openings = c.openings + CASE WHEN c.open_until IS NULL THEN 1 ELSE :more END,
  probe_until = NULL, probed_by = excluded.probed_by, probers = c.probers || excluded.probers
-- A message that called it for its last chance, before the pause was over, changes nothing.
WHERE c.open_until IS NULL OR (:again AND c.open_until <= now())
RETURNING provider
""")

_REFUSE: TextClause = text("""
INSERT INTO circuits AS c (provider, sender, refusals, refused_id, reason, detail, open_until, opened_at, openings,
  probed_by, refused_destinations, probers)
VALUES (:provider, :sender, 1, CAST(:by AS uuid), :reason, :detail,
  CASE WHEN 1 >= :at_most THEN now() + make_interval(secs => :pause) END,
  CASE WHEN 1 >= :at_most THEN now() END, CASE WHEN 1 >= :at_most THEN 1 ELSE 0 END, CAST(:by AS uuid),
  array_remove(ARRAY[CAST(:to AS text)], NULL), CASE WHEN 1 >= :at_most THEN ARRAY[CAST(:by AS uuid)] END)
ON CONFLICT (provider, sender) DO UPDATE SET
  refused_id = excluded.refused_id, reason = excluded.reason, detail = excluded.detail,
  (refusals, refused_destinations, open_until, opened_at, openings, probe_until, probed_by, probers) = (
    SELECT
      c.refusals + counts,
      -- Bounded: a sender that is refused by so many is held already.
      CASE WHEN counts = 1 AND coalesce(cardinality(c.refused_destinations), 0) < 100
        THEN c.refused_destinations || excluded.refused_destinations ELSE c.refused_destinations END,
      CASE WHEN opens THEN now() + make_interval(secs => :pause) ELSE c.open_until END,
      CASE WHEN opens THEN coalesce(c.opened_at, now()) ELSE c.opened_at END,
      c.openings + CASE WHEN NOT opens THEN 0 WHEN c.open_until IS NULL THEN 1 ELSE :more END,
      CASE WHEN opens THEN NULL ELSE c.probe_until END,
      CASE WHEN opens THEN excluded.refused_id ELSE c.probed_by END,
      CASE WHEN opens THEN c.probers || excluded.refused_id ELSE c.probers END
    FROM (
      SELECT counts, (c.open_until IS NULL OR c.open_until <= now()) AND c.refusals + counts >= :at_most AS opens
      FROM (SELECT CASE WHEN c.refused_id IS DISTINCT FROM excluded.refused_id AND NOT coalesce(
        c.refused_destinations && excluded.refused_destinations, false) THEN 1 ELSE 0 END AS counts) AS n) AS o)
RETURNING coalesce(c.probed_by = CAST(:by AS uuid) AND c.open_until > now(), false) AS is_opened
""")

_ACCEPT: TextClause = text("""
INSERT INTO circuits AS c (provider, sender, accepted_at)
SELECT r.provider, r.sender, now() - make_interval(secs => r.ago)
FROM json_to_recordset(CAST(:rows AS json)) AS r(provider text, sender text, ago double precision)
ON CONFLICT (provider, sender) DO UPDATE SET
  accepted_at = greatest(c.accepted_at, excluded.accepted_at), refusals = 0, refused_id = NULL, open_until = NULL,
  opened_at = NULL, reason = NULL, detail = NULL, openings = 0, probe_until = NULL, probed_by = NULL,
  probers = NULL, refused_destinations = NULL
""")

_CLOSED = """
open_until = NULL, opened_at = NULL, reason = NULL, detail = NULL, openings = 0, probe_until = NULL,
probed_by = NULL, probers = NULL, refusals = 0, refused_id = NULL, refused_destinations = NULL,
closed_at = now()
"""

_CLOSE: TextClause = text(f"""
UPDATE circuits SET {_CLOSED}
WHERE provider = :provider AND sender = :sender AND open_until IS NOT NULL RETURNING provider
""")  # noqa: S608 - constants joined with constants

_CLOSE_ALL: TextClause = text(f"UPDATE circuits SET {_CLOSED} WHERE provider = :provider")  # noqa: S608

# Nobody fresh came for so long that one that was tried before may probe.
_TAKES_TRIED = """open_until <= now()
    - make_interval(secs => :grace * power(2, least(coalesce(cardinality(probers), 0), 5)))"""

_PROBE: TextClause = text(f"""
UPDATE circuits SET probe_until = now() + make_interval(secs => :lease), probed_by = CAST(:by AS uuid),
  probers = probers || CAST(:by AS uuid)
WHERE provider = :provider AND sender = :sender AND open_until <= now()
  AND (probe_until IS NULL OR probe_until <= now())
  AND NOT coalesce(CAST(:by AS uuid) = ANY(probers), false)
  AND (:fresh OR {_TAKES_TRIED})
RETURNING provider
""")  # noqa: S608 - constants joined with constants

_WAKE: TextClause = text(f"""
WITH known AS MATERIALIZED (
  SELECT r.channel, r.detail, c.open_until IS NULL AS is_usable, c.probers,
    coalesce(greatest(c.open_until, c.probe_until) <= now(), false) AS is_due, {_TAKES_TRIED} AS takes_tried
  FROM json_to_recordset(CAST(:rows AS json)) AS r(channel text, provider text, detail text)
  LEFT JOIN circuits AS c ON c.provider = r.provider AND c.sender = ''
  LEFT JOIN provider_states AS s ON s.provider = r.provider
  WHERE NOT coalesce(s.paused, false) AND EXISTS (
    -- Of any provider: an operator may have put another in its place.
    SELECT FROM circuits AS o WHERE o.sender = ''
    AND greatest(o.open_until, o.probe_until, o.closed_at) > now() - make_interval(secs => :asleep))
), channels AS (
  SELECT channel, detail, bool_or(is_usable) AS is_usable,
    CASE WHEN bool_or(is_usable) THEN CAST(:woken AS int) ELSE CAST(:to_probe AS int) END AS number
  FROM known GROUP BY channel, detail HAVING bool_or(is_usable OR is_due)
), waking AS MATERIALIZED (
  SELECT w.id FROM channels AS c CROSS JOIN LATERAL (
    SELECT n.id FROM states AS n
    WHERE n.status = 'retrying' AND n.channel = c.channel AND n.detail = c.detail AND n.due_at > now()
      AND n.updated_at <= now() - make_interval(secs => :least)
      AND (c.is_usable OR EXISTS (
        SELECT FROM known AS k WHERE k.channel = c.channel AND k.is_due
        AND NOT coalesce(n.id = ANY(k.probers), false)
        AND (k.takes_tried OR n.attempt_count = n.replayed_attempts)))
    ORDER BY CASE n.lane WHEN 'urgent' THEN 1 WHEN 'normal' THEN 2 ELSE 3 END, n.due_at
    LIMIT c.number FOR UPDATE SKIP LOCKED
  ) AS w
)
-- An array is looked up by id, however many rows the planner expects.
UPDATE states SET due_at = now() WHERE id = ANY(ARRAY(SELECT id FROM waking))
""")  # noqa: S608 - constants joined with constants

# An operator's retry says nothing in its detail, and keeps its time.
_HASTEN: TextClause = text("""
WITH waiting AS MATERIALIZED (
  SELECT n.id, n.due_at FROM states AS n
  WHERE n.due_at > now() AND n.status = 'retrying' AND n.channel = :channel AND NOT n.is_test
    AND (n.reason = ANY(:reasons) OR (n.reason = 'operator' AND n.detail IS NOT NULL))
  ORDER BY n.due_at LIMIT :limit FOR UPDATE SKIP LOCKED
)
UPDATE states AS n SET due_at = least(n.due_at, now() + make_interval(secs => :first + w.place / :rate))
FROM (SELECT id, row_number() OVER (ORDER BY due_at, id) AS place FROM waiting) AS w WHERE n.id = w.id
""").bindparams(binds.texts("reasons"))

_ACCEPTED_SINCE: TextClause = text("""
SELECT coalesce((SELECT c.accepted_at FROM circuits AS c WHERE c.provider = :provider AND c.sender = :sender) > (
  SELECT min(a.started_at) FROM attempts AS a WHERE a.notification_id = :id AND a.provider = :provider
  AND a.outcome = 'unavailable' AND a.reason = ANY(:reasons)), false)
""")

_AFFECTED: TextClause = text("""
SELECT n.channel, n.reason, m.producer, count(*)::int AS total FROM states AS n JOIN messages AS m ON m.id = n.id
WHERE n.status IN ('queued', 'retrying') AND n.due_at IS NOT NULL AND n.reason = ANY(:reasons) AND NOT n.is_test
GROUP BY 1, 2, 3 ORDER BY total DESC, 1, 2, 3
""")
