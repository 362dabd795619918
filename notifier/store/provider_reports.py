"""Records provider reports: what a provider says later about a message. A repeated report is written once.

A report locks its notification first. So reports about one notification are written one after the other, and each
sees the events of the earlier ones. `statuses.TRANSITIONS`, in the `WHERE`, says what a report may change; the
module `provider_messages` says whose message it is about. A trigger makes the callback of a change: see `ledger`.

Crash points. Before the commit nothing is written: the provider reports again, or is asked. After it the same
report finds its event. If our own result comes after a report (the row was still `sending`), it finds the attempt
closed and the status further on, and changes neither.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, TextClause, text

from notifier.domain.statuses import Channel, MessageProof, Reason, Status, sources_of
from notifier.store import binds
from notifier.store.engine import transaction
from notifier.store.hash_keys import other_key_at
from notifier.store.ledger_sql import wipe
from notifier.store.mass_alarm import HardBounceWatch
from notifier.store.personal_data import PersonalData, UnreadableRecipient
from notifier.store.provider_messages import MessageAssignment, assign_message, with_retries
from notifier.store.records import NewSuppression
from notifier.store.repository import Repository
from notifier.store.rows import from_row
from notifier.store.sanitize import storable
from notifier.store.schema.partitions import first_id
from notifier.store.suppressions import add_suppressions
from notifier.telemetry import metrics, traces
from notifier.telemetry.traces import Attributes, SpanName

#: The largest integer of Postgres: a query with a larger one would fail.
_MAX_NUMBER = 2**31 - 1
_NOT_COUNTED = " — not counted: the message"
#: Reports on one attempt that become events though they move nothing; later ones leave none. Whoever got a mail
#: has its return path, and could send any number. Far more than the parts of a text have.
LISTED_REPORTS = 1000


@dataclass(frozen=True, slots=True)
class NewReport:
    """What a provider says about the message of one attempt."""

    notification_id: UUID
    #: Number of the attempt.
    attempt: int
    #: Names under which the provider is configured: a report on an attempt by another provider is not recorded.
    #: None: other proof says which attempt the report is about.
    providers: Sequence[str] | None
    provider_message_id: str
    #: What the provider says, without personal data. The same words about the same message are the same report.
    words: str
    #: `sent`: the provider has the message. `delivered`, `undelivered`: how it ended. None: not about a status.
    status: Status | None
    reason: Reason | None = None
    #: Time that the provider gives.
    occurred_at: datetime | None = None
    #: Number of messages that the text was split into, if the provider reports on each.
    parts: int = 1
    #: Time after which the provider is asked if no other report comes. None: never. Seconds.
    ask_in_seconds: float | None = None
    #: Within this space the message's id stands for one message, see `providers.base.id_space`. None: it does not.
    id_space: str | None = None
    #: True: the report names the attempt itself, as a signed webhook does. False: we asked about the message's id,
    #: and may only have guessed whose message it is.
    is_proof: bool = True


@dataclass(frozen=True, slots=True)
class Reported:
    """The notification and the attempt that a report is about."""

    id: UUID
    channel: Channel
    #: See `HashKey.recipient`.
    address_hash: bytes
    #: Fingerprint of the key of `address_hash`.
    hash_key: str
    sender: str | None
    template: str
    #: The provider of the attempt.
    provider: str
    #: Number of the attempt.
    attempt: int


@dataclass(frozen=True, slots=True)
class Silent:
    """A notification that was sent and on which no report has come."""

    id: UUID
    #: The attempt that was accepted.
    attempt: int
    provider: str
    provider_message_id: str
    #: Time since it was sent, by the database's clock.
    age_seconds: float


class RecordedReport(StrEnum):
    """What recording a report changed."""

    UNKNOWN = "unknown"  #: there is no such attempt; nothing was written
    REPEATED = "repeated"  #: it was written before
    NOTED = "noted"  #: it has an event and changed nothing
    UNLISTED = "unlisted"  #: it changed nothing, and `LISTED_REPORTS` are there already; nothing was written
    MOVED = "moved"  #: it changed the status


class _Written(NamedTuple):
    outcome: RecordedReport
    #: If the notification has arrived now: its channel, and the seconds since it was sent.
    arrived: tuple[str, float] | None = None
    #: The row of its attempt. None: nothing was written.
    row: Row[Any] | None = None


class ProviderReportRepository(Repository):
    def __init__(
        self, engine: Engine, personal_data: PersonalData | None = None, watch: HardBounceWatch | None = None
    ) -> None:
        super().__init__(engine)
        self._personal_data = personal_data or PersonalData()
        self._watch = watch

    def record(
        self, report: NewReport, suppression: Callable[[Reported], NewSuppression | None] = lambda _: None
    ) -> RecordedReport:
        """Write one report, in one short transaction. `suppression` is called if the report changes a status or is
        not about a status. What it returns is added in the same transaction.

        If a look-up gave the message to another attempt, the message goes to this attempt, and the other one is
        unknown again. If the message is proven to be another attempt's, the report is noted and changes nothing.
        """
        if not 0 < report.attempt <= _MAX_NUMBER:
            return RecordedReport.UNKNOWN
        begun = time.time_ns()
        written = with_retries(self._engine, lambda connection: self._record(connection, report, suppression))
        if traces.are_on() and written.row is not None:
            _trace(report, written.outcome, written.row, begun)
        if written.arrived is not None:
            channel, seconds = written.arrived
            metrics.SENT_TO_DELIVERED.observe((channel,), [seconds])
        return written.outcome

    def _record(
        self,
        connection: Connection,
        report: NewReport,
        suppression: Callable[[Reported], NewSuppression | None],
    ) -> _Written:
        key = {"id": report.notification_id, "attempt": report.attempt}
        about = {**key, "providers": report.providers and list(report.providers)}
        assignment = _assignment(report)
        if assignment is not None and connection.execute(_ABOUT, about).one_or_none() is None:
            return _Written(RecordedReport.UNKNOWN)
        is_ours = assignment is None or assign_message(connection, assignment)
        row = connection.execute(_LOCK, about).one_or_none()
        if row is None or (not report.is_proof and row.provider_message_id != report.provider_message_id):
            return _Written(RecordedReport.UNKNOWN)
        # A statement after the lock, which sees what another report wrote while we waited.
        known = set(connection.execute(_KNOWN, key).scalars())
        words = _words(report, row.provider_message_id)
        if not is_ours:
            words = f"{words}{_NOT_COUNTED} {storable(report.provider_message_id)[:60]} is another's"
        if words in known:
            return _Written(RecordedReport.REPEATED)
        to = _status(report, known) if is_ours else None
        outcome = self._write(connection, report, row, words, to, is_listed=len(known) < LISTED_REPORTS)
        moved = outcome is RecordedReport.MOVED
        # A report that changes nothing about the message says nothing new about its recipient either. The
        # exception is a complaint, which is not about a status.
        may_suppress = moved or (is_ours and report.status is None)
        new = suppression(self._reported(connection, row)) if may_suppress else None
        if new is not None:
            add_suppressions(connection, [new], self._watch)
        if not moved:
            return _Written(outcome, row=row)
        is_timed = to is Status.DELIVERED and row.sent_seconds is not None
        arrived = (str(row.channel), max(0.0, float(row.sent_seconds))) if is_timed else None
        return _Written(RecordedReport.MOVED, arrived, row)

    def _write(
        self,
        connection: Connection,
        report: NewReport,
        row: Row[tuple[object, ...]],
        words: str,
        to: Status | None,
        *,
        is_listed: bool,
    ) -> RecordedReport:
        is_bad, is_news = to is Status.UNDELIVERED, row.outcome != "accepted"
        values = {
            "id": report.notification_id,
            "attempt": report.attempt,
            "provider": row.provider,
            "provider_message_id": row.provider_message_id or storable(report.provider_message_id)[:100] or None,
            "is_news": is_news,
            "taken": to is not None,
            # What closes the attempt, and what is about no status (a complaint), is always told.
            "is_listed": is_listed or to is None or is_news,
            "status": to or "",
            "sources": list(sources_of(to)) if to else [],
            "reason": report.reason if is_bad else None,
            "detail": words if is_bad else None,
            "due_in_seconds": report.ask_in_seconds if to is Status.SENT else None,
            "occurred_at": report.occurred_at,
            "words": words,
        }
        written = connection.execute(_WRITE, values).first()
        if written is None:
            return RecordedReport.UNLISTED
        return RecordedReport.NOTED if written.status is None else RecordedReport.MOVED

    def find(self, notification_id: UUID, attempt: int | None = None) -> Reported | None:
        """The given attempt, or the last one. None: there is none."""
        if attempt is not None and not 0 < attempt <= _MAX_NUMBER:
            return None
        with transaction(self._engine) as connection:
            row = connection.execute(_FIND, {"id": notification_id, "attempt": attempt}).one_or_none()
            return None if row is None else self._reported(connection, row)

    def _reported(self, connection: Connection, row: Row[Any]) -> Reported:
        hash_, key = self._address_hash(connection, row)
        return from_row(Reported, row, address_hash=hash_, hash_key=key, attempt=row.number)

    def _address_hash(self, connection: Connection, row: Row[Any]) -> tuple[bytes, str]:
        """The recipient's hash under our key, and the fingerprint of its key.

        The row may have been hashed under an earlier key. If its recipient can no longer be read, only that hash
        is left. Then the key is another one if another one was in use when the message was accepted. This may be
        wrong for a row that was rehashed and redacted since: `notifier doctor` then reports a suppression that
        works.
        """
        ours, stored = self._personal_data.hash_key, row.address_hash
        recipient = self._personal_data.recipient_of(row)
        # A row from before there were hashes has its address in plain text.
        if stored is None or (recipient is not None and not isinstance(recipient, UnreadableRecipient)):
            forms = ours.recipient_forms(Channel(row.channel), recipient or "")
            return stored if stored in forms else forms[0], ours.fingerprint
        return stored, other_key_at(connection, ours.fingerprint, row.accepted_at) or ours.fingerprint

    def soft_bounces(self, address_hash: bytes, *, since: datetime) -> int:
        """Number of mails in a row to this address, accepted since then, that bounced although the address exists.
        A mail that arrived ends the row."""
        return int(self._scalar(_SOFT_BOUNCES, {"address_hash": address_hash, "since": first_id(since)}))

    def silent(self, ids: Sequence[UUID]) -> list[Silent]:
        """Those of `ids` that are `sent` and still wait for a report, with the attempt that was accepted."""
        return [from_row(Silent, row, attempt=row.number) for row in self._rows(_SILENT, {"ids": list(ids)})]

    def ask_again(self, waits: Sequence[tuple[UUID, float]]) -> None:
        """Takes (id, seconds): if it is still `sent`, the provider is asked again after this time."""
        rows = [{"id": str(id_), "seconds": seconds} for id_, seconds in waits]
        self._execute(_ASK_AGAIN, {"rows": json.dumps(rows)})

    def give_up(self, ids: Sequence[UUID], detail: str) -> None:
        """Stop waiting for a report. Those that are still `sent` stay so, and get an event that says why."""
        self._execute(_GIVE_UP, {"ids": list(ids), "detail": detail})


def _trace(report: NewReport, outcome: RecordedReport, row: Row[Any], begun: int) -> None:
    attributes: Attributes = {
        **traces.about(row.id, row.channel, row.lane, row.template, row.producer),
        traces.PROVIDER: row.provider,
        traces.ATTEMPT: report.attempt,
        traces.OUTCOME: outcome,
        **({traces.STATUS: report.status} if report.status else {}),
    }
    span = traces.go_on(SpanName.REPORT, row.provider, attributes, parent=row.traceparent, at=begun)
    if span is not None:
        is_bad = report.status is Status.UNDELIVERED
        span.end({}, error=str(report.reason or report.status) if is_bad else None)


def _assignment(report: NewReport) -> MessageAssignment | None:
    """The assignment of the message that the report proves. None: it proves nothing."""
    message = storable(report.provider_message_id)[:100]
    if report.id_space is None or not report.is_proof or not message:
        return None
    return MessageAssignment(
        id_space=report.id_space,
        provider_message_id=message,
        notification_id=report.notification_id,
        attempt=report.attempt,
        proof=MessageProof.REPORT,
    )


def _words(report: NewReport, known_id: str | None) -> str:
    """What the report says. The message's id is added if it is not the known one: then the report is about another
    part of the text, or about another message."""
    words: str = storable(report.words)[:400]
    other = report.provider_message_id
    return f"{words} (message {storable(other)[:60]})" if known_id and other and other != known_id else words


def _status(report: NewReport, known: set[str]) -> Status | None:
    """The status that the report leads to. A text in several parts has arrived when all have, in any order."""
    if report.status is not Status.DELIVERED or report.parts <= 1:
        return report.status
    arrived = 1 + sum(words.startswith(report.words) and _NOT_COUNTED not in words for words in known)
    return Status.DELIVERED if arrived >= report.parts else Status.SENT


# The time since it was sent comes from a row that is read and locked here anyway: eight bytes more in the answer.
_ABOUT_ATTEMPT = """
SELECT n.id, m.channel, m.recipient, m.sealed, m.address_hash, m.accepted_at, m.sender, m.template,
  a.provider, a.number, a.outcome, a.provider_message_id, m.lane, m.producer, m.traceparent,
  CAST(extract(epoch FROM now() - n.sent_at) AS float8) AS sent_seconds
FROM states AS n JOIN messages AS m ON m.id = n.id
JOIN attempts AS a ON a.notification_id = n.id AND a.number = :attempt
WHERE n.id = :id AND (CAST(:providers AS text[]) IS NULL OR a.provider = ANY(:providers))
"""
_BINDS = (binds.uuid("id"), binds.texts("providers"))

_ABOUT: TextClause = text(_ABOUT_ATTEMPT).bindparams(*_BINDS)
_LOCK: TextClause = text(f"{_ABOUT_ATTEMPT} FOR UPDATE OF n").bindparams(*_BINDS)

_FIND: TextClause = text("""
SELECT m.id, m.channel, m.recipient, m.sealed, m.address_hash, m.accepted_at, m.sender, m.template, a.provider,
  a.number
FROM messages AS m JOIN attempts AS a ON a.notification_id = m.id
WHERE m.id = :id AND a.number = coalesce(CAST(:attempt AS int), a.number)
ORDER BY a.number DESC LIMIT 1
""").bindparams(binds.uuid("id"))

# A mail that a relay took counts as arrived if no bounce comes for five days: by default no relay tries longer.
# The condition is inside CASE, so that the planner finds rows by address and not by status.
_SOFT_BOUNCES: TextClause = text("""
WITH mails AS MATERIALIZED (
  SELECT m.id, CASE
    WHEN n.status = 'undelivered' AND n.reason = 'unreachable_recipient' THEN 'soft'
    WHEN n.status = 'delivered' THEN 'arrived'
    WHEN n.status = 'sent' AND n.sent_at < now() - interval '5 days' THEN 'arrived' END AS ended
  FROM messages AS m JOIN states AS n ON n.id = m.id
  WHERE m.address_hash = :address_hash AND m.id >= :since AND m.channel = 'email'
    -- Bounces that led to a suppression no longer count once an operator has lifted it.
    AND m.accepted_at > coalesce((SELECT max(lifted_at) FROM suppressions AS s
      WHERE s.address_hash = :address_hash AND s.reason = 'hard_bounce'
      AND s.lifted_by LIKE 'operator:%'), '-infinity')
)
SELECT count(*) FROM mails WHERE ended = 'soft'
  AND id > coalesce((SELECT id FROM mails WHERE ended = 'arrived' ORDER BY id DESC LIMIT 1), :since)
""").bindparams(binds.uuid("since"))

# If the attempt's message later turned out to be another one, earlier reports are about that other message.
_KNOWN: TextClause = text("""
SELECT detail FROM events WHERE notification_id = :id AND kind = 'provider' AND attempt = :attempt
  AND id > coalesce((SELECT max(id) FROM events
    WHERE notification_id = :id AND kind = 'provider_message' AND attempt = :attempt AND status IS NOT NULL), 0)
""").bindparams(binds.uuid("id"))

# If the provider has the message, the attempt was accepted, even without an answer or if we took it for refused,
# and it is not made again. There are three things that a report does not do:
# - a report that only says that the provider has the message changes nothing if the same was said before: an
#   operator may have retried the notification meanwhile;
# - a failure does not count while a later attempt may still arrive;
# - nor does it count once an operator has retried the notification.
# A notification that a report changed has no lease that will end. So another attempt under way counts as unknown
# until its worker, if alive, records the answer.
_WRITE: TextClause = text(f"""
WITH taken AS (
  UPDATE attempts SET outcome = 'accepted', finished_at = coalesce(finished_at, now()), reason = NULL, code = NULL,
    detail = CAST(:words AS text), provider_message_id = :provider_message_id
  WHERE notification_id = :id AND number = :attempt AND :is_news AND :taken
), moved AS (
  UPDATE states AS n SET
    status = CAST(:status AS text),
    reason = :reason,
    detail = :detail,
    due_at = now() + make_interval(secs => :due_in_seconds),
    provider = :provider,
    provider_message_id = :provider_message_id,
    sent_at = CASE WHEN :is_news THEN now() ELSE coalesce(n.sent_at, now()) END,
    updated_at = now()
  WHERE n.id = :id AND n.status = ANY(:sources) AND CASE CAST(:status AS text)
    WHEN 'sent' THEN :is_news
    WHEN 'undelivered' THEN n.replayed_attempts < :attempt AND NOT EXISTS (
      SELECT FROM attempts AS later WHERE later.notification_id = n.id AND later.number > :attempt
      AND (later.outcome IS NULL OR later.outcome IN ('accepted', 'unknown')))
    ELSE true END
  RETURNING n.id, n.status, n.reason, n.has_secrets
), wiped AS (
  {wipe("moved")}
), left_open AS (
  UPDATE attempts AS a SET outcome = 'unknown', finished_at = now(), reason = 'outcome_unknown',
    detail = 'another attempt was reported on before this one was answered'
  FROM moved WHERE a.notification_id = :id AND a.number <> :attempt
    AND CASE WHEN a.outcome IS NULL THEN true END
)
INSERT INTO events (notification_id, occurred_at, kind, status, reason, attempt, detail)
SELECT :id, CAST(:occurred_at AS timestamptz), 'provider', moved.status, moved.reason, :attempt,
  CAST(:words AS text)
FROM (SELECT 1) AS report LEFT JOIN moved ON true
WHERE :is_listed OR moved.id IS NOT NULL
RETURNING status
""").bindparams(binds.uuid("id"), binds.texts("sources"))

_SILENT: TextClause = text("""
SELECT DISTINCT ON (n.id) n.id, a.number, n.provider, n.provider_message_id,
  extract(epoch FROM now() - n.sent_at) AS age_seconds
FROM unnest(:ids) AS w(id)
JOIN states AS n ON n.id = w.id AND CASE WHEN n.status = 'sent' AND n.due_at IS NOT NULL THEN true END
JOIN attempts AS a ON a.notification_id = n.id AND a.provider_message_id = n.provider_message_id
ORDER BY n.id, a.number DESC
""").bindparams(binds.IDS)

_ASK_AGAIN: TextClause = text("""
UPDATE states AS n SET due_at = now() + make_interval(secs => r.seconds)
FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, seconds double precision)
WHERE n.id = r.id AND CASE WHEN n.status = 'sent' AND n.due_at IS NOT NULL THEN true END
""")

_GIVE_UP: TextClause = text("""
WITH moved AS (
  UPDATE states AS n SET due_at = NULL, updated_at = now()
  FROM unnest(:ids) AS w(id)
  WHERE n.id = w.id AND CASE WHEN n.status = 'sent' AND n.due_at IS NOT NULL THEN true END
  RETURNING n.id
)
INSERT INTO events (notification_id, kind, detail) SELECT id, 'no_receipt', CAST(:detail AS text) FROM moved
""").bindparams(binds.IDS)
