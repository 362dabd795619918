"""Health of the providers on a real Postgres: what all workers count, and what an operator says."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from sqlalchemy import Engine

from notifier.domain.statuses import Outcome
from notifier.store.engine import make_engine
from notifier.store.provider_health import HealthCounts, HealthRepository


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url, pool_size=8)
    yield engine
    engine.dispose()


@pytest.fixture
def repository(engine: Engine) -> HealthRepository:
    return HealthRepository(engine)


def test_calls_of_all_workers_add_up(repository: HealthRepository) -> None:
    repository.note([HealthCounts("smtp", Outcome.ACCEPTED, False, 3, 0.3)], window_seconds=60)
    windows = repository.note(
        [
            HealthCounts("smtp", Outcome.ACCEPTED, False, 2, 0.2),
            HealthCounts("smtp", Outcome.UNAVAILABLE, True, 4, 0.4),
            HealthCounts("smtp", Outcome.UNAVAILABLE, False, 1, 0.1),
        ],
        window_seconds=60,
    )
    assert [(w.provider, w.calls, w.faults, round(w.seconds, 3)) for w in windows] == [("smtp", 10, 4, 1.0)]


def test_what_an_operator_says_stays_until_it_is_taken_back(repository: HealthRepository) -> None:
    repository.set_paused("smtp", True)
    repository.set_weight("smtp", 5)
    state = repository.states()["smtp"]
    assert (state.paused, state.weight) == (True, 5)
    repository.set_paused("smtp", False)
    repository.set_weight("smtp", None)
    state = repository.states()["smtp"]
    assert (state.paused, state.weight) == (False, None)
