"""Callbacks at intake, on the command line, over HTTP, and in monitoring."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Connection
from prometheus_client import generate_latest
from pydantic import SecretStr
from sqlalchemy import Engine

from notifier.api.record_metrics import Collected, KnownNames, RecordState, record_families
from notifier.bootstrap import Services
from notifier.broker.inspection import Broker
from notifier.broker.topology import callbacks_queue
from notifier.cli.callback_checks import check_callbacks, check_endpoints, check_readers
from notifier.cli.check_result import Check
from notifier.config.settings import Settings
from notifier.config.structure import Structure
from notifier.domain.statuses import Channel, Lane
from notifier.intake import Intake
from notifier.intake.batch import Received
from notifier.operations.api_keys import Scope
from notifier.rendering import Renderer
from notifier.store.engine import make_engine
from notifier.store.metrics import GaugeRepository
from notifier.store.search import Audit
from tests.support.api import Api
from tests.support.callbacks import SECRETS, World
from tests.support.receiver import Receiver, Say, receiver
from tests.support.templates import write_templates
from tests.unit.cli.commandline import CommandLine


@pytest.fixture
def hooks() -> Iterator[Receiver]:
    with receiver() as hooks:
        yield hooks


@pytest.fixture
def world(database_url: str, hooks: Receiver) -> Iterator[World]:
    world = World(make_engine(database_url, pool_size=5), hooks)
    yield world
    world.close()


@pytest.fixture
def notifier(database_url: str) -> CommandLine:
    return CommandLine({"database_url": SecretStr(database_url), "broker_url": SecretStr("redis://127.0.0.1:1/0")})


def doctor(database_url: str, tables: dict[str, Any]) -> list[Check]:
    structure = Structure.model_validate({"callbacks": tables})
    services = Services(Settings(database_url=SecretStr(database_url), structure=structure))
    checks = [*check_callbacks(services.settings), *check_endpoints(services)]
    services.close()
    return checks


def test_the_intake_tells_why_a_callback_url_is_refused(world: World, tmp_path: Path) -> None:
    structure = Structure.model_validate({"callbacks": {"shop": {"secrets": SECRETS[:1]}}})
    intake = Intake(
        world.ledger, Renderer(write_templates(tmp_path)), structure, lambda *_: None, callback_hosts={"dev.test"}
    )

    def received(producer: str, url: str | None) -> Received:
        body: dict[str, Any] = {
            "producer": producer,
            "idempotency_key": f"{url}",
            "to": "ann@example.com",
            "template": "hello",
        }
        body |= {"context": {"name": "Ann"}} | ({"callback_url": url} if url else {})
        return Received(json.dumps(body).encode(), Channel.EMAIL, Lane.NORMAL)

    good = [
        ("shop", None),
        ("shop", "https://hooks.example.com/x"),
        ("shop", "http://dev.test:9000/"),
        ("bar", None),
    ]
    bad = [
        ("bar", "https://hooks.example.com/x"),
        ("shop", "https://10.0.0.1/"),
        ("shop", "http://hooks.example.com"),
    ]
    summary = intake.process([received(*one) for one in good + bad])
    faults = [fault for view in Audit(world.engine).rejected(limit=10) for fault in view.faults]
    assert (summary.accepted, summary.rejected) == (4, 3), faults
    assert {fault["field"] for fault in faults} == {"callback_url"}
    assert sorted(fault["code"] for fault in faults) == ["bad_callback_url"] * 2 + ["no_callback_secret"]
    assert any("[callbacks.bar]" in fault["fix"] for fault in faults)


def test_operators_find_and_replay_what_was_parked(world: World, notifier: CommandLine) -> None:
    for say in (Say(410), Say(410), Say(200)):
        world.hooks.answers = [say]
        world.fail()
        world.tick()
    parked = notifier("callbacks", "list", "--state", "parked", "--json").json
    assert [one["failure"] for one in parked] == ["gone", "gone"]
    shown = notifier("callbacks", "show", parked[0]["id"])
    assert "gone 410" in shown.out
    assert f"callbacks replay {parked[0]['id']}" in shown.err
    story = notifier("show", parked[0]["notification_id"])
    assert "callbacks to its producer" in story.out
    assert parked[0]["id"] in story.out
    looked = notifier("callbacks", "replay", "--producer", "shop", "--dry-run")
    assert "2 would be replayed" in looked.out
    assert world.tick() == 0
    assert notifier("callbacks", "replay", parked[0]["id"], "--why", "mended").code == 0
    done = notifier("callbacks", "replay", "--failure", "gone", "--json").json
    assert done["changed"] == 1
    assert world.tick() == 2
    assert {view.state for view in world.callbacks()} == {"delivered"}
    # Once more what was delivered, with the id that the endpoint knows.
    assert notifier("callbacks", "replay", parked[0]["id"]).code == 0
    world.tick()
    assert [got.headers["webhook-id"] for got in world.hooks.got].count(parked[0]["id"]) == 3
    assert (
        notifier("callbacks", "replay").code == 2 or "nothing is selected" in notifier("callbacks", "replay").err
    )


def scraped(engine: Engine) -> str:
    state = RecordState(GaugeRepository(engine).read())
    return generate_latest(Collected(record_families(state, KnownNames()))).decode()


def test_a_suspended_endpoint_is_told_of_and_resumed(
    world: World, notifier: CommandLine, database_url: str
) -> None:
    world.hooks.answers = [Say(500)]
    world.fail()
    world.tick()
    world.run("UPDATE callback_endpoints SET suspended_at = now()")
    world.pass_time()
    world.tick()
    stuck = notifier("stuck")
    assert stuck.code == 1
    assert "callbacks of shop" in stuck.out
    assert "callbacks resume 'shop'" in stuck.err
    assert notifier("stuck", "--json").json[0]["cause"] == "endpoint_suspended"
    assert [check.ok for check in doctor(database_url, {})] == [False]
    assert "suspended" in notifier("callbacks", "endpoints").out
    metrics = scraped(world.engine)
    assert 'notifier_callback_endpoints_suspended{producer="shop"} 1.0' in metrics
    assert 'notifier_callbacks_parked{producer="shop"} 1.0' in metrics
    assert notifier("callbacks", "resume", "nobody").code == 1
    assert "1 replayed" in notifier("callbacks", "resume", "shop", "--why", "mended").out
    assert world.tick() == 1
    metrics = scraped(world.engine)
    assert 'notifier_callbacks_delivered_total{producer="shop"} 1.0' in metrics
    assert 'notifier_callback_calls_failed_total{producer="shop"} 1.0' in metrics


def test_the_doctor_and_stuck_say_that_nobody_makes_callbacks(
    world: World, database_url: str, notifier: CommandLine, amqp_url: str
) -> None:
    world.fail()
    assert doctor(database_url, {}) == []
    world.run("UPDATE callbacks SET due_at = now() - interval '6 minutes'")
    [late] = doctor(database_url, {})
    assert (late.ok, late.detail) == (False, "1 are late: no process makes them, or not fast enough")
    assert "notifier callbacks run" in late.fix
    assert "notifier callbacks run" in notifier("stuck").err
    with Broker.connect(amqp_url) as broker, Connection(amqp_url) as connection:
        [nobody] = check_readers(broker)
        assert nobody.ok
        assert "notifier callbacks run" in nobody.fix
        with connection.Consumer([callbacks_queue()]):
            assert list(check_readers(broker)) == []
        callbacks_queue()(connection.default_channel).delete()


def test_the_doctor_tells_what_is_wrong_with_the_configuration(database_url: str) -> None:
    checks = doctor(database_url, {"shop": {"url": "http://hooks.example.com/", "secrets": ["whsec_x"]}})
    assert [check.ok for check in checks] == [False, False]
    assert "not https" in checks[0].detail
    assert "openssl" in checks[1].fix
    [right] = doctor(database_url, {"shop": {"url": "https://hooks.example.com/", "secrets": SECRETS}})
    assert (right.ok, right.detail) == (True, "told: shop")


def test_the_same_over_http_for_operators(world: World, database_url: str, tmp_path: Path) -> None:
    world.hooks.answers = [Say(410)]
    world.fail()
    world.tick()
    api = Api(database_url, write_templates(tmp_path))
    key = api.key(Scope.OPERATE, producer=None)
    page = api("GET", "/v1/callbacks", key=key, state="parked", limit=1).json
    [item] = page["items"]
    assert page["next"]
    assert api("GET", "/v1/callbacks", key=key, after=page["next"]).json == {"items": [], "next": None}
    story = api("GET", f"/v1/callbacks/{item['id']}", key=key).json
    assert story["calls"][0]["http_status"] == 410
    assert api("GET", "/v1/callbacks", key=api.key(Scope.READ)).status == 403
    assert api("POST", "/v1/callbacks/replay", key=key, json_body={}).status == 422
    assert api("GET", "/v1/callbacks", key=key, producer="a\0b").status == 422
    wanted = {"filter": {"producer": "shop"}, "dry_run": True}
    assert api("POST", "/v1/callbacks/replay", key=key, json_body=wanted).json["groups"][0]["count"] == 1
    assert api("POST", "/v1/callbacks/replay", key=key, json_body={"ids": [item["id"]]}).json["changed"] == 1
    assert api("GET", "/v1/callback-endpoints", key=key).json[0]["endpoint"] == "shop"
    reply = api("POST", "/v1/callback-endpoints/resume", key=key, json_body={"endpoint": "shop"})
    assert reply.status == 404
    api.close()
