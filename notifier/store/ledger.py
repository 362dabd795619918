"""Every write to the record. Each method is one transaction of set-based statements, whatever the batch's size;
only for a small batch do the statements of `accept` commit one by one.

A status moves only along `statuses.TRANSITIONS`: the table is part of every `UPDATE … WHERE`. Every move also
appends an event. Only the database's clock decides.

No statement here writes a callback. The triggers `note_callback_of_new` and `note_callback` on `states` do, at
every change of status that the producer asked for: see migrations/versions/0001_tables.py.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from uuid import UUID, uuid4

from sqlalchemy import Connection, Engine

from notifier.domain.statuses import TRANSITIONS, MessageProof, Status, sources_of
from notifier.store import acceptance, ledger_sql
from notifier.store.acceptance import REDISPATCH_SECONDS
from notifier.store.claims import claim_and_start, claim_rows, queued_rows, start
from notifier.store.engine import execute_directly, transaction
from notifier.store.hash_keys import HashKeyRepository
from notifier.store.ledger_rows import (
    as_json,
    message_assignment,
    not_ours,
    notifications_of,
    result_row,
    unknown_of,
)
from notifier.store.mass_alarm import HardBounceWatch
from notifier.store.notification_rules import GONE_WORDS
from notifier.store.personal_data import PersonalData
from notifier.store.provider_messages import assign_message, note_taken, with_retries
from notifier.store.records import (
    Acceptance,
    DeliveryResult,
    Due,
    NewAttempt,
    NewNotification,
    NewRejection,
    NotificationToSend,
    Queued,
    Rivals,
    Started,
    Unknown,
)
from notifier.store.repository import Repository
from notifier.store.rows import from_row
from notifier.store.sanitize import storable
from notifier.store.suppressions import add_suppressions
from notifier.telemetry import metrics

#: When a task could not be published, the sweep dispatches it again after this. Seconds.
REQUEUE_SECONDS = 2
#: A notification whose worker died this often is poison.
MAX_CRASHES = 3


class Ledger(Repository):
    def __init__(
        self, engine: Engine, personal_data: PersonalData | None = None, watch: HardBounceWatch | None = None
    ) -> None:
        super().__init__(engine)
        self._personal_data = personal_data or PersonalData()
        self._hash_keys = HashKeyRepository(engine)
        self._watch = watch

    def accept(
        self, notifications: Sequence[NewNotification], rejections: Sequence[NewRejection] = ()
    ) -> list[Acceptance]:
        """Put a batch into the record, once for each (producer, key); all of it or nothing.

        A row that Postgres cannot store makes the batch fall apart into single ones, so that it is refused alone.
        """
        if notifications:
            self._hash_keys.note(self._personal_data.hash_key.fingerprint)
        return acceptance.accept(self._engine, self._personal_data, notifications, rejections)

    def claim(
        self, ids: Sequence[UUID], *, lease_seconds: float, token: UUID | None = None, again: bool = False
    ) -> list[NotificationToSend]:
        """Take those of `ids` that are queued, for `lease_seconds`. The others are claimed or done.

        `token`: the caller's own, for this one claim. If its answer was lost, the claim is made `again` with the
        same token, and finds what it had taken. A notification that expired meanwhile becomes `expired` here.
        """
        read_at = time.monotonic()
        rows = claim_rows(self._engine, ids, token or uuid4(), lease_seconds=lease_seconds, again=again)
        return notifications_of(rows, self._personal_data, read_at)

    def read_queued(self, ids: Sequence[UUID]) -> Queued:
        """Those of `ids` that are queued, without a claim: nothing is written, and nobody holds them."""
        read_at = time.monotonic()
        rows = queued_rows(self._engine, ids)
        return Queued(
            notifications_of([row for row in rows if row.is_new], self._personal_data, read_at),
            [row.id for row in rows if not row.is_new and not row.attachments],
            [row.id for row in rows if row.attachments],
        )

    def claim_and_start(
        self,
        calls: Sequence[NewAttempt],
        *,
        token: UUID,
        lease_seconds: float,
        margin_seconds: float,
        again: bool = False,
    ) -> dict[UUID, Started | None]:
        """Claim what `read_queued` found to be new, and commit its first attempt, in one; `again` after an answer
        that was lost, with the same token.

        None: its recipient must not be sent to, and it became `suppressed`. Left out are those that are no longer
        queued, those that expired meanwhile, which become `expired`, and after a lost answer those whose lease
        ends within `margin_seconds`.
        """
        return claim_and_start(
            self._engine,
            calls,
            token,
            lease_seconds=lease_seconds,
            margin_seconds=margin_seconds,
            again=again,
        )

    def requeue_soon(self, ids: Sequence[UUID], *, seconds: float = REQUEUE_SECONDS) -> None:
        """Those of `ids` that are still queued are due again after `seconds`: their tasks could not be published,
        or a worker has no room for them."""
        self._execute(ledger_sql.REQUEUE_SOON, {"ids": list(ids), "seconds": seconds})

    def start_attempts(
        self, calls: Iterable[NewAttempt], *, margin_seconds: float, again: bool = False
    ) -> dict[UUID, Started]:
        """Commit one attempt row for each call before it is made; `again` after an answer that was lost.

        Left out are claims that are no longer ours or whose lease ends within `margin_seconds`, those that have
        expired, which become `expired`, and those whose recipient must not be sent to, which become `suppressed`:
        no call for them.
        """
        begun = start(self._engine, list(calls), margin_seconds=margin_seconds, again=again)
        return {started.id: started for started in begun}

    def give_back(self, results: Sequence[DeliveryResult], *, token: UUID | None = None) -> None:
        """End claims under which no provider was called, or will be.

        The `number` of a result is that of an attempt that may have been begun: it is closed as not called.
        Nothing is written for a claim that is no longer the current one, or not of this `token`, nor twice.
        """
        values = {**_values([result_row(result) for result in results]), "token": token}
        self._execute(ledger_sql.GIVE_BACK, values, is_one_statement=True)

    def finish(self, results: Sequence[DeliveryResult]) -> None:
        """Write results: complete the attempts, move the statuses, append the events.

        An acceptance counts from any status that may still become `sent`; any other result only while the claim
        is the current one. Writing a result twice changes nothing. The suppression of a result is written with it,
        or neither is. A message that is another attempt's is not written: see `attribute`.

        Crash point: between the commit of the others and that of a result whose message was another attempt's. Its
        attempt stays open, becomes unknown when the lease ends, and is looked up.
        """
        suppressions = [result.suppression for result in results if result.suppression]
        with transaction(self._engine, is_one_statement=not suppressions) as connection:
            contested = _finish(connection, results)
            add_suppressions(connection, suppressions, self._watch)
        for result in results:
            if (result.id, result.number) in contested:
                self.attribute(result)

    def attribute(self, result: DeliveryResult) -> bool:
        """Write one acceptance whose message another attempt may have, or get just now. Returns whether the
        message is ours.

        A provider's answer takes the message from an attempt that only guessed, which becomes unknown again. If
        the message is not ours, an attempt with an answer becomes unknown, and one that was looked up stays so.
        """
        wanted = message_assignment(result)

        def write(connection: Connection) -> bool:
            is_ours = assign_message(connection, wanted)
            if is_ours:
                _finish(connection, [result])
            elif result.proof is MessageProof.ANSWER:
                _finish(connection, [not_ours(result, REQUEUE_SECONDS)])
            else:
                note_taken(connection, wanted)
            return is_ours

        return with_retries(self._engine, write)

    def note_failed_attempts(self, results: Sequence[DeliveryResult]) -> None:
        """Complete attempts whose delivery goes on with the next provider: the status stays `sending`."""
        self._execute(ledger_sql.FINISH_ATTEMPTS, {"rows": as_json([result_row(result) for result in results])})

    def take_due(self, *, limit: int, unknown_after_seconds: float) -> list[Due]:
        """The sweep: move what is due, and return what is queued now and needs a deliver task.

        An attempt whose worker died waits `unknown_after_seconds` for a late result before it is looked up.
        Sweeps may run at once: rows are taken with SKIP LOCKED and their `due_at` moves with them.
        """
        pauses = {f"redispatch_{lane}": seconds for lane, seconds in REDISPATCH_SECONDS.items()}
        ended = {"limit": limit, "unknown_after": unknown_after_seconds, "max_crashes": MAX_CRASHES}
        with transaction(self._engine) as connection:
            expired = connection.execute(ledger_sql.END_LEASES, ended).rowcount
            rows = connection.execute(ledger_sql.QUEUE_DUE, {"limit": limit, **pauses}).all()
        metrics.LEASES_EXPIRED.inc(expired)
        return [from_row(Due, row) for row in rows]

    def take_unanswered(
        self, *, limit: int, unknown_again_after_seconds: float, receipt_again_after_seconds: float
    ) -> list[Due]:
        """Unknown outcomes and missing reports that are due to be looked up; due again after these times if nobody
        settles them."""
        values = {
            "limit": limit,
            "unknown_again_after": unknown_again_after_seconds,
            "receipt_again_after": receipt_again_after_seconds,
        }
        return self._records(Due, ledger_sql.TAKE_UNANSWERED, values)

    def unknown_attempts(self, ids: Sequence[UUID]) -> list[Unknown]:
        """The attempts with unknown outcome of those of `ids` that still are `unknown`."""
        rows = self._rows(ledger_sql.UNKNOWN, {"ids": list(ids)})
        return [unknown_of(row, self._personal_data) for row in rows]

    def rivals(
        self,
        unknown: Unknown,
        providers: Sequence[str],
        id_space: str,
        found: Sequence[str],
        *,
        near_seconds: float,
    ) -> Rivals:
        """Whose the messages with the ids `found` may be, other than this attempt's.

        Attempts at the same recipient, through one of `providers`, that ended not more than `near_seconds` before
        this one began, or began not more than that after it ended. Ids that were given within a day are among the
        known ones also if they were not found.
        """
        values = {
            "id": unknown.id,
            "number": unknown.number,
            "providers": list(providers),
            "id_space": id_space,
            "found": list(found),
            "started_at": unknown.started_at,
            "finished_at": unknown.finished_at,
            "near": near_seconds,
        }
        with transaction(self._engine) as connection:
            rows = connection.execute(ledger_sql.RIVALS, values).all()
            # After the others: what was an answer in between is known, and counts among both rather than in none.
            known = connection.execute(ledger_sql.KNOWN_IDS, values).one()
        attempts = tuple(unknown_of(row, self._personal_data) for row in rows)
        return Rivals(frozenset(known.known_ids), attempts, known.looked_at)

    def settle_unknown(self, settled: Sequence[tuple[UUID, int, bool, str]]) -> None:
        """(id, claim, resend, detail): send it again, or hold it until a receipt or an operator decides."""
        rows = [
            {"id": str(id_), "claim": claim, "resend": resend, "detail": storable(detail)[:500]}
            for id_, claim, resend, detail in settled
        ]
        self._execute(ledger_sql.SETTLE_UNKNOWN, {"rows": as_json(rows), "gone": GONE_WORDS})


def _finish(connection: Connection, results: Sequence[DeliveryResult]) -> set[tuple[UUID, int | None]]:
    """Returns those (id, number) that were not written because of their messages."""
    rows = [result_row(result) for result in results]
    values = _values(rows)
    if not any(row["id_space"] for row in rows):
        execute_directly(connection, ledger_sql.FINISH, values)
        return set()
    contested = execute_directly(connection, ledger_sql.FINISH_WITH_MESSAGES, values)
    return {(row.id, row.number) for row in contested}


def _values(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    return {
        "rows": as_json(rows),
        "before_sent": list(sources_of(Status.SENT)),
        "after_unknown": list(TRANSITIONS[Status.UNKNOWN]),
    }
