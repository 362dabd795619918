"""Runs of recurring notifications: which worker has one, and how far it has come.

A run is claimed under a lease. Each of its steps is one statement that takes effect only under the current claim.
So a worker that was too slow, or whose list was replaced meanwhile, can change nothing any more.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Engine, TextClause, text

from notifier.domain.errors import CannotOpen
from notifier.store import binds
from notifier.store.engine import transaction
from notifier.store.ledger_rows import as_json
from notifier.store.personal_data import PersonalData
from notifier.store.recurring import IS_RUNNING, NEW_RUN, ListedRecipient, RecurringPlan, plan_of
from notifier.store.repository import Repository
from notifier.store.rows import from_row

#: A worker that has made no progress for this long has lost its run to another worker. Seconds.
LEASE_SECONDS = 60
#: Number of ended runs of one recurring notification that are kept, besides the last one.
KEPT_RUNS = 100
_NOTE_LENGTH = 500


@dataclass(frozen=True, slots=True)
class TakenRun:
    """A recurring notification that is due, claimed for a worker."""

    id: UUID
    plan: RecurringPlan
    token: UUID
    #: The present time by the database's clock.
    now: datetime
    next_at: datetime | None
    #: The moment of the run that is under way. None: no run is.
    run_at: datetime | None
    run_by_hand: bool
    run_position: int
    #: When the run under way last made progress.
    run_moved_at: datetime | None


@dataclass(frozen=True, slots=True)
class Portion:
    """The outcome for the next recipients of a run."""

    #: Place of the last of them in the list.
    position: int
    accepted: int
    refused: int
    #: As in `RecurringView.run_faults`.
    faults: list[dict[str, Any]]


class RecurringRunRepository(Repository):
    def __init__(self, engine: Engine, personal_data: PersonalData) -> None:
        super().__init__(engine)
        self._personal_data = personal_data

    def take(self) -> TakenRun | None:
        """Claim, for `LEASE_SECONDS`, the one that has waited longest and nobody holds. None: nothing is due."""
        token = uuid4()
        with transaction(self._engine) as connection:
            row = connection.execute(_TAKE, {"token": token, "lease": LEASE_SECONDS}).one_or_none()
        if row is None:
            return None
        try:
            return from_row(TakenRun, row, plan=plan_of(row, self._personal_data), token=token)
        except CannotOpen as error:
            # Its lease keeps it from being taken again at once, so that others have their turn.
            self.note(row.id, token, str(error))
            raise

    def begin(self, run: TakenRun, run_at: datetime) -> bool:
        """Begin the run of this moment. False: the claim is no longer ours."""
        return bool(self._execute(_BEGIN, {"id": run.id, "token": run.token, "run_at": run_at}))

    def skip(self, run: TakenRun, next_at: datetime | None, note: str) -> None:
        """Send nothing for what is due. The next moment is `next_at`."""
        values = {"id": run.id, "token": run.token, "next_at": next_at, "note": note, "kept": KEPT_RUNS}
        self._execute(_SKIP, values)

    def recipients(self, run: TakenRun, after: int, limit: int) -> list[tuple[ListedRecipient, bytes]]:
        """The next recipients of its list, each with the hash of its address under today's key: a recipient who is
        on the list twice, as after a change of the key, has one hash.

        Raises:
            CannotOpen: the key is missing; the error names it.
        """
        rows = self._rows(_RECIPIENTS, {"id": run.id, "after": after, "limit": limit})
        found = []
        for row in rows:
            person = self._personal_data.open(row)
            one = ListedRecipient(row.position, person.recipient, person.context, row.locale)
            found.append((one, self._personal_data.hash_key.recipient(run.plan.channel, person.recipient)))
        return found

    def advance(self, run: TakenRun, run_at: datetime, before: int, portion: Portion) -> bool:
        """Note the outcome for the recipients after `before`. False: the run is no longer ours, or is paused."""
        values = {
            "id": run.id,
            "token": run.token,
            "run_at": run_at,
            "before": before,
            "lease": LEASE_SECONDS,
            "position": portion.position,
            "accepted": portion.accepted,
            "refused": portion.refused,
            "faults": as_json(portion.faults),
        }
        with transaction(self._engine) as connection:
            return bool(connection.execute(_ADVANCE, values).scalar_one_or_none())

    def finish(self, run: TakenRun, next_at: datetime | None, note: str | None = None) -> None:
        """End the run. `next_at`: when the plan is due next; not used if the run was asked for, or resumed."""
        values = {"id": run.id, "token": run.token, "next_at": next_at, "note": note, "kept": KEPT_RUNS}
        self._execute(_FINISH, values)

    def release(self, run: TakenRun) -> None:
        """Let another worker go on with the run at once."""
        self._execute(_RELEASE, {"id": run.id, "token": run.token})

    def note(self, id_: UUID, token: UUID, note: str) -> None:
        """Record why the run makes no progress."""
        self._execute(_NOTE, {"id": id_, "token": token, "note": note[:_NOTE_LENGTH]})


_ID, _TOKEN = binds.uuid("id"), binds.uuid("token")

_TAKE: TextClause = text(f"""
WITH due AS MATERIALIZED (
  SELECT id FROM recurring_notifications AS n
  WHERE paused_at IS NULL AND ({IS_RUNNING} OR next_at <= now()) AND coalesce(leased_until <= now(), true)
  ORDER BY CASE WHEN {IS_RUNNING} THEN run_moved_at ELSE next_at END LIMIT 1 FOR UPDATE SKIP LOCKED
)
UPDATE recurring_notifications AS n SET claim_token = :token, leased_until = now() + make_interval(secs => :lease)
FROM due WHERE n.id = due.id
RETURNING n.id, n.producer, n.is_test, n.name, n.cron, n.zone, n.until, n.channel, n.lane, n.template, n.locale,
  n.sender, n.context, n.sealed, NULL AS recipient, n.next_at, n.run_by_hand, n.run_position, n.run_moved_at,
  CASE WHEN {IS_RUNNING} THEN n.run_at END AS run_at, now() AS now
""").bindparams(_TOKEN)  # noqa: S608 - constants

_BEGIN: TextClause = text(f"""
UPDATE recurring_notifications AS n SET run_at = CAST(:run_at AS timestamptz), run_by_hand = false, {NEW_RUN}
WHERE id = :id AND claim_token = :token AND NOT {IS_RUNNING}
""").bindparams(_ID, _TOKEN)  # noqa: S608 - constants

# For rows `ended`. The statement that ends a run also keeps it, so that no crash can come between the two.
_KEEP = """
, kept AS (
  INSERT INTO recurring_runs (recurring_id, run_at, by_hand, finished_at, accepted, refused, note)
  SELECT id, run_at, by_hand, now(), accepted, refused, note FROM ended
  ON CONFLICT DO NOTHING
)
DELETE FROM recurring_runs AS r USING ended WHERE r.recurring_id = ended.id AND r.run_at < (
  SELECT k.run_at FROM recurring_runs AS k WHERE k.recurring_id = ended.id
  ORDER BY k.run_at DESC OFFSET :kept - 1 LIMIT 1)
"""

_SKIP: TextClause = text(f"""
WITH due AS (SELECT id, next_at AS run_at FROM recurring_notifications WHERE id = :id),
ended AS (
UPDATE recurring_notifications AS n SET next_at = CAST(:next_at AS timestamptz), note = :note, claim_token = NULL,
  leased_until = NULL
FROM due WHERE n.id = due.id AND n.claim_token = :token AND NOT {IS_RUNNING}
RETURNING n.id, due.run_at, false AS by_hand, 0 AS accepted, 0 AS refused, n.note
){_KEEP}
""").bindparams(_ID, _TOKEN)  # noqa: S608 - constants

_RECIPIENTS: TextClause = text("""
SELECT id, position, recipient, context, sealed, locale FROM recurring_recipients
WHERE recurring_id = :id AND position > :after ORDER BY position LIMIT :limit
""").bindparams(_ID)

_ADVANCE: TextClause = text("""
UPDATE recurring_notifications SET run_position = :position, run_accepted = run_accepted + :accepted,
  run_refused = run_refused + :refused, run_moved_at = now(), note = NULL,
  run_faults = jsonb_path_query_array(run_faults || CAST(:faults AS jsonb), '$[0 to 19]'),
  leased_until = now() + make_interval(secs => :lease)
WHERE id = :id AND claim_token = :token AND run_at = CAST(:run_at AS timestamptz) AND run_finished_at IS NULL
  AND run_position = :before
RETURNING paused_at IS NULL
""").bindparams(_ID, _TOKEN)

# If somebody resumed it in the middle of the run, the next moment is later than the run's, or none, and stays.
_FINISH: TextClause = text(f"""
WITH ended AS (
UPDATE recurring_notifications SET run_finished_at = now(), note = :note, claim_token = NULL, leased_until = NULL,
  next_at = CASE WHEN NOT run_by_hand AND next_at <= run_at THEN CAST(:next_at AS timestamptz) ELSE next_at END
WHERE id = :id AND claim_token = :token AND run_finished_at IS NULL
RETURNING id, run_at, run_by_hand AS by_hand, run_accepted AS accepted, run_refused AS refused, note
){_KEEP}
""").bindparams(_ID, _TOKEN)  # noqa: S608 - a constant

_RELEASE: TextClause = text("""
UPDATE recurring_notifications SET claim_token = NULL, leased_until = NULL WHERE id = :id AND claim_token = :token
""").bindparams(_ID, _TOKEN)

_NOTE: TextClause = text("""
UPDATE recurring_notifications SET note = :note WHERE id = :id AND claim_token = :token
""").bindparams(_ID, _TOKEN)
