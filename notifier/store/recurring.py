"""Recurring notifications: the plans and their lists of recipients. A list is written in one transaction."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, TextClause, text

from notifier.domain.errors import NotFound, WrongSelection
from notifier.domain.recurrence import Recurrence
from notifier.domain.statuses import Channel, Lane
from notifier.store import binds
from notifier.store.clock import clock_of
from notifier.store.engine import transaction
from notifier.store.ledger_rows import as_json
from notifier.store.personal_data import Person, PersonalData
from notifier.store.repository import Repository
from notifier.store.rows import from_row

#: Maximum recipients of one statement.
PAGE = 1000


@dataclass(frozen=True, slots=True)
class RecurringPlan:
    """What is to be sent, and when."""

    producer: str
    name: str
    recurrence: Recurrence
    channel: Channel
    lane: Lane
    template: str
    context: Mapping[str, Any]
    locale: str | None = None
    sender: str | None = None
    #: If True, its messages reach no provider.
    is_test: bool = False


@dataclass(frozen=True, slots=True)
class ListedRecipient:
    """One line of a list of recipients."""

    #: Number of the line, from 1, under which faults are reported.
    position: int
    to: str
    context: Mapping[str, Any]
    #: Replaces the plan's locale.
    locale: str | None = None


@dataclass(frozen=True, slots=True)
class RecurringView:
    """A recurring notification, without personal data."""

    id: UUID
    producer: str
    name: str
    is_test: bool
    cron: str
    zone: str
    until: datetime | None
    channel: Channel
    lane: Lane
    template: str
    locale: str | None
    sender: str | None
    created_at: datetime
    #: Number of recipients.
    recipients: int
    #: "running", "paused", "over" or "waiting".
    state: str
    #: None: it is not paused.
    paused_at: datetime | None
    #: None: it is never due again.
    next_at: datetime | None
    #: The moment that the last run is or was for.
    run_at: datetime | None
    #: Somebody asked for that run.
    run_by_hand: bool
    #: None: the run is under way.
    run_finished_at: datetime | None
    run_accepted: int
    run_refused: int
    #: `{"line", "field", "code", "problem", "fix"}` of the first recipients that were refused.
    run_faults: list[dict[str, Any]]
    #: Why a run was missed, was stopped, or makes no progress.
    note: str | None

    @property
    def recurrence(self) -> Recurrence:
        return Recurrence(self.cron, self.zone, self.until)


@dataclass(frozen=True, slots=True)
class PastRun:
    """A run that has ended."""

    #: The moment that it was for.
    run_at: datetime
    #: Somebody asked for this run.
    by_hand: bool
    finished_at: datetime
    accepted: int
    refused: int
    #: Why it was missed, or ended early.
    note: str | None


def plan_of(row: Any, personal_data: PersonalData) -> RecurringPlan:
    """The plan of a row that has the plan's columns and an empty `recipient`. Raises `CannotOpen`."""
    recurrence = Recurrence(row.cron, row.zone, row.until)
    return from_row(RecurringPlan, row, recurrence=recurrence, context=personal_data.open(row).context)


class RecurringRepository(Repository):
    def __init__(self, engine: Engine, personal_data: PersonalData) -> None:
        super().__init__(engine)
        self._personal_data = personal_data

    def add(self, plan: RecurringPlan, recipients: Sequence[ListedRecipient], next_at: datetime | None) -> UUID:
        """Add a plan with its list. Raises `WrongSelection` if the producer already has one of this name."""
        with transaction(self._engine) as connection:
            id_ = clock_of(connection).new_id()
            own = self._personal_data.put_away(id_, plan.channel, Person("", dict(plan.context)))
            recurrence = plan.recurrence
            row = {
                **{name: getattr(plan, name) for name in _PLAN_FIELDS},
                "id": str(id_),
                "cron": recurrence.cron,
                "zone": recurrence.zone,
                "until": recurrence.until,
                "next_at": next_at,
                "context": own.get("context"),
                "sealed": own.get("sealed"),
            }
            if not connection.execute(_ADD, {"rows": as_json([row])}).rowcount:
                raise WrongSelection(f"{plan.producer} has a recurring notification named {plan.name} already")
            self._write_list(connection, id_, plan.channel, recipients)
        return id_

    def views(self, producer: str | None = None, *, name: str | None = None) -> list[RecurringView]:
        """The recurring notifications, sorted by name. `producer`, `name`: only these."""
        return self._records(RecurringView, _VIEWS, {"producer": producer, "name": name, "id": None})

    def view(self, id_: UUID) -> RecurringView:
        """The recurring notification. Raises `NotFound`."""
        found = self._records(RecurringView, _VIEWS, {"producer": None, "name": None, "id": id_})
        if not found:
            raise _no_such(id_)
        return found[0]

    def past_runs(self, id_: UUID) -> list[PastRun]:
        """The past runs that are kept, latest first."""
        return self._records(PastRun, _PAST_RUNS, {"id": id_})

    def plan(self, id_: UUID) -> RecurringPlan:
        """The plan. Raises `NotFound`, `CannotOpen`."""
        rows = self._rows(_PLAN, {"id": id_})
        if not rows:
            raise _no_such(id_)
        return plan_of(rows[0], self._personal_data)

    def replace(self, id_: UUID, plan: RecurringPlan, recipients: Sequence[ListedRecipient]) -> None:
        """Replace its list. A run that is under way starts again at the beginning of the new list."""
        with transaction(self._engine) as connection:
            # In the same order as `put`: first the plan, then its recipients.
            if not connection.execute(_RESTART, {"id": id_}).rowcount:
                raise _no_such(id_)
            connection.execute(_CLEAR, {"id": id_})
            self._write_list(connection, id_, plan.channel, recipients)

    def put(self, id_: UUID, plan: RecurringPlan, recipients: Sequence[ListedRecipient]) -> None:
        """Add recipients at the end of its list. Those already on it keep their place and get the new context."""
        with transaction(self._engine) as connection:
            last = connection.execute(_LAST_POSITION, {"id": id_}).scalar_one_or_none()
            if last is None:
                raise _no_such(id_)
            self._write_list(connection, id_, plan.channel, recipients, after=last)

    def drop_recipients(self, addresses: Sequence[str], id_: UUID | None = None) -> int:
        """Take these recipients off its list, or off all lists. Returns the number of lines removed."""
        return self._execute(_DROP, {"hashes": self.hashes(addresses), "id": id_})

    def hashes(self, addresses: Sequence[str]) -> list[bytes]:
        """The hashes of these recipients, for all channels."""
        forms = self._personal_data.hash_key.recipient_forms
        return [form for address in addresses for channel in Channel for form in forms(channel, address)]

    def lists_of(self, address: str) -> list[RecurringView]:
        """The recurring notifications whose lists this recipient is on."""
        rows = self._rows(_LISTS_OF, {"hashes": self.hashes([address])})
        return [self.view(row.recurring_id) for row in rows]

    def remove(self, id_: UUID) -> bool:
        """Remove it. Returns whether it was there."""
        return bool(self._execute(_REMOVE, {"id": id_}))

    def pause(self, id_: UUID) -> bool:
        """Pause it. Returns False if it was paused already."""
        return bool(self._execute(_PAUSE, {"id": id_}))

    def resume(self, id_: UUID, next_at: datetime | None) -> bool:
        """Resume it. Returns False if it was not paused."""
        return bool(self._execute(_RESUME, {"id": id_, "next_at": next_at}))

    def ask_for_run(self, id_: UUID) -> bool:
        """Ask for a run at once. Returns False if it is paused, or if a run is under way."""
        return bool(self._execute(_ASK, {"id": id_}))

    def _write_list(
        self,
        connection: Connection,
        id_: UUID,
        channel: Channel,
        recipients: Sequence[ListedRecipient],
        *,
        after: int = 0,
    ) -> None:
        for rows in self._list_rows(connection, channel, recipients, after):
            connection.execute(_PUT, {"id": id_, "rows": as_json(rows)})

    def _list_rows(
        self, connection: Connection, channel: Channel, recipients: Sequence[ListedRecipient], after: int
    ) -> Iterator[list[dict[str, Any]]]:
        clock = clock_of(connection)
        for start in range(0, len(recipients), PAGE):
            rows = []
            for one in recipients[start : start + PAGE]:
                id_ = clock.new_id()
                person = self._personal_data.put_away(id_, channel, Person(one.to, dict(one.context)))
                rows.append(person | {"id": str(id_), "position": after + one.position, "locale": one.locale})
            yield rows


def _no_such(id_: UUID) -> NotFound:
    return NotFound(f"no recurring notification has the id {id_}")


_PLAN_FIELDS = ("producer", "is_test", "name", "channel", "lane", "template", "locale", "sender")
_ID = binds.uuid("id")

_ADD: TextClause = text("""
INSERT INTO recurring_notifications (id, producer, is_test, name, cron, zone, until, channel, lane, template,
  locale, sender, context, sealed, next_at)
SELECT id, producer, is_test, name, cron, zone, until, channel, lane, template, locale, sender, context, sealed,
  next_at
FROM json_to_recordset(CAST(:rows AS json)) AS r(
  id uuid, producer text, is_test boolean, name text, cron text, zone text, until timestamptz, channel text,
  lane text, template text, locale text, sender text, context jsonb, sealed bytea, next_at timestamptz)
ON CONFLICT (producer, is_test, name) DO NOTHING
""")

_PUT: TextClause = text("""
INSERT INTO recurring_recipients AS p (id, recurring_id, position, recipient, address_hash, context, sealed,
  locale)
SELECT r.id, :id, r.position, r.recipient, r.address_hash, r.context, r.sealed, r.locale
FROM json_to_recordset(CAST(:rows AS json)) AS r(
  id uuid, position int, recipient text, address_hash bytea, context jsonb, sealed bytea, locale text)
-- With the id, which what is sealed is bound to.
ON CONFLICT (recurring_id, address_hash) DO UPDATE SET id = excluded.id, recipient = excluded.recipient,
  context = excluded.context, sealed = excluded.sealed, locale = excluded.locale
""").bindparams(_ID)

_LAST_POSITION: TextClause = text("""
SELECT coalesce((SELECT max(position) FROM recurring_recipients WHERE recurring_id = n.id), 0)
FROM recurring_notifications AS n WHERE n.id = :id FOR UPDATE
""").bindparams(_ID)

#: Condition on `recurring_notifications AS n`: a run is under way.
IS_RUNNING = "(n.run_at IS NOT NULL AND n.run_finished_at IS NULL)"

_VIEWS: TextClause = text(f"""
SELECT n.*, (SELECT count(*) FROM recurring_recipients AS p WHERE p.recurring_id = n.id) AS recipients,
  CASE WHEN n.paused_at IS NOT NULL THEN 'paused' WHEN {IS_RUNNING} THEN 'running'
    WHEN n.next_at IS NULL THEN 'over' ELSE 'waiting' END AS state
FROM recurring_notifications AS n
WHERE (n.producer = :producer OR CAST(:producer AS text) IS NULL)
  AND (n.name = :name OR CAST(:name AS text) IS NULL) AND (n.id = :id OR :id IS NULL)
ORDER BY n.name, n.producer, n.is_test
""").bindparams(_ID)  # noqa: S608 - a constant

_PAST_RUNS: TextClause = text("""
SELECT run_at, by_hand, finished_at, accepted, refused, note FROM recurring_runs
WHERE recurring_id = :id ORDER BY run_at DESC
""").bindparams(_ID)

# The sealed shared context has no recipient of its own.
_PLAN: TextClause = text("SELECT *, NULL AS recipient FROM recurring_notifications WHERE id = :id").bindparams(_ID)

# A worker that is busy with the old list loses its claim.
_RESTART: TextClause = text("""
UPDATE recurring_notifications SET claim_token = NULL, leased_until = NULL,
  run_position = CASE WHEN run_finished_at IS NULL THEN 0 ELSE run_position END,
  run_accepted = CASE WHEN run_finished_at IS NULL THEN 0 ELSE run_accepted END,
  run_refused = CASE WHEN run_finished_at IS NULL THEN 0 ELSE run_refused END,
  run_faults = CASE WHEN run_finished_at IS NULL THEN '[]' ELSE run_faults END
WHERE id = :id
""").bindparams(_ID)

_CLEAR: TextClause = text("DELETE FROM recurring_recipients WHERE recurring_id = :id").bindparams(_ID)

_DROP: TextClause = text("""
DELETE FROM recurring_recipients WHERE address_hash = ANY(:hashes) AND (recurring_id = :id OR :id IS NULL)
""").bindparams(_ID)

_LISTS_OF: TextClause = text("""
SELECT DISTINCT recurring_id FROM recurring_recipients WHERE address_hash = ANY(:hashes) ORDER BY recurring_id
""")

# Its recipients and past runs go with it, by the foreign keys.
_REMOVE: TextClause = text("DELETE FROM recurring_notifications WHERE id = :id").bindparams(_ID)

_PAUSE: TextClause = text("""
UPDATE recurring_notifications SET paused_at = now() WHERE id = :id AND paused_at IS NULL
""").bindparams(_ID)

# A worker that was about to begin what is due loses its claim.
_RESUME: TextClause = text(f"""
UPDATE recurring_notifications AS n SET paused_at = NULL, next_at = CAST(:next_at AS timestamptz),
  claim_token = CASE WHEN {IS_RUNNING} THEN claim_token END,
  leased_until = CASE WHEN {IS_RUNNING} THEN leased_until END
WHERE id = :id AND paused_at IS NOT NULL
""").bindparams(_ID)  # noqa: S608 - a constant

#: The values that a new run begins with.
NEW_RUN = """run_position = 0, run_accepted = 0, run_refused = 0, run_faults = '[]', run_moved_at = now(),
  run_finished_at = NULL, note = NULL"""

_ASK: TextClause = text(f"""
UPDATE recurring_notifications AS n SET run_at = now(), run_by_hand = true, {NEW_RUN}
WHERE id = :id AND paused_at IS NULL AND NOT {IS_RUNNING}
""").bindparams(_ID)  # noqa: S608 - constants
