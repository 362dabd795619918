"""Rates, caps and quotas on a real Postgres, shared by several workers."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Engine

from notifier.domain.local_days import day_bounds, day_of
from notifier.store.engine import make_engine
from notifier.store.rate_limits import RateLimitRepository
from tests.waiting import patient


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url, pool_size=8)
    yield engine
    engine.dispose()


@pytest.fixture
def repository(engine: Engine) -> RateLimitRepository:
    return RateLimitRepository(engine)


def test_turns_follow_each_other_at_the_rate(repository: RateLimitRepository) -> None:
    turns = repository.take_turns("p", [1] * 20, per_second=10, at_most_seconds=1.0)
    granted = [turn.in_seconds for turn in turns if turn.is_granted]
    assert len(granted) == 11
    assert granted == pytest.approx([n / 10 for n in range(11)], abs=0.01)
    waiting = [turn.in_seconds for turn in turns if not turn.is_granted]
    assert waiting == pytest.approx([1.1 + n / 10 for n in range(9)], abs=0.01)


def test_the_next_to_ask_comes_after_the_last_one(repository: RateLimitRepository) -> None:
    begun = time.monotonic()
    repository.take_turns("p", [1] * 5, per_second=10, at_most_seconds=1.0)
    (turn,) = repository.take_turns("p", [1], per_second=10, at_most_seconds=1.0)
    passed = time.monotonic() - begun
    assert 0.5 - passed <= turn.in_seconds <= 0.5
    assert repository.take_turns("other", [1], per_second=10, at_most_seconds=1.0)[0].in_seconds == pytest.approx(
        0.0, abs=0.05
    )


def test_a_long_sms_counts_its_segments(repository: RateLimitRepository) -> None:
    turns = repository.take_turns("p", [3, 1], per_second=10, at_most_seconds=1.0)
    assert turns[1].in_seconds == pytest.approx(0.3, abs=0.01)


def test_three_workers_together_keep_to_fifty_a_second(repository: RateLimitRepository) -> None:
    """Each asks for batches as fast as it can; the moments that were handed out are what counts. On a busy machine
    nobody knows them better than between the question and the answer: what is surely within one second counts."""
    moments: list[tuple[float, float]] = []
    ends_at = time.monotonic() + 3.0

    def work() -> None:
        while (asked_at := time.monotonic()) < ends_at:
            turns = repository.take_turns("p", [1] * 7, per_second=50 * 0.97, at_most_seconds=1.0)
            late = time.monotonic() - asked_at
            granted = (asked_at + turn.in_seconds for turn in turns if turn.is_granted)
            moments.extend((moment, moment + late) for moment in granted)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    busiest = max(
        sum(start <= earliest and latest < start + 1 for earliest, latest in moments) for start, _ in moments
    )
    assert busiest <= 52
    assert len(moments) >= 130


def test_a_cap_lets_through_what_fits_and_no_more(repository: RateLimitRepository) -> None:
    uses = [repository.use("r", 1, cap=3, window_seconds=86_400) for _ in range(5)]
    assert [use.is_granted for use in uses] == [True, True, True, False, False]
    assert [use.used for use in uses] == [1, 2, 3, 3, 3]
    assert 0 < uses[-1].ends_in_seconds <= 86_400


def test_a_quota_ends_with_the_day_of_its_zone(repository: RateLimitRepository) -> None:
    for name in ("Asia/Shanghai", "America/New_York"):
        zone = ZoneInfo(name)
        now = repository.now()
        uses = [repository.use_of_day(name, 1, cap=1, zone=zone) for _ in range(2)]
        assert [use.is_granted for use in uses] == [True, False]
        ends_at = day_bounds(day_of(now, zone), zone)[1]
        # Unless midnight came in between.
        assert repository.now() >= ends_at or uses[0].ends_in_seconds == pytest.approx(
            (ends_at - now).total_seconds(), abs=patient(5)
        )


def test_a_day_in_utc_is_the_window_that_earlier_versions_count_in(repository: RateLimitRepository) -> None:
    def count_in_both() -> bool:
        before = repository.now().date()
        used = [
            repository.use(f"{before}", 1, cap=9, window_seconds=86_400).used,
            repository.use_of_day(f"{before}", 1, cap=9, zone=ZoneInfo("UTC")).used,
        ]
        return used == [1, 2] or repository.now().date() == before

    assert count_in_both()


def test_a_cap_holds_against_many_at_once(repository: RateLimitRepository) -> None:
    granted: list[bool] = []
    start = threading.Barrier(8)

    def use() -> None:
        start.wait(timeout=patient(30))
        granted.extend(repository.use("r", 1, cap=10, window_seconds=86_400).is_granted for _ in range(5))

    threads = [threading.Thread(target=use) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(granted) == 10
