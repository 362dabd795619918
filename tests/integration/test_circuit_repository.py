"""Circuits on a real Postgres: one for all workers, and one for each sender that a provider refuses."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from notifier.domain.message import new_id
from notifier.domain.statuses import Reason
from notifier.store.circuits import CircuitKey, CircuitRefusal, CircuitRepository, CircuitState
from notifier.store.engine import make_engine, transaction
from tests.waiting import patient

SMTP = CircuitKey("smtp")
SHOP = CircuitKey("smtp", "shop")
FIRST, SECOND = new_id(), new_id()


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url, pool_size=8)
    yield engine
    engine.dispose()


@pytest.fixture
def repository(engine: Engine) -> CircuitRepository:
    return CircuitRepository(engine)


def open_circuit(repository: CircuitRepository, *, by: UUID | None = None, again: bool = False) -> bool:
    return repository.open(SMTP, 10, Reason.PROVIDER_UNAVAILABLE, "5 of 10 calls failed", by=by, again=again)


def refuse(repository: CircuitRepository, by: UUID, to: str = "", *, is_repeated: bool = False) -> bool:
    refusal = CircuitRefusal(by, Reason.SENDER_REFUSED, "553 not yours", to, is_repeated)
    return repository.refuse(SHOP, 30, refusal, at_most=3)


def end_pauses(engine: Engine, seconds_ago: int = 1) -> None:
    statement = text("UPDATE circuits SET open_until = now() - make_interval(secs => :ago)")
    with transaction(engine) as connection:
        connection.execute(statement, {"ago": seconds_ago})


def end_leases(engine: Engine) -> None:
    with transaction(engine) as connection:
        connection.execute(text("UPDATE circuits SET probe_until = NULL"))


def state_of(repository: CircuitRepository, key: CircuitKey) -> CircuitState:
    return next(state for state in repository.states() if state.key == key)


def take(repository: CircuitRepository, by: UUID, *, is_fresh: bool = True) -> bool:
    return repository.take_probe(SMTP, by, lease_seconds=30, grace_seconds=10, is_fresh=is_fresh)


def test_a_circuit_opens_once_and_closes_once(repository: CircuitRepository) -> None:
    assert open_circuit(repository)
    assert not open_circuit(repository)
    state = state_of(repository, SMTP)
    assert state.open_for_seconds == pytest.approx(10, abs=2)
    assert (state.reason, state.openings) == (Reason.PROVIDER_UNAVAILABLE, 1)
    assert repository.close(SMTP)
    assert not repository.close(SMTP)
    assert repository.states() == []


def test_a_failed_probe_opens_it_again_and_a_last_chance_does_not(
    repository: CircuitRepository, engine: Engine
) -> None:
    open_circuit(repository)
    # Called before the pause was over.
    assert not open_circuit(repository, again=True)
    end_pauses(engine)
    opened_at = state_of(repository, SMTP).opened_at
    assert open_circuit(repository, again=True)
    state = state_of(repository, SMTP)
    assert (state.openings, state.opened_at) == (2, opened_at)


def test_one_worker_probes(repository: CircuitRepository, engine: Engine) -> None:
    open_circuit(repository)
    assert not take(repository, FIRST)
    end_pauses(engine)
    taken: list[bool] = []
    start = threading.Barrier(8)

    def probe() -> None:
        start.wait(timeout=patient(30))
        taken.append(take(repository, new_id()))

    threads = [threading.Thread(target=probe) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(taken) == 1
    # The others wait for the probe that is under way.
    assert state_of(repository, SMTP).open_for_seconds == pytest.approx(30, abs=2)


def test_no_notification_probes_twice(repository: CircuitRepository, engine: Engine) -> None:
    open_circuit(repository, by=FIRST)
    end_pauses(engine)
    assert not take(repository, FIRST)
    assert take(repository, SECOND)
    # However long nobody else comes.
    end_pauses(engine, seconds_ago=100_000)
    end_leases(engine)
    assert not take(repository, FIRST)
    assert not take(repository, SECOND)
    assert take(repository, new_id())


def test_one_that_was_tried_probes_only_when_no_fresh_one_came(
    repository: CircuitRepository, engine: Engine
) -> None:
    open_circuit(repository)
    end_pauses(engine)
    assert not take(repository, FIRST, is_fresh=False)
    end_pauses(engine, seconds_ago=11)
    assert take(repository, FIRST, is_fresh=False)
    end_leases(engine)
    # The others wait for longer, and fresh ones do not.
    assert not take(repository, SECOND, is_fresh=False)
    assert take(repository, SECOND)


def test_a_probe_by_one_that_was_tried_is_no_further_opening(
    repository: CircuitRepository, engine: Engine
) -> None:
    open_circuit(repository)
    end_pauses(engine)
    assert repository.open(SMTP, 10, Reason.PROVIDER_UNAVAILABLE, "421", by=FIRST, again=True, is_repeated=True)
    assert state_of(repository, SMTP).openings == 1
    for _ in range(3):
        refuse(repository, new_id())
    end_pauses(engine)
    assert refuse(repository, FIRST, is_repeated=True)
    assert state_of(repository, SHOP).openings == 1


def test_three_messages_in_a_row_hold_a_sender_back(repository: CircuitRepository) -> None:
    assert not refuse(repository, FIRST)
    # The same message once more proves nothing.
    assert not refuse(repository, FIRST)
    assert not refuse(repository, SECOND)
    assert state_of(repository, SHOP).open_for_seconds is None
    assert refuse(repository, new_id())
    state = state_of(repository, SHOP)
    assert (state.reason, state.openings, state.refusals) == (Reason.SENDER_REFUSED, 1, 3)
    assert state.open_for_seconds == pytest.approx(30, abs=2)


def test_one_destination_counts_once(repository: CircuitRepository) -> None:
    assert not any(refuse(repository, new_id(), "domain example.org") for _ in range(10))
    assert not refuse(repository, new_id(), "domain example.net")
    assert not refuse(repository, new_id(), "domain example.org")
    assert state_of(repository, SHOP).refused_destinations == {"domain example.org", "domain example.net"}
    assert refuse(repository, new_id(), "domain example.com")


def test_an_acceptance_forgives_the_destinations(repository: CircuitRepository) -> None:
    for domain in ("a", "b"):
        refuse(repository, new_id(), domain)
    repository.accept([(SHOP, 0.0)])
    assert not any(refuse(repository, new_id(), domain) for domain in ("a", "b"))
    assert refuse(repository, new_id(), "c")


def test_an_acceptance_between_refusals_starts_anew(repository: CircuitRepository) -> None:
    refuse(repository, FIRST)
    refuse(repository, SECOND)
    repository.accept([(SHOP, 0.0)])
    assert not refuse(repository, new_id())
    assert state_of(repository, SHOP).refusals == 1


def test_a_sender_that_is_accepted_is_held_back_no_more(repository: CircuitRepository) -> None:
    for _ in range(3):
        refuse(repository, new_id())
    repository.accept([(SHOP, 0.0), (CircuitKey("smtp", "other"), 0.0)])
    assert repository.states() == []


def test_a_probe_that_is_refused_holds_the_sender_back_again(
    repository: CircuitRepository, engine: Engine
) -> None:
    for _ in range(3):
        refuse(repository, new_id())
    end_pauses(engine)
    assert refuse(repository, FIRST)
    assert state_of(repository, SHOP).openings == 2


def test_resuming_a_provider_closes_the_circuits_of_its_senders(repository: CircuitRepository) -> None:
    open_circuit(repository)
    for _ in range(3):
        refuse(repository, new_id())
    repository.close_all("smtp")
    assert repository.states() == []
