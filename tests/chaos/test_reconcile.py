"""A judge who never finds anything proves nothing: each kind of broken promise is found."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

from chaos.load import Published
from chaos.reconcile import Findings, Row, reconcile
from notifier.domain.message import new_id
from notifier.domain.statuses import Channel, Lane

SENT = Row(
    status="sent",
    is_settled=True,
    on_unknown="resend",
    attempts=1,
    unknowns=0,
    history=("queued", "sending", "sent"),
)


def judge(
    row: Row | None,
    *,
    calls: int = 1,
    taken: int = 1,
    told: tuple[str, ...] = ("sent",),
    rejected: bool = False,
    gone: bool = False,
) -> Findings:
    message = Published(new_id(), Channel.EMAIL, Lane.URGENT, "ann@example.com", 1, confirmed=True)
    return reconcile(
        [message],
        {} if row is None else {message.id: row},
        str(message.id) if rejected else "",
        Counter({message.to: calls}),
        Counter({message.to: taken}),
        {message.id: set(told)},
        may_be_gone=gone,
    )


def broken(found: Findings) -> tuple[int, int, int, int]:
    return found.lost, found.unrecorded_duplicates, found.unrecorded_calls, found.unlawful


def test_a_message_that_was_sent_once_is_right() -> None:
    found = judge(SENT)
    assert broken(found) == (0, 0, 0, 0)
    assert (found.messages, found.provider_calls, found.suspects) == (1, 1, [])


def test_a_status_that_the_producer_was_not_told_of_is_found() -> None:
    arrived = replace(SENT, status="delivered", history=(*SENT.history, "delivered"))
    found = judge(arrived, told=("sent",))
    assert (broken(found), found.told, found.untold, len(found.suspects)) == ((0, 0, 0, 0), 1, 1, 1)
    assert judge(arrived, told=("sent", "delivered")).untold == 0
    assert judge(replace(arrived, telling=("delivered",)), told=("sent",)).untold == 0


def test_a_message_that_is_nowhere_is_lost() -> None:
    assert broken(judge(None, calls=0, taken=0)) == (1, 0, 0, 0)


def test_a_rejected_message_is_not_lost() -> None:
    assert broken(judge(None, calls=0, taken=0, rejected=True)) == (0, 0, 0, 0)


def test_a_message_that_never_comes_to_rest_is_lost() -> None:
    found = judge(
        replace(SENT, status="queued", is_settled=False, attempts=0, history=("queued",)), calls=0, taken=0
    )
    assert broken(found) == (1, 0, 0, 0)
    assert found.unsettled == 1


def test_what_the_emptied_broker_held_alone_is_counted_apart() -> None:
    found = judge(None, calls=0, taken=0, gone=True)
    assert broken(found) == (0, 0, 0, 0)
    assert found.gone_with_broker == 1


def test_a_second_copy_without_an_unknown_attempt_is_found() -> None:
    assert broken(judge(replace(SENT, attempts=2), calls=2, taken=2)) == (0, 1, 0, 0)


def test_a_second_copy_after_an_unknown_attempt_is_recorded() -> None:
    found = judge(replace(SENT, attempts=2, unknowns=1), calls=2, taken=2)
    assert broken(found) == (0, 0, 0, 0)
    assert found.unknowns == 1


def test_with_hold_a_second_copy_is_never_right() -> None:
    row = replace(SENT, on_unknown="hold", attempts=2, unknowns=1)
    assert broken(judge(row, calls=2, taken=2)) == (0, 1, 0, 0)


def test_a_call_without_an_attempt_in_the_record_is_found() -> None:
    found = judge(SENT, calls=2, taken=1)
    assert broken(found) == (0, 0, 1, 0)
    assert len(found.suspects) == 1


def test_a_step_that_is_not_in_the_table_is_found() -> None:
    assert broken(judge(replace(SENT, history=("queued", "sent", "sending")))) == (0, 0, 0, 1)
