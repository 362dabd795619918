"""Tasks that were handed over."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial

from notifier.delivery.late_answers import Delay, LateAnswers, Steps
from tests.waiting import patient, wait_until


class Call:
    """One call to a provider, over when `end` is called, or after `seconds`."""

    def __init__(self, provider: str = "first", seconds: float = 600.0) -> None:
        self.calls: Mapping[str, int] = {provider: 1}
        self.ends_at = time.monotonic() + seconds
        self._is_over = threading.Event()
        self._ready: Callable[[], None] = lambda: None

    @property
    def is_over(self) -> bool:
        return self._is_over.is_set() or time.monotonic() >= self.ends_at

    def wait(self) -> None:
        raise AssertionError("only its own thread waits for it")

    def tell(self, ready: Callable[[], None]) -> None:
        self._ready = ready
        if self.is_over:
            ready()

    def end(self) -> None:
        self._is_over.set()
        self._ready()


def wait_for(*awaited: Call | Delay, then: Callable[[], object]) -> Steps[None]:
    yield from awaited
    then()


@contextmanager
def closing(*, most: int = 10) -> Iterator[LateAnswers]:
    late = LateAnswers(most=most)
    yield late
    closes = threading.Thread(target=late.close)
    closes.start()
    closes.join(patient(10))
    assert not closes.is_alive()


def begin(late: LateAnswers, steps: Steps[None]) -> bool:
    return late.take(steps, next(steps))


def test_each_goes_on_when_its_call_is_over_and_all_in_one_thread() -> None:
    with closing(most=100) as late:
        calls = [Call() for _ in range(100)]
        ended: list[int] = []
        before = threading.active_count()
        for number, call in enumerate(calls):
            assert begin(late, wait_for(call, then=partial(ended.append, number)))
        assert threading.active_count() == before
        for number in (42, 7):
            calls[number].end()
            wait_until(partial(ended.__contains__, number))
        assert ended == [42, 7]
        for call in calls:
            call.end()
    assert sorted(ended) == list(range(100))


def test_a_provider_that_hangs_fills_its_own_share_and_no_other() -> None:
    with closing(most=2) as late:
        hanging = [Call("hangs") for _ in range(3)]
        ended: list[str] = []
        tasks = [wait_for(call, Call("other", 0.0), then=lambda: ended.append("hung")) for call in hanging]
        assert [begin(late, task) for task in tasks] == [True, True, False]
        well = Call("well")
        assert begin(late, wait_for(well, then=lambda: ended.append("well")))
        well.end()
        wait_until(lambda: ended == ["well"])
        # With the first that is over there is room again; it went on to another provider.
        hanging[0].end()
        wait_until(lambda: late.take(tasks[2], hanging[2]))
        for call in hanging:
            call.end()
    assert ended == ["well", "hung", "hung", "hung"]


def test_what_nobody_answers_ends_by_its_time_and_a_pause_holds_up_nobody() -> None:
    with closing() as late:
        ended: list[str] = []
        call, pause = Call(), Delay(600)
        assert begin(late, wait_for(Call(seconds=0.05), Delay(0.01), then=lambda: ended.append("unanswered")))
        assert begin(late, wait_for(call, pause, then=lambda: ended.append("paused")))
        call.end()
        wait_until(lambda: ended == ["unanswered"])
        pause.ends_at = 0.0
    assert ended == ["unanswered", "paused"]


def test_a_task_that_fails_takes_no_other_with_it() -> None:
    def fail() -> None:
        raise LookupError

    with closing(most=1) as late:
        ended: list[str] = []
        assert begin(late, wait_for(Call(seconds=0.0), then=fail))
        # Its room is free again.
        wait_until(lambda: begin(late, wait_for(Call(seconds=0.0), then=lambda: ended.append("well"))))
        wait_until(lambda: ended == ["well"])


def test_it_ends_when_all_have_ended_and_takes_no_more() -> None:
    late, call, ended = LateAnswers(most=10), Call(), list[str]()
    assert begin(late, wait_for(call, then=lambda: ended.append("well")))
    closes = threading.Thread(target=late.close)
    closes.start()
    wait_until(lambda: not begin(late, wait_for(Call("refused"), then=lambda: None)))
    assert closes.is_alive()
    call.end()
    closes.join(patient(10))
    assert not closes.is_alive()
    assert ended == ["well"]
