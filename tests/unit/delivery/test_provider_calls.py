"""Calls that are handed to a provider's queue."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from notifier.delivery import provider_calls
from notifier.delivery.delivery import Permit, RateLimit
from notifier.delivery.provider_calls import OpenCalls, ProviderCaller
from notifier.domain.errors import OutcomeUnknown, SendError, Unavailable
from notifier.domain.statuses import Channel, Lane, Outcome, Reason
from notifier.providers.base import Outgoing, QueuedCall, Receipt
from tests.waiting import patient

RECEIPT = Receipt("4711")


class Queueing:
    """Ends each call when it is told to, or `at_once`."""

    name = "queueing"
    channel = Channel.EMAIL

    def __init__(self, *, at_once: bool = True) -> None:
        self.at_once = at_once
        self.calls: list[QueuedCall] = []
        self.sent = 0

    def put(self, call: QueuedCall, *, deadline_seconds: float) -> None:
        self.calls.append(call)
        if self.at_once:
            call.end(call.begin() or RECEIPT)

    async def send(self, outgoing: Outgoing, *, deadline_seconds: float) -> Receipt:
        self.sent += 1
        return RECEIPT

    async def check(self, *, deadline_seconds: float) -> str:
        return "well"

    async def close(self) -> None:
        """Nothing is open."""


class Unlimited:
    """In place of the rate limiter: nobody waits."""

    async def wait(self, permit: Permit) -> None:
        """At once."""

    async def renew(self, permit: Permit) -> None:
        """At once."""


def make_caller(loop: asyncio.AbstractEventLoop, provider: Any, slots: int = 2) -> ProviderCaller:
    limiter: Any = Unlimited()
    return ProviderCaller(loop, {"queueing": provider}, limiter, slots=slots, deadline_seconds=patient(1))


def make_deliveries(count: int, permit: Permit | None = None, outgoing: Any = None) -> list[Any]:
    content = SimpleNamespace(outgoing=outgoing or (lambda number: number))
    return [
        SimpleNamespace(
            provider="queueing",
            content=content,
            attempt=SimpleNamespace(number=number),
            permit=permit or Permit(),
            notification=SimpleNamespace(id=number, log_ids={}),
            answer=None,
        )
        for number in range(count)
    ]


def groups(calls: OpenCalls) -> Iterator[list[Any]]:
    """As whoever drives a task does it."""
    while calls.are_open:
        assert calls.wait()
        yield calls.take()


def call(caller: ProviderCaller, deliveries: Sequence[Any], start_by: float | None = None) -> list[Any]:
    begin = time.monotonic() + 60 if start_by is None else start_by
    answered = [delivery for chunk in groups(caller.call(deliveries, start_by=begin)) for delivery in chunk]
    assert sorted(one.notification.id for one in answered) == [one.notification.id for one in deliveries]
    return [delivery.answer for delivery in deliveries]


def test_a_queue_gets_every_call_and_nobody_sends(loop: asyncio.AbstractEventLoop) -> None:
    provider = Queueing()
    assert call(make_caller(loop, provider), make_deliveries(20)) == [RECEIPT] * 20
    assert (len(provider.calls), provider.sent) == (20, 0)


def test_a_call_with_a_turn_under_a_rate_limit_is_sent_by_itself(loop: asyncio.AbstractEventLoop) -> None:
    provider = Queueing()
    permit = Permit(time.monotonic() + 60, ((RateLimit("provider:queueing", 10.0, Lane.NORMAL), 1),))
    assert call(make_caller(loop, provider), make_deliveries(3, permit)) == [RECEIPT] * 3
    assert (len(provider.calls), provider.sent) == (0, 3)


def test_a_queue_holds_no_more_calls_than_there_are_slots(loop: asyncio.AbstractEventLoop) -> None:
    provider = Queueing(at_once=False)
    answers = make_caller(loop, provider, slots=2).call(make_deliveries(5), start_by=time.monotonic() + 60)
    ended = 0
    while ended < 5:
        provider_has(provider, min(5, ended + 2))
        assert len(provider.calls) <= ended + 2
        loop.call_soon_threadsafe(provider.calls[ended].end, RECEIPT)
        ended += 1
    assert sum(len(chunk) for chunk in groups(answers)) == 5


def test_a_provider_that_does_not_answer_takes_no_slot_from_another(loop: asyncio.AbstractEventLoop) -> None:
    hanging, well = Queueing(at_once=False), Queueing()
    limiter: Any = Unlimited()
    both: Any = {"hanging": hanging, "queueing": well}
    caller = ProviderCaller(loop, both, limiter, slots=1, deadline_seconds=patient(1))
    others = make_deliveries(3)
    for one in others:
        one.provider = "hanging"
    waiting = caller.call(others, start_by=time.monotonic() + 60)
    provider_has(hanging, 1)
    assert call(caller, make_deliveries(3)) == [RECEIPT] * 3
    for number in range(3):
        provider_has(hanging, number + 1)
        loop.call_soon_threadsafe(hanging.calls[number].end, RECEIPT)
    assert sum(len(chunk) for chunk in groups(waiting)) == 3


def provider_has(provider: Queueing, count: int) -> None:
    gives_up_at = time.monotonic() + patient(10)
    while len(provider.calls) < count:
        assert time.monotonic() < gives_up_at
        time.sleep(0.001)


def test_a_call_that_comes_too_late_is_not_handed_over(loop: asyncio.AbstractEventLoop) -> None:
    provider = Queueing()
    (answer,) = call(make_caller(loop, provider), make_deliveries(1), start_by=time.monotonic() - 0.001)
    assert isinstance(answer, Unavailable)
    assert answer.reason is Reason.LEASE_EXPIRED
    assert provider.calls == []


def test_a_call_that_waited_too_long_in_the_queue_must_not_begin(loop: asyncio.AbstractEventLoop) -> None:
    provider = Queueing(at_once=False)
    answers = make_caller(loop, provider).call(make_deliveries(1), start_by=time.monotonic() + 60)
    provider_has(provider, 1)
    (queued,) = provider.calls
    assert queued.begin() is None
    queued.start_by = time.monotonic() - 0.001
    hindrance = queued.begin()
    assert isinstance(hindrance, Unavailable)
    loop.call_soon_threadsafe(queued.end, hindrance)
    assert [[one.answer for one in chunk] for chunk in groups(answers)] == [[hindrance]]


def test_a_provider_that_never_answers_costs_no_slot_for_ever(
    loop: asyncio.AbstractEventLoop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provider_calls, "MARGIN_SECONDS", patient(1))
    provider = Queueing(at_once=False)
    caller = ProviderCaller(
        loop,
        {"queueing": provider},  # type: ignore[dict-item]
        Unlimited(),  # type: ignore[arg-type]
        slots=2,
        deadline_seconds=0.1,
    )
    first, second, third = call(caller, make_deliveries(3), start_by=time.monotonic() + patient(0.2))
    assert isinstance(first, OutcomeUnknown)
    assert isinstance(second, OutcomeUnknown)
    assert third.reason is Reason.LEASE_EXPIRED
    # What is told afterwards is not heard, and the slots are free.
    loop.call_soon_threadsafe(provider.calls[0].end, RECEIPT)
    provider.at_once = True
    assert call(caller, make_deliveries(3)) == [RECEIPT] * 3


def test_a_call_that_its_provider_cannot_even_take_is_in_doubt_and_the_others_go_on(
    loop: asyncio.AbstractEventLoop,
) -> None:
    class Broken(Queueing):
        def put(self, call: QueuedCall, *, deadline_seconds: float) -> None:
            if not self.calls:
                self.calls.append(call)
                raise LookupError
            super().put(call, deadline_seconds=deadline_seconds)

    first, *others = call(make_caller(loop, Broken()), make_deliveries(5))
    assert isinstance(first, SendError)
    assert first.outcome is Outcome.UNKNOWN
    assert others == [RECEIPT] * 4
