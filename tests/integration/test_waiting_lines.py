"""Who waits under a rate limit: how often it asks, which lane comes first, and what is left of a line.

The repository is real; the clock of the slot is moved, so that nobody waits.
"""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pytest
from sqlalchemy import Engine, text

from notifier.delivery.rate_limiter import AHEAD_SECONDS, PATIENCE_SECONDS, SLACK
from notifier.domain.statuses import Lane
from notifier.store.engine import make_engine, transaction
from notifier.store.rate_limits import IDLE_SECONDS, RateLimitRepository, Turn, TurnRequest

#: Turns a second of every limit here.
RATE = 10
#: In any second; what the machine takes between a question and its answer is not known.
AT_MOST = RATE + 1
#: Ids in a task.
BATCH = 100


@dataclass(eq=False)
class Waiter:
    lane: Lane
    #: Seconds from the beginning.
    born: float = 0.0
    due: float = 0.0
    asked: int = 0
    #: When its turn began.
    turn: float | None = None


@dataclass
class Line:
    """Those that ask for turns of one scope, each second those that are due, as the sweep sends them."""

    engine: Engine
    repository: RateLimitRepository
    waiters: list[Waiter] = field(default_factory=list)
    begun: float = field(default_factory=time.monotonic)
    #: Seconds by which the clock was moved.
    moved: float = 0.0

    @property
    def now(self) -> float:
        """Seconds from the beginning."""
        return time.monotonic() - self.begun + self.moved

    def come(self, count: int, lane: Lane) -> list[Waiter]:
        new = [Waiter(lane, born=self.now, due=self.now) for _ in range(count)]
        self.waiters += new
        return new

    def take(self, requests: Sequence[TurnRequest], lane: Lane = Lane.NORMAL, rate: float = RATE) -> list[Turn]:
        ahead = AHEAD_SECONDS[lane]
        return self.repository.take_turns_of_lane(
            "p", lane, requests, per_second=rate * SLACK, at_most_seconds=ahead
        )

    def tick(self, seconds: float = 1.0) -> None:
        """Bulk asks first: the worst order."""
        due = [one for one in self.waiters if one.turn is None and one.due <= self.now]
        for lane in (Lane.BULK, Lane.NORMAL, Lane.URGENT):
            ones = [one for one in due if one.lane is lane]
            for begin in range(0, len(ones), BATCH):
                self.ask(ones[begin : begin + BATCH], lane)
        self.pass_time(seconds)

    def ask(self, ones: Sequence[Waiter], lane: Lane) -> None:
        now = self.now
        requests = [
            TurnRequest(1, has_waited=one.asked > 0, patience=max(PATIENCE_SECONDS[0], now - one.born))
            for one in ones
        ]
        found = self.take(requests, lane)
        now = self.now
        for one, turn in zip(ones, found, strict=True):
            one.asked += 1
            if turn.is_granted:
                one.turn = now + turn.in_seconds
            else:
                one.due = now + turn.in_seconds

    def pass_time(self, seconds: float) -> None:
        self.moved += seconds
        back = "{0} = {0} - make_interval(secs => :seconds)"
        columns = ("next_at", "urgent_until", "normal_until", "bulk_until")
        with transaction(self.engine) as connection:
            statement = f"UPDATE rate_slots SET {', '.join(map(back.format, columns))}"
            connection.execute(text(statement), {"seconds": seconds})

    def run(self, seconds: float) -> None:
        ends_at = self.now + seconds
        while self.now < ends_at and any(one.turn is None for one in self.waiters):
            self.tick()


@pytest.fixture
def line(database_url: str) -> Iterator[Line]:
    engine = make_engine(database_url, pool_size=2)
    yield Line(engine, RateLimitRepository(engine))
    engine.dispose()


def turns(waiters: Sequence[Waiter]) -> list[float]:
    return sorted(one.turn for one in waiters if one.turn is not None)


def busiest_second(moments: Sequence[float]) -> int:
    return max(bisect_left(moments, begin + 1) - index for index, begin in enumerate(moments))


def test_each_asks_about_twice_however_many_wait(line: Line) -> None:
    line.come(1000, Lane.NORMAL)
    line.run(200)
    asked = [one.asked for one in line.waiters]
    assert sum(asked) <= 2.3 * 1000
    assert max(asked) <= 5
    # All had a turn, about as fast as the limit allows and no faster.
    assert 1000 / RATE <= turns(line.waiters)[-1] <= 1000 / RATE * 1.25
    assert busiest_second(turns(line.waiters)) <= AT_MOST


def test_who_comes_later_stands_behind_those_that_wait(line: Line) -> None:
    first = line.come(300, Lane.NORMAL)
    line.tick()
    later = line.come(100, Lane.NORMAL)
    line.run(100)
    assert turns(later)[0] >= turns(first)[-30]


def test_urgent_finds_a_turn_at_once_whatever_bulk_waits_and_bulk_goes_on(line: Line) -> None:
    bulk = line.come(600, Lane.BULK)
    urgent: list[Waiter] = []
    for _ in range(20):
        urgent += line.come(1, Lane.URGENT)
        line.tick()
        line.tick()
    waits = [one.turn - one.born for one in urgent if one.turn is not None]
    assert len(waits) == 20
    # What bulk may hold, one interval, and what the machine takes.
    assert max(waits) <= AHEAD_SECONDS[Lane.BULK] + 1 / RATE + 0.25
    assert {one.asked for one in urgent} == {1}
    assert len(turns(line.waiters)) >= 0.8 * 40 * RATE
    assert busiest_second(turns(bulk + urgent)) <= AT_MOST


def test_normal_comes_before_bulk_and_bulk_after_it(line: Line) -> None:
    bulk = line.come(200, Lane.BULK)
    line.tick()
    normal = line.come(200, Lane.NORMAL)
    line.run(120)
    assert len(turns(normal)) == len(turns(bulk)) == 200
    overtook = sum(turn < turns(normal)[-1] for turn in turns(bulk))
    # What bulk had before normal came.
    assert overtook <= 2 * AHEAD_SECONDS[Lane.BULK] * RATE
    assert busiest_second(turns(bulk + normal)) <= AT_MOST


def test_more_urgent_ones_than_turns_leave_nothing_to_bulk_until_they_are_fewer(line: Line) -> None:
    urgent, bulk = line.come(100, Lane.URGENT), line.come(50, Lane.BULK)
    line.tick()
    line.run(60)
    assert len(turns(urgent)) == 100
    assert len(turns(bulk)) == 50
    assert max(one.asked for one in bulk) <= 6


def test_a_slow_limit_gives_urgent_the_next_turn(line: Line) -> None:
    (first, *_) = line.take([TurnRequest(1)] * 20, Lane.BULK, rate=0.2)
    assert first.is_granted
    (turn,) = line.take([TurnRequest(1)], Lane.URGENT, rate=0.2)
    assert not turn.is_granted
    assert turn.in_seconds <= 1 / 0.2 / SLACK
    line.pass_time(turn.in_seconds)
    # Bulk was there first, and leaves it.
    assert not line.take([TurnRequest(1, has_waited=True)], Lane.BULK, rate=0.2)[0].is_granted
    assert line.take([TurnRequest(1, has_waited=True)], Lane.URGENT, rate=0.2)[0].is_granted


def test_nobody_waits_behind_those_that_were_cancelled(line: Line) -> None:
    line.take([TurnRequest(1)] * 1000, Lane.URGENT)
    line.take([TurnRequest(1)] * 1000, Lane.BULK)
    line.pass_time(AHEAD_SECONDS[Lane.URGENT] + IDLE_SECONDS + 1)
    assert line.take([TurnRequest(1)], Lane.BULK)[0].is_granted
    assert line.take([TurnRequest(1)] * 30, Lane.BULK)[-1].in_seconds <= 5


def test_a_line_is_no_longer_than_its_people_are_patient(line: Line) -> None:
    impatient = line.take([TurnRequest(1, patience=20)] * 1000)
    assert max(turn.in_seconds for turn in impatient) <= 20
    without_place = sorted(turn.in_seconds for turn in impatient)[-700:]
    assert without_place[0] >= 10
    assert without_place[-1] - without_place[0] >= 3
    # Who has no place keeps nobody waiting.
    assert line.take([TurnRequest(1)])[0].in_seconds <= 21


def test_a_raised_limit_is_used_by_those_that_come_back(line: Line) -> None:
    line.take([TurnRequest(1)] * 200)
    line.pass_time(10)
    granted = [
        turn for turn in line.take([TurnRequest(1, has_waited=True)] * 100, rate=10 * RATE) if turn.is_granted
    ]
    assert len(granted) == 100


def test_workers_of_an_earlier_version_share_the_turns(line: Line) -> None:
    """They ask first come, first served, and know no lines."""
    bulk, moments = line.come(300, Lane.BULK), list[float]()
    for _ in range(20):
        old = line.repository.take_turns("p", [1] * 20, per_second=RATE * SLACK, at_most_seconds=1.0)
        now = line.now
        moments += [now + turn.in_seconds for turn in old if turn.is_granted]
        line.tick()
    assert moments
    assert turns(bulk)
    assert busiest_second(sorted(moments + turns(bulk))) <= AT_MOST
