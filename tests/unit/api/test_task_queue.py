"""What requests hand over is published together, and hurried when it cannot be."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any
from uuid import UUID

from notifier.api.task_queue import Handover
from notifier.domain.errors import ServiceUnavailable
from notifier.domain.message import new_id
from notifier.domain.statuses import Channel, Lane
from tests.waiting import patient


class Ledger:
    """Keeps what is hurried."""

    def __init__(self, *, is_away: bool = False) -> None:
        self.hurried: list[UUID] = []
        self.is_away = is_away

    def requeue_soon(self, ids: Sequence[UUID]) -> None:
        if self.is_away:
            raise ServiceUnavailable("away")
        self.hurried += ids


def test_what_waits_meanwhile_travels_in_one_task() -> None:
    begun, go = threading.Event(), threading.Event()
    published: list[Any] = []

    def publish(channel: Channel, lane: Lane, ids: Sequence[UUID]) -> None:
        begun.set()
        go.wait(patient(10))
        published.append((channel, lane, list(ids)))

    handover = Handover(publish, Ledger())  # type: ignore[arg-type]
    first, second, third, other = (new_id() for _ in range(4))
    handover.put(Channel.SMS, Lane.URGENT, [first])
    begun.wait(patient(10))
    handover.put(Channel.SMS, Lane.URGENT, [second])
    handover.put(Channel.EMAIL, Lane.BULK, [other])
    handover.put(Channel.SMS, Lane.URGENT, [third])
    go.set()
    handover.close()
    assert published == [
        (Channel.SMS, Lane.URGENT, [first]),
        (Channel.SMS, Lane.URGENT, [second, third]),
        (Channel.EMAIL, Lane.BULK, [other]),
    ]


def test_what_cannot_be_published_is_hurried_and_the_next_is_tried_again() -> None:
    answers = iter([OSError("no broker"), None])
    published: list[Any] = []

    def publish(channel: Channel, lane: Lane, ids: Sequence[UUID]) -> None:
        error = next(answers)
        if error:
            raise error
        published.extend(ids)

    ledger = Ledger()
    handover = Handover(publish, ledger)  # type: ignore[arg-type]
    first, second = new_id(), new_id()
    handover.put(Channel.SMS, Lane.URGENT, [first])
    handover.put(Channel.EMAIL, Lane.URGENT, [second])
    handover.close()
    assert (ledger.hurried, published) == ([first], [second])


def test_without_broker_and_database_it_goes_on() -> None:
    def publish(*_: Any) -> None:
        raise OSError("no broker")

    handover = Handover(publish, Ledger(is_away=True))  # type: ignore[arg-type]
    handover.put(Channel.SMS, Lane.URGENT, [new_id()])
    handover.close()


def test_what_follows_closely_gathers_until_something_urgent_comes_or_the_end() -> None:
    published: list[Any] = []
    is_published = threading.Event()

    def publish(channel: Channel, lane: Lane, ids: Sequence[UUID]) -> None:
        published.append((channel, lane, list(ids)))
        is_published.set()

    # Longer than the test may take.
    handover = Handover(publish, Ledger(), gather_seconds=1000)  # type: ignore[arg-type]
    first, second, third, code, last = (new_id() for _ in range(5))
    handover.put(Channel.EMAIL, Lane.NORMAL, [first])
    assert is_published.wait(patient(10))
    is_published.clear()
    handover.put(Channel.EMAIL, Lane.NORMAL, [second])
    handover.put(Channel.EMAIL, Lane.NORMAL, [third])
    handover.put(Channel.SMS, Lane.URGENT, [code])
    assert is_published.wait(patient(10))
    handover.put(Channel.EMAIL, Lane.NORMAL, [last])
    handover.close()
    assert published == [
        (Channel.EMAIL, Lane.NORMAL, [first]),
        (Channel.EMAIL, Lane.NORMAL, [second, third]),
        (Channel.SMS, Lane.URGENT, [code]),
        (Channel.EMAIL, Lane.NORMAL, [last]),
    ]
