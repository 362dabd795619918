"""Health of the providers on a real Postgres: one circuit for all workers."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest
from sqlalchemy import Engine, text

from notifier.status import Outcome, Reason
from notifier.store.engine import make_engine, transaction
from notifier.store.health import HealthBook, Tally


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url, pool_size=8)
    yield engine
    engine.dispose()


@pytest.fixture
def book(engine: Engine) -> HealthBook:
    return HealthBook(engine)


def open_circuit(book: HealthBook, *, again: bool = False) -> bool:
    return book.open("smtp", 10, Reason.PROVIDER_UNAVAILABLE, "5 of 10 calls failed", again=again)


def end_pause(engine: Engine) -> None:
    with transaction(engine) as connection:
        connection.execute(text("UPDATE provider_states SET open_until = now() - interval '1 second'"))


def test_calls_of_all_workers_add_up(book: HealthBook) -> None:
    book.note([Tally("smtp", Outcome.ACCEPTED, False, 3, 0.3)], window_seconds=60)
    windows = book.note(
        [
            Tally("smtp", Outcome.ACCEPTED, False, 2, 0.2),
            Tally("smtp", Outcome.UNAVAILABLE, True, 4, 0.4),
            Tally("smtp", Outcome.UNAVAILABLE, False, 1, 0.1),
        ],
        window_seconds=60,
    )
    assert [(w.provider, w.calls, w.faults, round(w.seconds, 3)) for w in windows] == [("smtp", 10, 4, 1.0)]


def test_a_circuit_opens_once_and_closes_once(book: HealthBook) -> None:
    assert open_circuit(book)
    assert not open_circuit(book)
    state = book.states()["smtp"]
    assert state.open_for_seconds == pytest.approx(10, abs=2)
    assert (state.reason, state.openings) == (Reason.PROVIDER_UNAVAILABLE, 1)
    assert book.close("smtp")
    assert not book.close("smtp")
    assert book.states()["smtp"].open_for_seconds is None


def test_a_failed_probe_opens_it_again(book: HealthBook) -> None:
    open_circuit(book)
    assert open_circuit(book, again=True)
    assert book.states()["smtp"].openings == 2


def test_one_worker_probes(book: HealthBook, engine: Engine) -> None:
    open_circuit(book)
    assert not book.take_probe("smtp", lease_seconds=30)
    end_pause(engine)
    taken: list[bool] = []
    start = threading.Barrier(8)

    def probe() -> None:
        start.wait(timeout=30)
        taken.append(book.take_probe("smtp", lease_seconds=30))

    threads = [threading.Thread(target=probe) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 1


def test_what_an_operator_says_stays_until_it_is_taken_back(book: HealthBook) -> None:
    book.set_paused("smtp", True)
    book.set_weight("smtp", 5)
    open_circuit(book)
    book.close("smtp")
    state = book.states()["smtp"]
    assert (state.paused, state.weight) == (True, 5)
    book.set_paused("smtp", False)
    book.set_weight("smtp", None)
    state = book.states()["smtp"]
    assert (state.paused, state.weight) == (False, None)
