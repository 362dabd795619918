"""Status callbacks on a real database and a real endpoint: told, signed, tried again, parked, in order."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text
from standardwebhooks import Webhook

from notifier.domain.statuses import CallbackFailure, CallbackState, Status
from notifier.store.callback_sql import GIVE_OUT
from notifier.store.callbacks import LIMITS, PER_ENDPOINT, PER_FAILING, PER_PRODUCER, CallbackRepository
from notifier.store.engine import make_engine, transaction
from notifier.store.operator_actions import ActionCounts, Move, OperatorActions
from notifier.store.selection import Selection
from tests.support.callbacks import SECRETS, World
from tests.support.counted import counted
from tests.support.receiver import Receiver, Say, receiver
from tests.waiting import patient, wait_until


@pytest.fixture
def hooks() -> Iterator[Receiver]:
    with receiver() as hooks:
        yield hooks


@pytest.fixture
def world(database_url: str, hooks: Receiver) -> Iterator[World]:
    world = World(make_engine(database_url, pool_size=5), hooks)
    yield world
    world.close()


def bodies(hooks: Receiver) -> list[dict[str, Any]]:
    return [json.loads(got.body) for got in hooks.got]


def test_a_producer_is_told_signed_and_without_personal_data(world: World) -> None:
    [sent] = world.send(reference="order-7", metadata={"cart": "c1"})
    assert world.tick() == 1
    [got] = world.hooks.got
    for secret in SECRETS:
        verified = Webhook(secret).verify(got.body, got.headers)
        assert verified["type"] == "notification.status"
    data = verified["data"]
    assert {name: data[name] for name in ("id", "producer", "channel", "status", "reason", "attempt")} == {
        "id": str(sent), "producer": "shop", "channel": "email", "status": "sent", "reason": None, "attempt": 1,
    }  # fmt: skip
    assert (data["reference"], data["metadata"]) == ("order-7", {"cart": "c1"})
    assert b"ann@example.com" not in got.body
    [view] = world.callbacks()
    assert (str(view.id), view.state, view.http_status) == (got.headers["webhook-id"], "delivered", 200)
    assert world.tick() == 0


def test_nobody_is_told_of_what_was_not_asked_for(world: World) -> None:
    world.finish(world.accept(producer="another"))
    world.finish(world.accept(producer="other"))
    other = f"http://127.0.0.1:{world.hooks.port}/own"
    world.finish(world.accept(producer="other", callback_url=other))
    assert world.callbacks() == []
    assert world.fail(producer="other", callback_url=other)
    [view] = world.callbacks()
    assert (view.status, view.endpoint) == ("failed", f"other http://127.0.0.1:{world.hooks.port}")
    world.tick()
    assert [got.path for got in world.hooks.got] == ["/own"]


def test_where_the_address_of_a_message_was_redacted_no_other_address_is_called(world: World) -> None:
    own = f"http://127.0.0.1:{world.hooks.port}/own"
    world.finish(world.accept(callback_url=own))
    world.finish(world.accept())
    world.run("UPDATE messages SET callback_url = NULL")
    world.tick()
    found = {view.endpoint: (view.state, view.failure) for view in world.callbacks()}
    assert found == {f"shop {own.removesuffix('/own')}": ("parked", "redacted"), "shop": ("delivered", None)}
    assert len(world.hooks.got) == 1


def test_every_way_to_a_final_status_is_told(world: World) -> None:
    expired = world.accept(expires_at="2020-01-01T00:00:00Z")
    failed, cancelled, late = world.fail(), world.accept(), world.accept()
    begun = OperatorActions(world.engine).begin("ann", "cancel", {}, None)
    move = Move(Status.CANCELLED, (Status.QUEUED,), "cancelled", begun.at)
    OperatorActions(world.engine).move_page(
        begun.id, Selection(tuple(cancelled)), move, after=None, tally=ActionCounts()
    )
    world.run("UPDATE messages SET expires_at = now() WHERE id = :id", id=late[0])
    world.run("UPDATE states SET due_at = now() WHERE id = :id", id=late[0])
    world.ledger.take_due(limit=10, unknown_after_seconds=1)
    suppressed = world.accept()
    # Whatever moves it, now or later.
    world.run("UPDATE states SET status = 'suppressed' WHERE id = :id", id=suppressed[0])
    found = {view.notification_id: (view.status, view.reason) for view in world.callbacks()}
    assert found == {
        expired[0]: ("expired", "expired"),
        failed: ("failed", "invalid_recipient"),
        cancelled[0]: ("cancelled", "operator"),
        late[0]: ("expired", "expired"),
        suppressed[0]: ("suppressed", None),
    }


def test_a_move_that_is_rolled_back_tells_nobody(world: World) -> None:
    [sent] = world.accept()
    connection = world.engine.connect()
    connection.execute(text("UPDATE states SET status = 'sent' WHERE id = :id"), {"id": sent})
    connection.rollback()
    connection.close()
    assert world.callbacks() == []


def test_of_one_notification_the_callbacks_come_in_order_with_growing_numbers(world: World) -> None:
    [sent] = world.send()
    world.run("UPDATE states SET status = 'undelivered' WHERE id = :id", id=sent)
    world.run("UPDATE states SET status = 'delivered' WHERE id = :id", id=sent)
    world.tick()
    assert [body["data"]["status"] for body in bodies(world.hooks)] == ["sent", "undelivered", "delivered"]
    numbers = [body["data"]["sequence"] for body in bodies(world.hooks)]
    assert numbers == sorted(set(numbers))


def test_one_that_is_refused_does_not_hold_up_the_next(world: World) -> None:
    [sent] = world.send()
    world.run("UPDATE states SET status = 'delivered' WHERE id = :id", id=sent)
    world.hooks.answers = [Say(500)]
    world.tick()
    assert [(view.status, view.state) for view in world.callbacks()] == [
        ("sent", "waiting"),
        ("delivered", "delivered"),
    ]


def test_a_failure_is_tried_again_as_the_same_message_and_parked_after_a_day(world: World) -> None:
    world.fail()
    world.hooks.otherwise = Say(503)
    world.tick()
    [view] = world.callbacks()
    assert (view.state, view.failure, view.http_status, view.attempt_count) == ("waiting", "refused", 503, 1)
    assert view.due_at is not None
    world.pass_time()
    world.tick()
    first, second = world.hooks.got
    assert first.body == second.body
    assert first.headers["webhook-id"] == second.headers["webhook-id"]
    world.pass_time(timedelta(hours=24))
    world.tick()
    [view], [_, calls] = world.callbacks(state=CallbackState.PARKED), world.book.show(view.id)
    assert view.due_at is None
    assert [(call.number, call.http_status, call.failure) for call in calls] == [
        (number, 503, "refused") for number in (1, 2, 3)
    ]
    world.pass_time()
    assert world.tick() == 0


def test_what_an_endpoint_asks_for_is_obeyed(world: World) -> None:
    world.fail()
    world.hooks.answers = [Say(429, {"Retry-After": "1800"})]
    world.tick()
    with transaction(world.engine) as connection:
        seconds = connection.execute(text("SELECT extract(epoch FROM due_at - now()) FROM callbacks")).scalar_one()
    assert 1790 < seconds <= 1800


@pytest.mark.parametrize(
    ("say", "failure", "state"),
    [
        (Say(410), CallbackFailure.GONE, "parked"),
        (Say(302, {"Location": "/elsewhere"}), CallbackFailure.REDIRECT, "waiting"),
        (Say(200, body=b"x" * 1_000_000), None, "delivered"),
    ],
)
def test_what_answers_come_to(world: World, say: Say, failure: CallbackFailure | None, state: str) -> None:
    world.fail()
    world.hooks.answers = [say]
    with counted("notifier_callback_calls_total", 1, outcome=failure or "delivered"):
        world.tick()
    [view] = world.callbacks()
    assert (view.failure, view.state) == (failure, state)
    assert [got.path for got in world.hooks.got] == ["/hooks"]


def test_a_producer_that_is_configured_no_more_waits_for_its_configuration(world: World) -> None:
    world.fail()
    table = world.tables.pop("shop")
    world.tick()
    [view] = world.callbacks()
    assert (view.failure, view.state) == ("not_configured", "waiting")
    assert world.book.endpoints() == []
    world.tables["shop"] = table
    world.pass_time()
    world.tick()
    assert len(world.hooks.got) == 1


def test_a_worker_that_dies_between_call_and_record_is_followed_by_another_call(world: World) -> None:
    world.fail()
    [ids] = world.book.give_out().values()
    [claimed] = world.book.claim(ids, lease_seconds=60)
    # It is in hand: nobody else gets it, not even with the same task.
    assert world.book.claim(ids, lease_seconds=60) == []
    assert world.book.give_out() == {}
    world.pass_time()
    world.tick()
    [view], [_, calls] = world.callbacks(), world.book.show(claimed.id)
    assert view.state == "delivered"
    assert [(call.number, call.failure) for call in calls] == [(1, "lease_expired"), (2, None)]


def test_a_task_that_is_lost_is_given_out_again(world: World) -> None:
    world.fail()
    assert len(world.book.give_out()) == 1
    assert world.tick() == 0
    world.pass_time()
    assert world.tick() == 1
    assert len(world.hooks.got) == 1


def test_two_sweeps_at_once_give_nothing_out_twice(world: World) -> None:
    for _ in range(30):
        world.fail()
    found: list[UUID] = []

    def sweep() -> None:
        found.extend(one for ids in CallbackRepository(world.engine).give_out().values() for one in ids)

    threads = [threading.Thread(target=sweep) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == len(set(found))


def test_a_slow_endpoint_holds_up_no_other_and_gets_a_bounded_number_of_calls(world: World) -> None:
    gate = threading.Event()
    with receiver() as slow:
        slow.otherwise = Say(gate=gate)
        world.tables["slow"] = world.table(f"http://127.0.0.1:{slow.port}/", [])
        ids = world.accept(PER_ENDPOINT + 10, producer="slow")
        world.finish(ids, Status.FAILED)
        world.fail()
        running = {name: world.runner.start(given) for name, given in world.book.give_out().items()}
        running["shop"].result(patient(10))
        assert len(world.hooks.got) == 1
        wait_until(lambda: len(slow.got) == PER_ENDPOINT)
        assert world.book.give_out() == {}
        gate.set()
        running["slow"].result(patient(20))
        assert len(slow.got) == PER_ENDPOINT + 10
        assert slow.most <= PER_ENDPOINT


def test_an_endpoint_that_fails_for_days_is_suspended_until_somebody_resumes_it(world: World) -> None:
    world.hooks.otherwise = Say(500)
    world.fail()
    world.tick()
    world.run("UPDATE callback_endpoints SET failing_since = now() - interval '4 days', failures = 25")
    world.pass_time()
    world.tick()
    [endpoint] = world.book.endpoints()
    assert endpoint.suspended_at is not None
    world.fail()
    world.pass_time()
    calls = len(world.hooks.got)
    assert world.tick() == 0
    assert len(world.hooks.got) == calls
    assert {(view.state, view.failure) for view in world.callbacks()} == {("parked", "suspended")}
    [stuck] = world.book.stuck()
    assert (stuck.cause, stuck.endpoint, stuck.count, stuck.http_status) == ("endpoint_suspended", "shop", 2, 500)
    assert world.book.resume("shop")
    assert not world.book.resume("shop")
    assert world.book.stuck() == []


def test_one_success_ends_a_row_of_failures(world: World) -> None:
    world.hooks.answers = [Say(500)]
    world.fail()
    world.tick()
    world.run("UPDATE callback_endpoints SET failing_since = now() - interval '4 days', failures = 25")
    world.pass_time()
    world.tick()
    [endpoint] = world.book.endpoints()
    assert (endpoint.failing_since, endpoint.failures, endpoint.suspended_at) == (None, 0, None)
    assert (endpoint.delivered_count, endpoint.failed_count) == (1, 1)


def test_old_ones_are_dropped_with_their_calls(world: World) -> None:
    world.fail()
    world.fail()
    world.tick()
    world.run("UPDATE callbacks SET settled_at = now() - interval '40 days' WHERE id = :id",
              id=world.callbacks()[0].id)  # fmt: skip
    assert world.book.forget_old() == 1
    assert len(world.callbacks()) == 1
    with transaction(world.engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM callback_attempts")).scalar_one() == 1


def test_the_sweep_finds_what_is_due_by_its_index_and_sorts_no_callbacks(world: World) -> None:
    world.run(
        "INSERT INTO callbacks (id, notification_id, producer, endpoint, status) "
        "SELECT gen_random_uuid(), gen_random_uuid(), 'p' || n % 2, 'p' || n % 2, 'failed' "
        "FROM generate_series(1, 3000) AS n"
    )
    query = text(f"EXPLAIN {GIVE_OUT.text}").bindparams(endpoint=None, again_after=30, **LIMITS)
    with transaction(world.engine) as connection:
        plan = "\n".join(connection.execute(query).scalars())
    # Endpoints are sorted, by who waits longest, callbacks are not.
    assert "Sort" not in plan[plan.index("CTE due") :]
    assert "Seq Scan" not in plan
    assert "Index Cond: ((endpoint = roomy.endpoint) AND (due_at <= now()))" in plan
    # It says which endpoints are due, and nothing else reads through what is due of all of them.
    assert plan.count("ix_callbacks_due_at") == 1


def insert_due(world: World, producer: str, endpoints: int, each: int) -> None:
    """Callbacks that are due, of so many servers that messages of the producer named."""
    world.run(
        "INSERT INTO callbacks (id, notification_id, producer, endpoint, status) "
        "SELECT gen_random_uuid(), gen_random_uuid(), :producer, :producer || ' https://h' || e, 'failed' "
        "FROM generate_series(1, :endpoints) AS e, generate_series(1, :each)",
        producer=producer,
        endpoints=endpoints,
        each=each,
    )


@pytest.mark.parametrize(("endpoints", "each"), [(100, 5), (3, 500), (7, 100), (1, 100)])
def test_a_producer_gets_no_more_than_its_share_however_many_endpoints_it_names(
    world: World, endpoints: int, each: int
) -> None:
    insert_due(world, "many", endpoints, each)
    insert_due(world, "few", 1, 3)
    given = world.book.give_out()
    assert len(given.pop("few https://h1")) == 3
    taken = [len(ids) for ids in given.values()]
    assert max(taken) <= PER_ENDPOINT
    assert min(PER_PRODUCER - endpoints + 1, PER_ENDPOINT * endpoints) <= sum(taken) <= PER_PRODUCER
    again = world.book.give_out()
    assert sum(map(len, (*given.values(), *again.values()))) <= PER_PRODUCER


def test_endpoints_that_wait_longest_come_first(world: World) -> None:
    insert_due(world, "many", PER_PRODUCER + 10, 1)
    world.run("UPDATE callbacks SET due_at = now() - interval '1 minute' WHERE endpoint LIKE '%9'")
    given = world.book.give_out()
    assert len(given) == PER_PRODUCER
    assert {f"many https://h{number}" for number in (9, 19, 29, 39, 49)} < given.keys()


def test_an_endpoint_whose_calls_all_fail_is_tried_with_few_at_once(world: World) -> None:
    world.hooks.otherwise = Say(500)
    world.fail()
    world.tick()
    world.fail()
    for _ in range(PER_FAILING):
        world.fail()
    world.pass_time()
    assert len(world.book.give_out()["shop"]) == PER_FAILING
    world.run("UPDATE callbacks SET state = 'waiting', due_at = now()")
    world.hooks.otherwise = Say()
    world.tick()
    assert {view.state for view in world.callbacks()} == {"delivered"}
