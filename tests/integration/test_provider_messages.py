"""One message of a provider belongs to one attempt: on a real Postgres, with the local Twilio, over sockets."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from random import Random
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.exc import IntegrityError

from notifier.dev.twilio_server import TwilioServer, running_twilio_server
from notifier.domain.message import new_id
from notifier.domain.statuses import MessageProof, OnUnknown
from notifier.providers.base import Receipt
from notifier.store.engine import make_engine, transaction
from notifier.store.provider_messages import MessageAssignment, assign_message, note_taken, with_retries
from notifier.store.provider_reports import RecordedReport
from tests.profiles import is_full
from tests.support.equal_texts import NOT_TAKEN, TAKEN, EqualTexts, Fate, One

NUMBER = "+15550100123"
PAIRS = 200 if is_full() else 50


@pytest.fixture
def world(database_url: str, tmp_path: Path) -> Iterator[EqualTexts]:
    engine = make_engine(database_url, pool_size=12)
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    with running_twilio_server(TwilioServer(callback_delay_seconds=3600)) as server:
        world = EqualTexts(engine, server, loop, tmp_path, Random(7))
        yield world
        world.close()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
    engine.dispose()


def make(world: EqualTexts, *fates: Fate, policy: OnUnknown = OnUnknown.HOLD) -> list[One]:
    ones = [One(NUMBER, fate) for fate in fates]
    world.send(ones, [policy])
    return ones


def guess(world: EqualTexts, one: One, sid: str) -> bool:
    """Write what a look-up would."""
    result = world.answer_of(One(one.to, one.fate, one.claim, Receipt(sid)))
    return world.texts.ledger.attribute(replace(result, proof=MessageProof.LOOK_UP))


def at_once(*work: Callable[[], object]) -> None:
    failures: list[BaseException] = []

    def run(each: Callable[[], object]) -> None:
        try:
            each()
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(each,)) for each in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures, failures[0]


def test_no_message_stands_on_two_of_many_pairs_of_equal_texts(world: EqualTexts) -> None:
    """Workers die, answers come late, reports cross look-ups, and tasks run twice, in two threads."""
    rng = world.rng
    ones: list[One] = []
    for number in range(PAIRS):
        pair = [One(f"+1555010{number:04d}", rng.choice(fates)) for fates in (TAKEN, NOT_TAKEN)]
        rng.shuffle(pair)
        ones += pair
    world.send(ones, list(OnUnknown))
    messages = world.server.messages
    assert len(messages) == PAIRS
    early, late = messages[: PAIRS // 2], messages[PAIRS // 2 :]

    def look_up(seed: int, share: int = 1) -> Callable[[], None]:
        mine = Random(seed).sample(ones, len(ones) // share)
        worker, ids = world.reconciler(), [one.id for one in mine]

        def ask() -> None:
            for first in range(0, len(ids), 20):
                worker.reconcile(ids[first : first + 20])

        return ask

    def report(some: Sequence[Any], *words: str) -> Callable[[], None]:
        def send() -> None:
            for each in some:
                for word in words:
                    world.report(each, word)

        return send

    def answer() -> None:
        for one in ones:
            if one.fate is Fate.LATE:
                world.texts.ledger.finish([world.answer_of(one)])

    at_once(
        look_up(1), look_up(2, share=2), report(early, "sent", "delivered"), report(early[::-1], "sent"), answer
    )
    assert all(len(owners) == 1 for owners in world.owners().values())
    # Those for which it was too early, and those that lost their messages, are due.
    at_once(look_up(3, share=6), report(late, "delivered"), report(late[::-1], "sent"))
    owners = world.owners()
    assert {sid: len(found) for sid, found in owners.items()} == {message.sid: 1 for message in messages}
    for one in ones:
        status = world.texts.status(one.id)
        if one.fate.is_taken:
            [message] = world.messages_of(one)
            assert (status, owners[message.sid]) == ("delivered", {one.id})
        else:
            assert status in ("unknown", "retrying"), (one.fate, status)


def test_two_that_wait_for_one_message_are_left_to_the_policy(world: EqualTexts) -> None:
    ones = make(world, Fate.LOST, Fate.REFUSED)
    ids = [one.id for one in ones]
    assert world.reconciler().reconcile(ids) == 0
    for id_ in ids:
        note = world.texts.story(id_).notification
        assert (note.status, note.due_at) == ("unknown", None)
        assert "cannot be attributed" in (note.detail or "")
    [message] = world.server.messages
    world.report(message, "delivered")
    assert [world.texts.status(id_) for id_ in ids] == ["delivered", "unknown"]


def test_two_that_wait_for_two_messages_have_one_each(world: EqualTexts) -> None:
    ones = make(world, Fate.LOST, Fate.KILLED_AFTER)
    assert world.reconciler().reconcile([one.id for one in ones]) == 2
    assert {len(owners) for owners in world.owners().values()} == {1}
    assert [world.texts.story(one.id).attempts[0].proof for one in ones] == ["look_up", "look_up"]


def test_other_words_to_the_same_number_do_not_count(world: EqualTexts) -> None:
    [one] = make(world, Fate.LOST)
    [other] = world.texts.start(to=NUMBER, context={"code": "0815"})
    assert world.reconciler().reconcile([one.id]) == 1
    assert world.texts.status(other.id) == "sending"


def test_a_call_that_is_under_way_is_waited_for(world: EqualTexts) -> None:
    late, lost = make(world, Fate.LATE, Fate.REFUSED)
    assert world.reconciler().reconcile([lost.id]) == 0
    story = world.texts.story(lost.id).notification
    assert (story.status, story.due_at is not None) == ("unknown", True)
    world.texts.ledger.finish([world.answer_of(late)])
    assert world.reconciler().reconcile([lost.id]) == 0
    assert (world.texts.status(late.id), world.texts.status(lost.id)) == ("sent", "unknown")
    assert "does not have it" in str(world.texts.story(lost.id).notification.detail)


def test_an_answer_that_comes_late_takes_its_message_from_a_guess(world: EqualTexts) -> None:
    late, wrong = make(world, Fate.LATE, Fate.REFUSED)
    wrong.receipt = late.receipt
    assert late.receipt is not None
    assert guess(world, wrong, late.receipt.provider_message_id)
    assert world.texts.status(wrong.id) == "sent"
    world.texts.ledger.finish([world.answer_of(late)])
    assert [world.texts.status(one.id) for one in (late, wrong)] == ["sent", "unknown"]
    story = world.texts.story(wrong.id)
    assert (story.attempts[0].outcome, story.attempts[0].provider_message_id) == ("unknown", None)
    assert story.notification.due_at is not None
    [event] = [event for event in story.events if event.kind == "provider_message"]
    assert (event.status, event.attempt) == ("unknown", 1)
    assert "another attempt's" in str(event.detail)
    # What was said of the other message says nothing of its own one.
    assert world.texts.story(late.id).attempts[0].proof == "answer"


def test_crossed_guesses_are_put_right_by_their_reports_in_either_order(world: EqualTexts) -> None:
    for turn in (1, -1):
        ones = make(world, Fate.LOST, Fate.LOST)
        sids = [world.messages_of(one)[0].sid for one in ones]
        for one, sid in zip(ones, reversed(sids), strict=True):
            assert guess(world, one, sid)
            # As if we had asked how that message ended.
            world.texts.report(one.id, "delivered", sid=sid, is_proof=False)
        messages = [world.messages_of(one)[0] for one in ones][::turn]
        for message in messages:
            world.report(message, "sent")
        assert [world.texts.status(one.id) for one in ones] == ["sent", "sent"]
        at_once(*(lambda message=message: world.report(message, "delivered") for message in messages))
        assert [world.texts.status(one.id) for one in ones] == ["delivered", "delivered"]
        owners = world.owners()
        assert [owners[sid] for sid in sids] == [{one.id} for one in ones]


def test_crossed_reports_at_once_do_not_lock_each_other_up(world: EqualTexts) -> None:
    pairs = []
    for _ in range(15):
        ones = make(world, Fate.LOST, Fate.LOST)
        pairs.append(ones)
        for one, other in zip(ones, reversed(ones), strict=True):
            assert guess(world, one, world.messages_of(other)[0].sid)
    everyone = [one for ones in pairs for one in ones]
    truth = {one.id: world.messages_of(one)[0] for one in everyone}
    at_once(
        *(
            lambda some=some: [world.report(truth[one.id], "delivered") for one in some]
            for some in (everyone, everyone[::-1], everyone[1::2] + everyone[::2])
        )
    )
    owners = world.owners()
    assert all(owners[message.sid] == {id_} for id_, message in truth.items())
    assert {world.texts.status(one.id) for one in everyone} == {"delivered"}


def test_what_has_proof_is_not_displaced(world: EqualTexts) -> None:
    first, second = make(world, Fate.ANSWERED, Fate.REFUSED)
    assert first.receipt is not None
    sid = first.receipt.provider_message_id
    recorded = world.texts.report(second.id, "delivered", sid=sid, id_space="twilio")
    assert recorded is RecordedReport.NOTED
    assert [world.texts.status(one.id) for one in (first, second)] == ["sent", "unknown"]
    assert "not counted" in world.texts.said(second.id)[0]
    # Nor by a second call that is answered with the same message.
    second.receipt = first.receipt
    world.texts.ledger.finish([world.answer_of(second)])
    story = world.texts.story(second.id)
    assert (story.notification.status, story.attempts[0].provider_message_id) == ("unknown", None)
    assert world.owners() == {sid: {first.id}}


def test_a_question_about_a_message_that_went_to_another_attempt_moves_nothing(world: EqualTexts) -> None:
    first, second = make(world, Fate.LOST, Fate.REFUSED)
    [message] = world.messages_of(first)
    second.receipt = first.receipt
    assert guess(world, second, message.sid)
    world.report(message, "sent")
    # It was asked while the message was still taken for its own.
    recorded = world.texts.report(second.id, "delivered", sid=message.sid, is_proof=False)
    assert recorded is RecordedReport.UNKNOWN
    assert world.texts.status(second.id) == "unknown"


def test_what_lost_its_secrets_is_held_and_never_sent_again(world: EqualTexts) -> None:
    first, second = make(world, Fate.LOST, Fate.REFUSED, policy=OnUnknown.RESEND)
    world.texts.become(second.id, secret_names=["code"], has_secrets=True)
    [message] = world.messages_of(first)
    second.receipt = first.receipt
    assert guess(world, second, message.sid)
    world.report(message, "delivered")
    note = world.texts.story(second.id).notification
    assert (note.status, note.due_at) == ("unknown", None)
    assert "secrets were wiped" in (note.detail or "")
    assert second.claim is not None
    world.texts.ledger.settle_unknown([(second.id, second.claim.claim, True, "sent again")])
    assert world.texts.status(second.id) == "unknown"


def test_messages_of_before_the_table_are_known_from_the_attempts(world: EqualTexts) -> None:
    """And a duplicate among them is put right by the first report."""
    first, second = make(world, Fate.LOST, Fate.REFUSED)
    [message] = world.messages_of(first)
    second.receipt = first.receipt
    assert guess(world, second, message.sid)
    with transaction(world.engine) as connection:
        connection.execute(text("DELETE FROM provider_messages"))
    assert world.reconciler().reconcile([first.id]) == 0
    assert world.texts.status(first.id) == "unknown"
    world.report(message, "delivered")
    assert [world.texts.status(one.id) for one in (first, second)] == ["delivered", "unknown"]


def test_the_database_refuses_a_second_attempt_for_a_message(world: EqualTexts) -> None:
    first, _ = make(world, Fate.ANSWERED, Fate.REFUSED)
    again = "SELECT id_space, provider_message_id, :id, 2, 'report' FROM provider_messages"
    query = f"INSERT INTO provider_messages {again}"
    with pytest.raises(IntegrityError), transaction(world.engine) as connection:
        connection.execute(text(query), {"id": first.id})


def test_nothing_is_given_to_an_attempt_that_was_deleted_meanwhile(world: EqualTexts) -> None:
    """Nobody would delete it any more."""
    wanted = MessageAssignment("twilio", "SM1", new_id(), 1, MessageProof.REPORT)
    assert not with_retries(world.texts.engine, lambda connection: assign_message(connection, wanted))
    with_retries(world.texts.engine, lambda connection: note_taken(connection, wanted))
    with transaction(world.texts.engine) as connection:
        for table in ("provider_messages", "events"):
            found = text(f"SELECT count(*) FROM {table} WHERE notification_id = :id")
            assert connection.execute(found, {"id": wanted.notification_id}).scalar_one() == 0
