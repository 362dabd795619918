"""Writes a batch of messages into the record, once for each (producer, key), and gives the answer to each.

Inserting a notification also fires the trigger that makes its first callback: see `ledger`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Engine, Row, TextClause, text
from sqlalchemy.exc import DataError, IntegrityError

from notifier.domain.errors import Fault, ServiceUnavailable
from notifier.domain.statuses import Lane, Status
from notifier.store import binds, ledger_sql
from notifier.store.attachments import use_attachments
from notifier.store.clock import clock_of
from notifier.store.engine import execute_directly, transaction
from notifier.store.ledger_rows import as_json
from notifier.store.ledger_sql import LISTED_DUPLICATES
from notifier.store.personal_data import Person, PersonalData
from notifier.store.records import TEST_KEYS, Acceptance, NewNotification, NewRejection
from notifier.store.sanitize import storable

#: A queued notification that nobody claims within this time is dispatched again; each later time is longer. By
#: lane, in seconds: short enough that a lost task is hardly noticed.
REDISPATCH_SECONDS = {Lane.URGENT: 30, Lane.NORMAL: 120, Lane.BULK: 600}
#: More rows than this are joined by hash: that costs two more statements, but avoids quadratic time.
_MANY_ROWS = 16
#: Number of tries to insert a message whose key changes hands meanwhile.
_TRIES = 5
#: A rejected body is cut to this length. Bytes.
KEPT_BODY_BYTES = 64 * 1024
#: The id in the answer for a message that was not accepted.
_NO_ID = UUID(int=0)
#: Fields of a message that do not go into the row unchanged.
_PUT_AWAY = {"to", "id", "channel", "lane", "context", "attachments"}


def accept(
    engine: Engine,
    personal_data: PersonalData,
    notifications: Sequence[NewNotification],
    rejections: Sequence[NewRejection],
) -> list[Acceptance]:
    """See `Ledger.accept`. If Postgres cannot store a row, each message is written alone."""
    try:
        return _accept_batch(engine, personal_data, notifications, rejections)
    except (DataError, IntegrityError):
        if not notifications:
            raise
        if len(notifications) + len(rejections) <= 1:
            fault = Fault("", "not_storable", "holds a value that the record cannot hold", "Send plainer values")
            return [_not_inserted(new, _NO_ID, fault) for new in notifications]
    accepted = [answer for new in notifications for answer in accept(engine, personal_data, [new], [])]
    for rejection in rejections:
        accept(engine, personal_data, [], [rejection])
    return accepted


def _accept_batch(
    engine: Engine,
    personal_data: PersonalData,
    notifications: Sequence[NewNotification],
    rejections: Sequence[NewRejection],
) -> list[Acceptance]:
    answers: dict[int, Acceptance] = {}
    with transaction(engine, is_one_statement=_is_one_statement(notifications, rejections)) as connection:
        if notifications:
            faults = use_attachments(connection, notifications)
            usable = [new for new in notifications if new.position not in faults]
            for _ in range(_TRIES):
                answers |= _insert(connection, personal_data, usable)
                missing = [new for new in notifications if new.position not in answers]
                answers |= _explain(connection, personal_data, missing, faults)
                usable = [new for new in missing if new.position not in answers]
                if not usable:
                    break
            else:
                raise ServiceUnavailable("the key of a message changed hands again and again; try again")
        if rejections:
            # The id comes from the database's clock, which the connection knows: it is needed to seal the row.
            clock = clock_of(connection)
            rows = [_rejected_row(personal_data, rejection, clock.new_id()) for rejection in rejections]
            connection.execute(ledger_sql.REJECT, rows)
    return [answers[new.position] for new in notifications]


def _is_one_statement(notifications: Sequence[NewNotification], rejections: Sequence[NewRejection]) -> bool:
    """Whether each statement of the batch may commit by itself.

    The statements after the insertion of a few messages read what was there before, and note it. After a crash
    between them the message comes again and finds the same, even the key of a message whose id was taken.
    """
    has_attachments = any(new.message.attachments for new in notifications)
    return len(notifications) <= _MANY_ROWS and not rejections and not has_attachments


def _insert(
    connection: Connection, personal_data: PersonalData, notifications: Sequence[NewNotification]
) -> dict[int, Acceptance]:
    """Insert the messages whose key and id are free. Returns their answers by position."""
    clock = clock_of(connection)
    ids = {new.position: new.message.id or clock.new_id() for new in notifications}
    # In the order of keys, so that two intakes with the same keys do not deadlock.
    ordered = sorted(notifications, key=lambda new: (new.key_owner, new.message.key))
    rows = [_row(personal_data, new, ids[new.position]) for new in ordered]
    values = {"rows": as_json(rows)}
    if len(rows) <= _MANY_ROWS:
        found = execute_directly(connection, ledger_sql.ACCEPT, values)
    else:
        connection.execute(ledger_sql.JOIN_BY_HASH)
        found = execute_directly(connection, ledger_sql.ACCEPT_MANY, values)
        connection.execute(ledger_sql.JOIN_BY_ID)
    by_position = {new.position: new for new in notifications}
    return {row.position: _inserted(by_position[row.position], row) for row in found}


def _explain(
    connection: Connection,
    personal_data: PersonalData,
    missing: Sequence[NewNotification],
    faults: Mapping[int, Fault],
) -> dict[int, Acceptance]:
    """Answers for messages that were not inserted: a duplicate of an earlier message, another content under a
    taken key, or one of `faults`. There is no answer if the key has become free: the message is inserted again."""
    if not missing:
        return {}
    wanted = [{"producer": new.key_owner, "key": new.message.key} for new in missing]
    found = connection.execute(ledger_sql.FIND_KEYS, {"rows": as_json(wanted), "test": TEST_KEYS})
    earlier = {(row.producer, row.key): row for row in found}
    answers = {}
    duplicates = []
    for new in missing:
        first = earlier.get((new.key_owner, new.message.key))
        # A duplicate gets the answer of the first message, even if what it names has been deleted since.
        if first is None or (first.id_taken and first.notification_id != new.message.id):
            # Another message with a taken id had this key; the key is free again, or will be at once.
            if new.position in faults:
                answers[new.position] = _not_inserted(new, _NO_ID, faults[new.position])
            continue
        fault = _conflict(personal_data, new, first)
        answers[new.position] = _not_inserted(new, first.notification_id, fault)
        if fault is None:
            again = "the broker delivered it again, or the intake took it in again"
            detail = again if new.redelivered else "the producer sent it again"
            duplicates.append((first.notification_id, new.note or detail))
    # Keys of messages that were refused because their id was taken are free again.
    free = [
        {"producer": row.producer, "key": row.key, "id": str(row.notification_id)}
        for row in earlier.values()
        if row.id_taken
    ]
    if free:
        connection.execute(ledger_sql.FORGET_KEYS, {"rows": as_json(free)})
    if duplicates:
        _note_duplicates(connection, duplicates)
    return answers


def _note_duplicates(connection: Connection, found: Sequence[tuple[UUID, str]]) -> None:
    """Write events for (notification, detail), up to the limit for each notification: a producer may repeat a
    message without end. If two sessions note the last event at the same time, there is one too many."""
    ids = list({id_ for id_, _ in found})
    rows = connection.execute(_COUNT_DUPLICATES, {"ids": ids, "limit": LISTED_DUPLICATES})
    listed: dict[UUID, int] = {row.id: row.listed for row in rows}
    wanted = []
    for id_, detail in found:
        listed[id_] += 1
        if listed[id_] <= LISTED_DUPLICATES:
            is_last = listed[id_] == LISTED_DUPLICATES
            more = "; later repetitions are not listed" if is_last else ""
            wanted.append({"id": str(id_), "detail": f"{detail}{more}"})
    if wanted:
        connection.execute(_NOTE_DUPLICATES, {"rows": as_json(wanted)})


# Finds the events of each notification by their key, and reads no more of them than the limit.
_COUNT_DUPLICATES: TextClause = text("""
SELECT w.id, (SELECT count(*) FROM (
  SELECT FROM events AS e WHERE e.notification_id = w.id AND e.kind = 'duplicate' LIMIT :limit) AS few) AS listed
FROM unnest(:ids) AS w(id)
""").bindparams(binds.IDS)

_NOTE_DUPLICATES: TextClause = text("""
INSERT INTO events (notification_id, kind, detail)
SELECT id, 'duplicate', detail FROM json_to_recordset(CAST(:rows AS json)) AS r(id uuid, detail text)
""")


def _conflict(personal_data: PersonalData, new: NewNotification, first: Row[Any]) -> Fault | None:
    """Why `new` does not repeat the first message with its key. None: it repeats it."""
    if first.id_taken:
        return id_in_use()
    if personal_data.is_same_body(new.message, bytes(first.body_hash)):
        return None
    return another_content("id" if new.message.idempotency_key is None else "idempotency_key")


def id_in_use() -> Fault:
    """The fault of an id under which another message, with a key of its own, was accepted."""
    return Fault("id", "id_in_use", "another notification has this id", "Make a new UUIDv7 for each message")


def another_content(field: str) -> Fault:
    """The fault of a key under which another message was accepted; `field` is the field that holds the key."""
    return Fault(
        field,
        "idempotency_conflict",
        "was used before with another content",
        "Use a new key for a new message; repeat a message unchanged",
    )


def _inserted(new: NewNotification, row: Any) -> Acceptance:
    return Acceptance(new.position, row.id, new.channel, new.lane, Status(row.status))


def _not_inserted(new: NewNotification, id_: UUID, fault: Fault | None) -> Acceptance:
    return Acceptance(position=new.position, id=id_, channel=new.channel, lane=new.lane, status=None, fault=fault)


def _row(personal_data: PersonalData, new: NewNotification, notification_id: UUID) -> dict[str, Any]:
    """The columns of its row that are not NULL: a column that is missing from the JSON is NULL."""
    message = new.message
    content = message.content()
    row = {name: value for name, value in content.items() if name not in _PUT_AWAY}
    row |= {
        "position": new.position,
        "id": str(notification_id),
        "key": message.key,
        "body_hash": personal_data.body_hash(message, content).hex(),
        "channel": new.channel,
        "lane": new.lane,
        "template_version": new.template_version,
        "on_unknown": new.on_unknown,
        "proof": new.proof,
        "redispatch": REDISPATCH_SECONDS[new.lane],
    }
    try:
        person = Person(message.to, message.context)
        row |= personal_data.put_away(notification_id, new.channel, person, new.secret_names)
    except ValueError:
        # JSON cannot hold this value, so Postgres refuses this row, and no other.
        row |= {"recipient": message.to, "context": message.context}
    if message.attachments:
        row["attachments"] = content["attachments"]
    traceparent = new.traceparent or message.traceparent
    if traceparent is not None:
        row["traceparent"] = traceparent
    if new.sent_by is not None:
        row["sent_by"] = storable(new.sent_by)
    if new.note is not None:
        row["note"] = storable(new.note)
    if new.callback_statuses is not None:
        row["callback_statuses"] = new.callback_statuses
    if new.is_test:
        row |= {"is_test": True, "key_owner": new.key_owner}
    return row


def _rejected_row(personal_data: PersonalData, rejection: NewRejection, id_: UUID) -> dict[str, Any]:
    return {
        "id": id_,
        "queue": rejection.queue,
        "producer": rejection.producer,
        "broker_user": storable(rejection.broker_user),
        "body_size": len(rejection.body) if rejection.size is None else rejection.size,
        "entry": rejection.entry,
        "faults": as_json(storable([fault.as_dict() for fault in rejection.faults])),
        "redelivered": rejection.redelivered,
    } | personal_data.put_away_rejected(id_, rejection.body[:KEPT_BODY_BYTES], storable(rejection.headers))
