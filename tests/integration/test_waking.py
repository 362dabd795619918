"""What sleeps while no provider of its channel can be called, on a real Postgres: who is woken, and when."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from notifier.domain.message import Message, new_id
from notifier.domain.retry_policy import ASLEEP_SECONDS
from notifier.domain.routing import NO_PROVIDER_NOW
from notifier.domain.statuses import Channel, Lane, OnUnknown, Reason
from notifier.store.circuits import WOKEN, WOKEN_TO_PROBE, CircuitKey, CircuitRepository
from notifier.store.engine import make_engine, transaction
from notifier.store.ledger import Ledger
from notifier.store.provider_health import HealthRepository
from notifier.store.records import NewNotification
from tests.support.columns import set_columns

FIRST, SECOND = CircuitKey("first"), CircuitKey("second")
ASLEEP = {"reason": "provider_unavailable", "detail": NO_PROVIDER_NOW.format("email")}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    engine = make_engine(database_url)
    yield engine
    engine.dispose()


@pytest.fixture
def repository(engine: Engine) -> CircuitRepository:
    return CircuitRepository(engine)


def sleepers(engine: Engine, count: int = 1, *, lane: Lane = Lane.BULK, **columns: Any) -> list[UUID]:
    """Mails that have slept for a minute, and would for another half an hour."""
    new = [
        NewNotification(
            Message(id=new_id(), producer="shop", to="ann@example.com", template="t"),
            Channel.EMAIL,
            lane,
            "v1",
            OnUnknown.HOLD,
            n,
        )
        for n in range(count)
    ]
    ids = [answer.id for answer in Ledger(engine).accept(new)]
    since, until = "sql: now() - interval '1 minute'", "sql: now() + interval '30 minutes'"
    with transaction(engine) as connection:
        set_columns(
            connection, ids, **{"status": "retrying", **ASLEEP, **columns, "updated_at": since, "due_at": until}
        )
    return ids


def open_circuit(repository: CircuitRepository, key: CircuitKey = FIRST, *, by: UUID | None = None) -> None:
    assert repository.open(key, 10, Reason.PROVIDER_UNAVAILABLE, "away", by=by, again=False)


def pass_time(engine: Engine, seconds: float) -> None:
    """For the circuits."""
    statement = text(
        "UPDATE circuits SET open_until = open_until - make_interval(secs => :ago), "
        "closed_at = closed_at - make_interval(secs => :ago), probe_until = NULL"
    )
    with transaction(engine) as connection:
        connection.execute(statement, {"ago": seconds})


def wake(repository: CircuitRepository, *names: str) -> int:
    return repository.wake({Channel.EMAIL: names or ("first",), Channel.SMS: ("text",)})


def awake(engine: Engine) -> Sequence[UUID]:
    with transaction(engine) as connection:
        return list(connection.execute(text("SELECT id FROM states WHERE due_at <= now()")).scalars())


def test_all_sleep_while_the_circuit_is_open(engine: Engine, repository: CircuitRepository) -> None:
    sleepers(engine)
    open_circuit(repository)
    assert wake(repository) == 0


def test_a_few_wake_when_a_probe_is_due_however_many_sleep(engine: Engine, repository: CircuitRepository) -> None:
    sleepers(engine, 20)
    open_circuit(repository)
    pass_time(engine, 11)
    assert wake(repository) == WOKEN_TO_PROBE
    assert len(awake(engine)) == WOKEN_TO_PROBE


def test_nobody_is_woken_while_one_probes(engine: Engine, repository: CircuitRepository) -> None:
    sleepers(engine, 2)
    open_circuit(repository)
    pass_time(engine, 11)
    assert repository.take_probe(FIRST, new_id(), lease_seconds=40, grace_seconds=10, is_fresh=True)
    assert wake(repository) == 0


def test_only_those_that_may_probe_are_woken_for_it(engine: Engine, repository: CircuitRepository) -> None:
    [prober] = sleepers(engine, attempt_count=1)
    tried = sleepers(engine, attempt_count=1)
    open_circuit(repository, by=prober)
    pass_time(engine, 11)
    assert wake(repository) == 0
    pass_time(engine, 20)
    assert wake(repository) == 1, "nobody fresh came for long"
    assert awake(engine) == tried


def test_all_wake_in_portions_when_the_circuit_has_closed_urgent_ones_first(
    engine: Engine, repository: CircuitRepository
) -> None:
    sleepers(engine, WOKEN + 1)
    urgent = sleepers(engine, 2, lane=Lane.URGENT, attempt_count=1)
    open_circuit(repository)
    repository.close(FIRST)
    assert wake(repository) == WOKEN
    assert set(urgent) <= set(awake(engine))
    # Whoever closed it may have died: the next sweep goes on.
    assert wake(repository) == 3
    assert wake(repository) == 0


def test_all_wake_when_another_provider_can_be_called(engine: Engine, repository: CircuitRepository) -> None:
    sleepers(engine, WOKEN_TO_PROBE + 1)
    open_circuit(repository, FIRST)
    open_circuit(repository, SECOND)
    assert wake(repository, "first", "second") == 0
    # An operator has put a third one in the place of the second.
    assert wake(repository, "first", "third") == WOKEN_TO_PROBE + 1


def test_a_provider_that_is_paused_wakes_nobody(engine: Engine, repository: CircuitRepository) -> None:
    sleepers(engine, WOKEN_TO_PROBE + 1)
    open_circuit(repository, FIRST)
    HealthRepository(engine).set_paused("second", True)
    assert wake(repository, "first", "second") == 0
    HealthRepository(engine).set_paused("second", False)
    assert wake(repository, "first", "second") == WOKEN_TO_PROBE + 1


@pytest.mark.parametrize(
    "columns",
    [
        {"detail": "connection refused"},
        {"reason": "rate_limited", "detail": "waits for its turn under a limit"},
        {"reason": "sender_refused", "detail": "the sender shop is held back: see `notifier providers`"},
        {"status": "cancelled"},
    ],
)
def test_what_waits_for_something_else_keeps_its_time(
    engine: Engine, repository: CircuitRepository, columns: dict[str, Any]
) -> None:
    sleepers(engine, **columns)
    open_circuit(repository)
    repository.close(FIRST)
    assert wake(repository) == 0


def test_what_has_just_fallen_asleep_is_left_alone(engine: Engine, repository: CircuitRepository) -> None:
    # By a worker that had not heard yet that the circuit is closed; or by one of another configuration, again
    # and again.
    sleepers(engine)
    with transaction(engine) as connection:
        connection.execute(text("UPDATE states SET updated_at = now()"))
    open_circuit(repository)
    repository.close(FIRST)
    assert wake(repository) == 0


def test_long_after_an_outage_it_does_not_look_any_more(engine: Engine, repository: CircuitRepository) -> None:
    sleepers(engine)
    open_circuit(repository)
    repository.close(FIRST)
    pass_time(engine, ASLEEP_SECONDS + 1)
    assert wake(repository) == 0
