"""Statements whose answer may be lost: how often they are repeated, and when no more."""

from __future__ import annotations

import time
from threading import Event, Timer

import pytest

from notifier.delivery.repeat import until_answered
from notifier.domain.errors import ServiceUnavailable


class Database:
    """Away for the first `tries`."""

    def __init__(self, away: int) -> None:
        self.away = away
        self.asked: list[bool] = []

    def work(self, again: bool) -> str:
        self.asked.append(again)
        if len(self.asked) <= self.away:
            raise ServiceUnavailable("away")
        return "done"


def test_it_is_repeated_until_it_is_answered() -> None:
    database = Database(away=1)
    assert until_answered(database.work, gives_up_at=time.monotonic() + 60, stop=Event()) == "done"
    assert database.asked == [False, True]


def test_it_is_given_up_at_its_time() -> None:
    database = Database(away=100)
    with pytest.raises(ServiceUnavailable):
        until_answered(database.work, gives_up_at=time.monotonic() - 1)
    assert database.asked == [False]


def test_it_is_tried_once_when_the_process_is_to_end() -> None:
    stop = Event()
    stop.set()
    assert until_answered(Database(away=0).work, gives_up_at=time.monotonic() + 60, stop=stop) == "done"
    database = Database(away=100)
    with pytest.raises(ServiceUnavailable):
        until_answered(database.work, gives_up_at=time.monotonic() + 60, stop=stop)
    assert database.asked == [False]


def test_a_pause_ends_when_the_process_is_to_end() -> None:
    stop, database = Event(), Database(away=100)
    begun = time.monotonic()
    Timer(0.1, stop.set).start()
    with pytest.raises(ServiceUnavailable):
        until_answered(database.work, gives_up_at=begun + 600, stop=stop)
    # All of its pauses would be more.
    assert time.monotonic() - begun < 30
    assert len(database.asked) <= 2
