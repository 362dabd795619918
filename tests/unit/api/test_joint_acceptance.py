"""Messages that wait at once are accepted together, and each request gets its own answer."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pytest

from notifier.api.errors import Refusal
from notifier.api.joint_acceptance import MAX_BATCH_BYTES, JointAcceptance, Read
from notifier.domain.errors import ServiceUnavailable
from notifier.domain.message import Message, new_id
from notifier.domain.producers import Origin, ProducerProof
from notifier.intake.batch import BATCH_SIZE, IntakeAnswer
from tests.waiting import patient, wait_until

NOW = datetime(2026, 1, 1, tzinfo=UTC)


class Intake:
    """Accepts everything, once it is let go."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        self.batches: list[list[tuple[str | None, bool]]] = []
        self.failure: Exception | None = None
        #: Keys of messages that are not recorded.
        self.unrecorded: set[str] = set()

    def now(self) -> datetime:
        return NOW

    def answer_each(self, messages: Sequence[tuple[Message, Origin]]) -> list[IntakeAnswer | ServiceUnavailable]:
        self.batches.append([(message.idempotency_key, origin.is_test) for message, origin in messages])
        self.begun.set()
        assert self.go.wait(patient(10))
        if self.failure is not None:
            raise self.failure
        return [
            ServiceUnavailable("away")
            if message.idempotency_key in self.unrecorded
            else IntakeAnswer(message.id, False)
            for message, _ in messages
        ]


@pytest.fixture
def intake() -> Iterator[Intake]:
    found = Intake()
    yield found
    found.go.set()


def message(key: str) -> Message:
    return Message(
        producer="shop", to="ann@example.com", template="hello", context={}, idempotency_key=key, id=new_id()
    )


def reading(one: Message) -> Read:
    def read(now: datetime) -> Message:
        assert now == NOW
        return one

    return read


def refusing(_: datetime) -> Message:
    raise Refusal(422, "no")


Sent = tuple[Read, int, str, bool]


def sent(key: str, *, size: int = 100, key_id: str = "shop", is_test: bool = False) -> Sent:
    return reading(message(key)), size, key_id, is_test


async def _send(joint: JointAcceptance, one: Sent) -> IntakeAnswer:
    read, size, key_id, is_test = one
    return await joint.accept(read, size, key_id=key_id, origin=Origin(ProducerProof.API_KEY, is_test=is_test))


def together(intake: Intake, later: Sequence[Sent]) -> list[IntakeAnswer | BaseException]:
    """Send one, and while that is written `later`. Returns the answers to `later`."""
    joint = JointAcceptance(intake)  # type: ignore[arg-type]

    async def run() -> list[IntakeAnswer | BaseException]:
        first = asyncio.create_task(_send(joint, sent("first")))
        await asyncio.to_thread(intake.begun.wait, patient(10))
        tasks = [asyncio.create_task(_send(joint, one)) for one in later]
        # All of them are put before anything else runs.
        await asyncio.sleep(0)
        intake.go.set()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert (await first).id is not None
        return answers

    try:
        return asyncio.run(run())
    finally:
        joint.close()


def test_the_first_waits_for_nobody_and_what_comes_meanwhile_is_one_batch(intake: Intake) -> None:
    answers = together(intake, [sent("a"), sent("b", is_test=True), sent("c", key_id="bank")])
    assert intake.batches == [[("first", False)], [("a", False), ("b", True), ("c", False)]]
    ids = [answer.id for answer in answers if isinstance(answer, IntakeAnswer)]
    assert len(set(ids)) == 3
    assert None not in ids


def test_what_is_refused_or_not_recorded_fails_alone(intake: Intake) -> None:
    intake.unrecorded = {"b"}
    answers = together(intake, [sent("a"), (refusing, 100, "shop", False), sent("b"), sent("c")])
    assert [type(answer) for answer in answers] == [IntakeAnswer, Refusal, ServiceUnavailable, IntakeAnswer]
    assert intake.batches[1] == [("a", False), ("b", False), ("c", False)]


def test_a_batch_that_is_refused_as_a_whole_is_not_written(intake: Intake) -> None:
    answers = together(intake, [(refusing, 100, "shop", False)] * 3)
    assert [type(answer) for answer in answers] == [Refusal] * 3
    assert len(intake.batches) == 1


def test_a_failure_of_all_is_told_to_all_and_the_next_are_accepted(intake: Intake) -> None:
    joint = JointAcceptance(intake)  # type: ignore[arg-type]
    intake.go.set()
    intake.failure = RuntimeError("a fault of ours")

    async def run() -> IntakeAnswer:
        with pytest.raises(RuntimeError, match="a fault of ours"):
            await _send(joint, sent("a"))
        intake.failure = None
        return await _send(joint, sent("b"))

    assert asyncio.run(run()).id is not None
    joint.close()


def test_a_batch_has_a_most_of_messages_and_bytes(intake: Intake) -> None:
    # Of several keys, so that no share of one is reached.
    many = [sent(str(number), key_id=str(number % 3)) for number in range(BATCH_SIZE + 5)]
    together(intake, many)
    assert [len(batch) for batch in intake.batches] == [1, BATCH_SIZE, 5]
    intake.batches.clear()
    intake.begun.clear()
    intake.go.clear()
    together(intake, [sent("a"), sent("b", size=MAX_BATCH_BYTES), sent("c"), sent("d")])
    assert [[key for key, _ in batch] for batch in intake.batches] == [["first"], ["a", "b"], ["c", "d"]]


def test_one_key_fills_no_batch(intake: Intake) -> None:
    many = [sent(str(number), key_id="busy") for number in range(BATCH_SIZE)]
    together(intake, [*many, sent("other", key_id="calm")])
    assert len(intake.batches[1]) == BATCH_SIZE // 2 + 1
    assert ("other", False) in intake.batches[1]


def test_a_request_that_is_cut_off_keeps_nobody_waiting(intake: Intake) -> None:
    joint = JointAcceptance(intake)  # type: ignore[arg-type]

    async def run() -> None:
        task = asyncio.create_task(_send(joint, sent("a")))
        await asyncio.to_thread(intake.begun.wait, patient(10))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        intake.go.set()
        assert (await _send(joint, sent("b"))).id is not None

    asyncio.run(run())
    joint.close()
    wait_until(lambda: len(intake.batches) == 2)


def test_an_event_loop_that_is_gone_is_no_harm(intake: Intake) -> None:
    joint = JointAcceptance(intake)  # type: ignore[arg-type]

    async def leave() -> None:
        asyncio.create_task(_send(joint, sent("a")))  # noqa: RUF006 - it ends with its loop
        await asyncio.to_thread(intake.begun.wait, patient(10))

    asyncio.run(leave())
    intake.go.set()
    assert asyncio.run(_send(joint, sent("b"))).id is not None
    joint.close()


def test_at_the_end_what_waits_is_written(intake: Intake) -> None:
    joint = JointAcceptance(intake)  # type: ignore[arg-type]

    async def run() -> IntakeAnswer:
        task = asyncio.create_task(_send(joint, sent("a")))
        await asyncio.to_thread(intake.begun.wait, patient(10))
        later = asyncio.create_task(_send(joint, sent("b")))
        await asyncio.sleep(0)
        intake.go.set()
        await asyncio.to_thread(joint.close)
        await task
        return await later

    assert asyncio.run(run()).id is not None
