"""The ledger: the writes of intake and delivery to the record.

Each method is one transaction of set-based statements, whatever the size of the batch. Only for a small batch do
the statements of `accept` commit one by one. A status changes only along `statuses.TRANSITIONS`: the table is part
of every `UPDATE … WHERE`. Every change also appends an event. Only the database's clock counts.

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

#: When a task could not be published, the sweep dispatches its notifications again after this. Seconds.
REQUEUE_SECONDS = 2
#: A notification whose worker died this often counts as poison.
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
        """Write a batch into the record, once for each (producer, key); all of it or nothing.

        If Postgres cannot store a row, each message is written alone, so that only that row is refused.
        """
        if notifications:
            self._hash_keys.note(self._personal_data.hash_key.fingerprint)
        return acceptance.accept(self._engine, self._personal_data, notifications, rejections)

    def claim(
        self, ids: Sequence[UUID], *, lease_seconds: float, token: UUID | None = None, again: bool = False
    ) -> list[NotificationToSend]:
        """Claim those of `ids` that are queued, for `lease_seconds`. The others are claimed or done.

        `token`: the caller's own, for this one claim. If the answer was lost, claim `again` with the same token:
        this finds what was claimed. A notification that has expired meanwhile becomes `expired` here.
        """
        read_at = time.monotonic()
        rows = claim_rows(self._engine, ids, token or uuid4(), lease_seconds=lease_seconds, again=again)
        return notifications_of(rows, self._personal_data, read_at)

    def read_queued(self, ids: Sequence[UUID]) -> Queued:
        """Read those of `ids` that are queued, without a claim: nothing is written, and nobody holds them."""
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
        """Claim notifications that `read_queued` found to be new, and commit their first attempts, in one
        statement; `again` after a lost answer, with the same token.

        None: its recipient must not be sent to, and it became `suppressed`. Left out are notifications that are no
        longer queued, those that have expired meanwhile and become `expired`, and, after a lost answer, those
        whose lease ends within `margin_seconds`.
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
        """Make those of `ids` that are still queued due again after `seconds`, because their tasks could not be
        published or a worker has no room for them."""
        self._execute(ledger_sql.REQUEUE_SOON, {"ids": list(ids), "seconds": seconds})

    def start_attempts(
        self, calls: Iterable[NewAttempt], *, margin_seconds: float, again: bool = False
    ) -> dict[UUID, Started]:
        """Commit one attempt row for each call before it is made; `again` after a lost answer.

        Left out, so that no call is made: claims that are no longer ours, claims whose lease ends within
        `margin_seconds`, notifications that have expired (they become `expired`), and notifications to a recipient
        who must not be sent to (they become `suppressed`).
        """
        begun = start(self._engine, list(calls), margin_seconds=margin_seconds, again=again)
        return {started.id: started for started in begun}

    def give_back(self, results: Sequence[DeliveryResult], *, token: UUID | None = None) -> None:
        """End claims under which no provider was or will be called.

        The `number` of a result is the number of an attempt that may have been begun: it is closed as not called.
        Nothing is written if the claim is no longer the current one or not of this `token`, or for a second time.
        """
        values = {**_values([result_row(result) for result in results]), "token": token}
        self._execute(ledger_sql.GIVE_BACK, values, is_one_statement=True)

    def finish(self, results: Sequence[DeliveryResult]) -> None:
        """Write results: complete the attempts, move the statuses, append the events.

        An acceptance counts from any status that may still become `sent`. Any other result counts only while its
        claim is the current one. Writing a result twice changes nothing. A result and its suppression are written
        together or not at all. A result whose message belongs to another attempt is not written: see `attribute`.

        Crash point: after the other results are committed, before a contested one is. Its attempt stays open,
        becomes unknown when the lease ends, and is looked up.
        """
        suppressions = [result.suppression for result in results if result.suppression]
        with transaction(self._engine, is_one_statement=not suppressions) as connection:
            contested = _finish(connection, results)
            add_suppressions(connection, suppressions, self._watch)
        for result in results:
            if (result.id, result.number) in contested:
                self.attribute(result)

    def attribute(self, result: DeliveryResult) -> bool:
        """Write one acceptance whose message another attempt may have, or may get at the same time. Returns
        whether the message is this attempt's.

        A provider's answer takes the message from an attempt that only guessed, which becomes unknown again. If
        the message is not this attempt's, an attempt with an answer becomes unknown, and one that was looked up
        stays unknown.
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
        """Complete attempts whose delivery goes on to the next provider: the status stays `sending`."""
        self._execute(ledger_sql.FINISH_ATTEMPTS, {"rows": as_json([result_row(result) for result in results])})

    def take_due(self, *, limit: int, unknown_after_seconds: float) -> list[Due]:
        """The sweep: change what is due, and return the notifications that are queued now and need a deliver task.

        An attempt whose worker died waits `unknown_after_seconds` for a late result before it is looked up. Sweeps
        may run at the same time: rows are taken with SKIP LOCKED, and their `due_at` changes with them.
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
        """Unknown outcomes and missing reports that are due to be looked up. They are due again after these times
        if nobody settles them."""
        values = {
            "limit": limit,
            "unknown_again_after": unknown_again_after_seconds,
            "receipt_again_after": receipt_again_after_seconds,
        }
        return self._records(Due, ledger_sql.TAKE_UNANSWERED, values)

    def unknown_attempts(self, ids: Sequence[UUID]) -> list[Unknown]:
        """The attempts with unknown outcome of those of `ids` that are still `unknown`."""
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
        """The other attempts that the messages with the ids `found` may belong to, and the ids that others have.

        Attempts: calls for the same recipient through one of `providers` that ended at most `near_seconds` before
        this attempt began, or began at most that long after it ended. Known ids: those of `found` that other
        attempts have, and all that other attempts at this recipient got from a day before this one on.
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
            # Read after the attempts: an answer that comes in between counts in both lists rather than in neither.
            known = connection.execute(ledger_sql.KNOWN_IDS, values).one()
        attempts = tuple(unknown_of(row, self._personal_data) for row in rows)
        return Rivals(frozenset(known.known_ids), attempts, known.looked_at)

    def settle_unknown(self, settled: Sequence[tuple[UUID, int, bool, str]]) -> None:
        """Takes (id, claim, resend, detail): send it again, or hold it until a receipt or an operator decides."""
        rows = [
            {"id": str(id_), "claim": claim, "resend": resend, "detail": storable(detail)[:500]}
            for id_, claim, resend, detail in settled
        ]
        self._execute(ledger_sql.SETTLE_UNKNOWN, {"rows": as_json(rows), "gone": GONE_WORDS})


def _finish(connection: Connection, results: Sequence[DeliveryResult]) -> set[tuple[UUID, int | None]]:
    """Returns the (id, number) of results that were not written because another attempt has their message."""
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
