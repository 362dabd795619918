"""Assigns provider messages to attempts: one message, one attempt, as the table's key guarantees.

A look-up finds messages by their text, so its assignment is a guess (`MessageProof.LOOK_UP`). An answer to our own
call, and a signed report that names the attempt, are proof. Proof takes a message from an attempt that only
guessed: that attempt becomes `unknown` again, with an event. Proof never takes a message from an attempt that has
proof of its own.

All writers about messages take locks in one order: states by id, then provider messages, then attempts. The
attempt that has a message is read before the locks and again under them. If another attempt has it by then, all
begins again.

Crash points. Everything is one transaction. Before its commit nothing is written: the result is looked up again or
the report comes again. After it the message belongs to one attempt. An attempt that lost its message is due at
once, so nothing is lost if the process that took it crashes. `Ledger.finish` commits other results before it
settles a contested one: see there. If two look-ups find the same message, two reports cross, or a look-up meets a
late answer, the second one finds the row of the first, and waits for its commit if need be.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from typing import TypeVar
from uuid import UUID

from sqlalchemy import Connection, Engine, TextClause, text

from notifier.config.logs import log
from notifier.domain.errors import ServiceUnavailable
from notifier.domain.statuses import MessageProof, Status
from notifier.store import binds
from notifier.store.database_errors import DEADLOCK, sqlstate_of
from notifier.store.engine import transaction, unprepared
from notifier.store.notification_rules import GONE, GONE_WORDS
from notifier.store.rows import from_row

#: Maximum number of tries. Whenever one fails, somebody else has made progress.
_TRIES = 5
#: Statuses that say that a provider took the message.
_SEEM_TAKEN = (Status.SENT, Status.DELIVERED, Status.UNDELIVERED)

_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class MessageAssignment:
    """A message, and the attempt that it is to be assigned to."""

    id_space: str
    provider_message_id: str
    notification_id: UUID
    #: Number of the attempt.
    attempt: int
    proof: MessageProof


@dataclass(frozen=True, slots=True)
class _Holder:
    """An attempt that has a message."""

    notification_id: UUID
    attempt: int
    proof: MessageProof
    provider_message_id: str

    def is_of(self, wanted: MessageAssignment) -> bool:
        return (self.notification_id, self.attempt) == (wanted.notification_id, wanted.attempt)


class _Overtaken(Exception):
    """The message went meanwhile to a notification that is not locked."""


def with_retries(engine: Engine, work: Callable[[Connection], _T]) -> _T:
    """Do `work`, which calls `assign_message`, in a transaction; begin again as long as others are faster.

    If the database could not be used, it is tried once more on a new connection, because a report may not come
    again. The first try may have been committed.

    Raises:
        ServiceUnavailable: the database cannot be used now, or others were faster every time.
    """
    was_unusable = False
    for _ in range(_TRIES):
        try:
            with unprepared() if was_unusable else nullcontext(), transaction(engine) as connection:
                return work(connection)
        except _Overtaken:
            continue
        except ServiceUnavailable as error:
            # The order of locks allows no deadlock among our own transactions.
            is_deadlock = sqlstate_of(error) == DEADLOCK
            if was_unusable and not is_deadlock:
                raise
            was_unusable = was_unusable or not is_deadlock
    raise ServiceUnavailable(
        "the database cannot be used now: too many write about one provider's message at once"
    )


def assign_message(connection: Connection, wanted: MessageAssignment) -> bool:
    """Assign the message to the attempt if no other attempt has it, or if the other one only guessed. Returns
    whether the attempt has it now; False also if its notification was deleted.

    Locks the notification. Call it within `with_retries`, before any other lock is taken.
    """
    values = {**asdict(wanted), "id": wanted.notification_id}
    ids = {wanted.notification_id, *(holder.notification_id for holder in _holders(connection, values))}
    locked = set(connection.execute(_LOCK, {"ids": sorted(ids)}).scalars())
    if wanted.notification_id not in locked:
        # Deleted meanwhile, together with its messages.
        return False
    # A statement after the lock, which sees what others wrote while we waited.
    others = [holder for holder in _holders(connection, values) if not holder.is_of(wanted)]
    if any(holder.notification_id not in ids for holder in others):
        raise _Overtaken
    if any(not wanted.proof.beats(holder.proof) for holder in others):
        log.warning("provider_message.taken", notification_id=str(wanted.notification_id), attempt=wanted.attempt)
        return False
    guesses = connection.execute(_GUESSES, values) if wanted.proof is not MessageProof.LOOK_UP else ()
    _release(connection, [*others, *(from_row(_Holder, row) for row in guesses)], wanted)
    if not from_row(_Holder, connection.execute(_TAKE, values).one()).is_of(wanted):
        raise _Overtaken
    return True


def note_taken(connection: Connection, wanted: MessageAssignment) -> None:
    """Write an event: a look-up found a message for the attempt, but another attempt has it."""
    detail = f"a look-up found {wanted.provider_message_id}, which became another attempt's meanwhile: not counted"
    values = {"id": wanted.notification_id, "attempt": wanted.attempt, "detail": detail}
    connection.execute(_NOTE, values)


def _release(connection: Connection, holders: Iterable[_Holder], wanted: MessageAssignment) -> None:
    """Take their messages from holders that only guessed. Their notifications are locked."""
    for holder in holders:
        what = "message" if holder.is_of(wanted) else "attempt's"
        values = {
            "id": holder.notification_id,
            "attempt": holder.attempt,
            "provider_message_id": holder.provider_message_id,
            "sources": list(_SEEM_TAKEN),
            "detail": f"a look-up had found {holder.provider_message_id}: the provider says it is another {what}",
            "gone": f"; {GONE_WORDS}",
        }
        connection.execute(_RELEASE, values)
        log.warning(
            "provider_message.released", notification_id=str(holder.notification_id), attempt=holder.attempt
        )


def _holders(connection: Connection, values: dict[str, object]) -> list[_Holder]:
    return [from_row(_Holder, row) for row in connection.execute(_HOLDERS, values)]


_ID = binds.uuid("id")

# A program of an earlier version writes attempts without a row here. Such a message is looked for among the
# attempts at the same recipient. The holder found there may be wrong, as after a look-up.
_HOLDERS: TextClause = text("""
WITH held AS MATERIALIZED (
  SELECT notification_id, attempt, proof, provider_message_id FROM provider_messages
  WHERE id_space = :id_space AND provider_message_id = :provider_message_id
)
SELECT * FROM held
UNION ALL
SELECT a.notification_id, a.number AS attempt, 'look_up', a.provider_message_id
FROM messages AS m JOIN attempts AS a ON a.notification_id = m.id
WHERE NOT EXISTS (SELECT FROM held)
  AND m.address_hash = (SELECT address_hash FROM messages WHERE id = :id)
  AND a.provider_message_id = :provider_message_id
""").bindparams(_ID)

_LOCK: TextClause = text("""
SELECT id FROM states WHERE id = ANY(:ids) ORDER BY id FOR UPDATE
""").bindparams(binds.IDS)

# Messages that the attempt has by a look-up, except the one that it has by proof.
_GUESSES: TextClause = text("""
SELECT notification_id, attempt, proof, provider_message_id FROM provider_messages
WHERE notification_id = :id AND attempt = :attempt AND proof = 'look_up' AND id_space = :id_space
  AND provider_message_id <> :provider_message_id
""").bindparams(_ID)

# DO UPDATE makes the statement return the row, whoever holds it.
_TAKE: TextClause = text("""
INSERT INTO provider_messages AS m (id_space, provider_message_id, notification_id, attempt, proof)
VALUES (:id_space, :provider_message_id, :id, :attempt, :proof)
ON CONFLICT (id_space, provider_message_id) DO UPDATE SET proof = CASE
  WHEN m.proof = 'look_up' AND m.notification_id = excluded.notification_id AND m.attempt = excluded.attempt
  THEN excluded.proof ELSE m.proof END
RETURNING notification_id, attempt, proof, provider_message_id
""").bindparams(_ID)

# Only what this attempt caused is changed: another attempt may have been accepted too, and an operator may have
# retried the notification. It is due at once, to be looked up without that message; what can no longer be sent is
# held.
_RELEASE: TextClause = text(f"""
WITH freed AS (
  DELETE FROM provider_messages
  WHERE notification_id = :id AND attempt = :attempt AND provider_message_id = :provider_message_id
), other AS MATERIALIZED (
  SELECT provider, provider_message_id FROM attempts
  WHERE notification_id = :id AND number <> :attempt AND outcome = 'accepted' ORDER BY number DESC LIMIT 1
), opened AS (
  UPDATE attempts SET outcome = 'unknown', reason = 'outcome_unknown', detail = CAST(:detail AS text),
    provider_message_id = NULL
  WHERE notification_id = :id AND number = :attempt AND provider_message_id = :provider_message_id
), kept AS (
  UPDATE states AS n SET provider = other.provider, provider_message_id = other.provider_message_id
  FROM other WHERE n.id = :id AND n.provider_message_id = :provider_message_id
), moved AS (
  UPDATE states AS n SET status = 'unknown', reason = 'outcome_unknown',
    detail = CAST(:detail AS text) || CASE WHEN {GONE} THEN CAST(:gone AS text) ELSE '' END,
    due_at = CASE WHEN NOT {GONE} THEN now() END,
    provider = NULL, provider_message_id = NULL, sent_at = NULL, updated_at = now()
  FROM messages AS m
  WHERE n.id = :id AND m.id = n.id AND n.provider_message_id = :provider_message_id AND n.status = ANY(:sources)
    AND NOT EXISTS (SELECT FROM other)
  RETURNING n.status, n.reason, n.detail
)
INSERT INTO events (notification_id, kind, status, reason, attempt, detail)
SELECT :id, 'provider_message', moved.status, moved.reason, :attempt, coalesce(moved.detail, CAST(:detail AS text))
FROM (SELECT 1) AS release LEFT JOIN moved ON true
""").bindparams(_ID, binds.texts("sources"))

_NOTE: TextClause = text("""
INSERT INTO events (notification_id, kind, attempt, detail)
SELECT id, 'provider_message', CAST(:attempt AS int), CAST(:detail AS text) FROM states WHERE id = :id
""").bindparams(_ID)
