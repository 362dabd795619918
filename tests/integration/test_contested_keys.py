"""Keys and ids that several messages want at once: each gets the true answer, and none waits for another."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest

from notifier.domain.errors import RowsHeld, ServiceUnavailable
from notifier.domain.message import Message, new_id
from notifier.domain.producers import Origin, ProducerProof
from notifier.domain.statuses import Channel, Lane
from notifier.intake.batch import IntakeAnswer, Received
from notifier.store import acceptance
from tests.support.api import Api
from tests.support.templates import write_templates
from tests.waiting import patient

HOLD = "INSERT INTO idempotency_keys (producer, key, body_hash, notification_id) VALUES (%s, %s, '', %s)"


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    api = Api(database_url, write_templates(tmp_path))
    yield api
    api.close()


@pytest.fixture
def other(database_url: str) -> Iterator[psycopg.Connection[Any]]:
    """Another session, within a transaction."""
    with psycopg.connect(database_url.replace("+psycopg", "")) as connection:
        yield connection
        connection.rollback()


def message(
    name: str = "Ann", *, key: str | None = None, id_: UUID | None = None, producer: str = "shop"
) -> Message:
    return Message(
        producer=producer,
        channel=Channel.EMAIL,
        lane=Lane.NORMAL,
        to="ann@example.com",
        template="hello",
        context={"name": name},
        idempotency_key=key,
        id=id_,
    )


def answers(api: Api, *messages: Message) -> list[IntakeAnswer | ServiceUnavailable]:
    return api.parts.intake.answer_each([(one, Origin(ProducerProof.API_KEY)) for one in messages])


def code(answer: IntakeAnswer | ServiceUnavailable) -> str:
    if isinstance(answer, ServiceUnavailable):
        return type(answer).__name__
    if answer.faults:
        return answer.faults[0].code
    return "replay" if answer.is_replay else "accepted"


def test_a_key_that_another_session_holds_keeps_no_other_message(api: Api, other: psycopg.Connection[Any]) -> None:
    held = [f"held{number}" for number in range(30)]
    for key in held:
        other.execute(HOLD, ["shop", key, new_id()])
    batch = [message(key=key) for key in held[:15]]
    batch += [message(key=f"free{number}", producer="bank") for number in range(5)]
    batch += [message(key=key) for key in held[15:]]
    begun = time.monotonic()
    found = [code(answer) for answer in answers(api, *batch)]
    # Of 30 keys of one producer it waits for two.
    assert time.monotonic() - begun < patient(10)
    assert found == ["RowsHeld"] * 15 + ["accepted"] * 5 + ["RowsHeld"] * 15
    other.rollback()
    assert [code(answer) for answer in answers(api, *batch)] == ["accepted"] * 15 + ["replay"] * 5 + [
        "accepted"
    ] * 15


def test_from_the_broker_the_others_are_recorded_first(api: Api, other: psycopg.Connection[Any]) -> None:
    other.execute(HOLD, ["shop", "held", new_id()])
    keys = ("one", "held", "two")
    bodies = [message(key=key).model_copy(update={"channel": None, "lane": None}).encode() for key in keys]
    batch = [Received(body, Channel.EMAIL, Lane.NORMAL) for body in bodies]
    with pytest.raises(RowsHeld):
        api.parts.intake.process(batch)
    assert [code(answer) for answer in answers(api, message(key="one"), message(key="two"))] == [
        "replay",
        "replay",
    ]
    other.rollback()
    summary = api.parts.intake.process(batch)
    assert (summary.accepted, summary.duplicates) == (1, 2)


def test_a_key_left_by_a_message_whose_id_was_taken_is_free(api: Api, other: psycopg.Connection[Any]) -> None:
    """As if another intake had got so far and no further."""
    taken = new_id()
    answers(api, message("first", id_=taken, key="owner"))
    for number in range(2):
        key = f"left{number}"
        other.execute(HOLD, ["shop", key, taken])
        other.commit()
        more = [message(key=f"more{number}-{place}") for place in range(20 * number)]
        assert {code(answer) for answer in answers(api, message(key=key), *more)} == {"accepted"}


def test_a_key_that_comes_free_meanwhile_is_taken(
    api: Api, other: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = new_id()
    answers(api, message("first", id_=taken, key="owner"))
    other.execute(HOLD, ["shop", "freed", taken])
    other.commit()
    explain = acceptance._explain

    def explain_later(*given: Any) -> Any:
        other.execute("DELETE FROM idempotency_keys WHERE key = 'freed'")
        other.commit()
        return explain(*given)

    monkeypatch.setattr(acceptance, "_explain", explain_later)
    assert code(answers(api, message("x", id_=taken, key="freed"))[0]) == "ServiceUnavailable"
    assert code(answers(api, message(key="freed"))[0]) == "accepted"


def test_a_key_that_another_message_has_by_now_is_not_forgotten(
    api: Api, other: psycopg.Connection[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken, good = new_id(), new_id()
    answers(api, message("first", id_=taken, key="owner"))
    conflict = acceptance._conflict

    def conflict_later(*given: Any) -> Any:
        other.execute("UPDATE idempotency_keys SET notification_id = %s WHERE key = 'wanted'", [good])
        other.commit()
        return conflict(*given)

    monkeypatch.setattr(acceptance, "_conflict", conflict_later)
    assert code(answers(api, message("x", id_=taken, key="wanted"))[0]) == "id_in_use"
    kept = other.execute("SELECT notification_id FROM idempotency_keys WHERE key = 'wanted'").fetchall()
    assert kept == [(good,)]


@pytest.mark.parametrize("test_first", [True, False])
def test_what_is_live_and_what_is_a_test_stay_apart_under_one_id(
    api: Api, other: psycopg.Connection[Any], test_first: bool
) -> None:
    for count in (1, 20):
        ids = [new_id() for _ in range(count)]
        pairs = [(message("TEST" if is_test else "LIVE", id_=id_), is_test) for id_ in ids for is_test in
                 (test_first, not test_first)]  # fmt: skip
        sent = [(one, Origin(ProducerProof.API_KEY, is_test=is_test)) for one, is_test in pairs]
        found = [code(answer) for answer in api.parts.intake.answer_each(sent)]
        rows = other.execute(
            "SELECT id, context->>'name' AS name, is_test FROM notifications WHERE id = ANY(%s)", [ids]
        ).fetchall()
        assert {(name == "TEST") == is_test for _, name, is_test in rows} == {True}
        kept = {(id_, is_test) for id_, _, is_test in rows}
        assert len(kept) == count
        assert [answer == "accepted" for answer in found] == [(one.id, is_test) in kept for one, is_test in pairs]


def test_ids_in_opposite_orders_of_their_keys_do_not_lock_up(api: Api, database_url: str, tmp_path: Path) -> None:
    second = Api(database_url, tmp_path)
    boxes = [[new_id() for _ in range(100)] for _ in range(15)]
    start = threading.Barrier(2)
    found: set[str] = set()

    def send(sender: Api, turn: int) -> None:
        for number, ids in enumerate(boxes):
            start.wait(patient(60))
            batch = [message(key=f"{turn}-{number}-{place:03}", id_=id_) for place, id_ in enumerate(ids[::turn])]
            try:
                found.update(str(answer.fault) for answer in sender.services.ledger.accept(rows_of(sender, batch)))
            except RowsHeld as held:
                found.add(str(held))

    threads = [threading.Thread(target=send, args=(api, 1)), threading.Thread(target=send, args=(second, -1))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    second.close()
    assert not [words for words in found if "holds the rows" in words]


def rows_of(api: Api, messages: list[Message]) -> list[Any]:
    intake = api.parts.intake
    return [
        intake._new(one, Channel.EMAIL, Lane.NORMAL, place, Origin(ProducerProof.API_KEY))
        for place, one in enumerate(messages)
    ]
