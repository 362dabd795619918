"""Two producers' users on a real RabbitMQ: each publishes only as itself, and only what it may send."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import UUID, uuid4

import amqp
import pytest
from amqp.exceptions import AccessRefused, PreconditionFailed
from kombu import Connection

from notifier.bootstrap import Services
from notifier.broker.publisher import Wire
from notifier.broker.user_id import VOUCHED, own_users
from notifier.client.client import Client
from notifier.client.relay import OutboxRow
from notifier.config.settings import Settings
from notifier.config.structure import Structure
from notifier.domain.errors import PublishRefused
from notifier.domain.statuses import Channel, Lane
from notifier.intake import make_reader
from notifier.operations.api_keys import Scope
from notifier.store.producers import unproven_producers
from notifier.store.search import Filter, NotificationView, RejectedView
from tests.provisioning.rabbitmq import AmqpServer, PrivateRabbitmq
from tests.support import forking
from tests.support.api import Api, Reply
from tests.support.brokers import amqp_connection, publish_raw
from tests.support.templates import write_template, write_templates
from tests.unit.cli.commandline import CommandLine
from tests.waiting import patient, wait_until


@dataclass
class Users:
    """A virtual host, and its URL for each of its users. Their names are made for one test."""

    service: str
    shop: str
    billing: str
    stranger: str
    names: dict[str, str]


@pytest.fixture
def users(amqp_server: AmqpServer) -> Iterator[Users]:
    if not isinstance(amqp_server, PrivateRabbitmq):
        pytest.skip("needs a node of our own: it makes users")
    url = amqp_server.make_vhost()
    CommandLine({"broker_url": url})("queues", "declare")
    names = {name: f"{name}-{uuid4().hex[:8]}" for name in ("shop", "billing", "stranger")}
    with ExitStack() as stack:
        urls = {name: stack.enter_context(amqp_server.user(url, user)) for name, user in names.items()}
        yield Users(url, **urls, names=names)
    amqp_server.drop_vhost(url)


class Service:
    """An intake that reads, on a configuration."""

    def __init__(self, database_url: str, broker_url: str, templates: Path, content: dict[str, Any]) -> None:
        self.database_url, self.broker_url = database_url, broker_url
        settings = Settings(
            database_url=database_url,
            broker_url=broker_url,
            templates=templates,
            structure=Structure.model_validate(content),
        )
        self._services = Services(settings)
        self.engine, self.audit = self._services.engine, self._services.audit
        process = self._services.intake(lambda *_: None).process
        self._stop = Event()
        self._thread = Thread(target=make_reader(broker_url).run, args=(process, self._stop))
        self._thread.start()

    def accepted(self, count: int) -> list[NotificationView]:
        """Wait until so many were accepted."""
        wait_until(lambda: len(self.audit.search(Filter())) == count)
        return self.audit.search(Filter())

    def rejected(self, count: int) -> list[RejectedView]:
        """Wait until so many were rejected; the newest first."""
        wait_until(lambda: len(self.audit.rejected()) == count)
        return self.audit.rejected()

    @property
    def notifier(self) -> CommandLine:
        return CommandLine({"database_url": self.database_url, "broker_url": self.broker_url})

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        self._services.close()


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    folder = write_templates(tmp_path / "templates")
    write_template(folder, "order_shipped", 'sender = "support"')
    return folder


SENDERS = {name: {"email": f"{name}@example.com", "sms": "+15550100100"} for name in ("shop", "support")}


@pytest.fixture
def start(database_url: str, templates: Path) -> Iterator[Any]:
    started: list[Service] = []

    def make(broker_url: str, **content: Any) -> Service:
        content = {"senders": SENDERS, "default_sender": "shop", **content}
        started.append(Service(database_url, broker_url, templates, content))
        return started[-1]

    yield make
    for service in started:
        service.end()


def two(users: Users, **more: Any) -> dict[str, Any]:
    return {
        "producers": {
            "shop": {"broker_user": users.names["shop"], **more},
            "billing": {"broker_user": users.names["billing"]},
        }
    }


def body_of(producer: str, **fields: Any) -> bytes:
    message = {"idempotency_key": uuid4().hex, "producer": producer, "to": "ann@example.com"}
    return json.dumps(message | {"template": "hello", "context": {"name": "Ann"}} | fields).encode()


def codes(rejected: RejectedView) -> list[tuple[str, str]]:
    return [(fault["field"], fault["code"]) for fault in rejected.faults]


NOT_PROVEN = [("producer", "producer_not_proven")]


def test_each_producer_publishes_as_itself_with_the_client_as_it_is(users: Users, start: Any) -> None:
    service = start(users.service, **two(users))
    for producer, url in (("shop", users.shop), ("billing", users.billing)):
        with Client(url, producer=producer) as client:
            client.send("hello", "ann@example.com", context={"name": "Ann"})
            client.send_many([{"to": "bob@example.com"}], channel="email", template="hello", context={"name": "B"})
    found = service.accepted(4)
    assert sorted((n.producer, n.proof) for n in found) == [
        ("billing", "broker_user"),
        ("billing", "broker_user"),
        ("shop", "broker_user"),
        ("shop", "broker_user"),
    ]
    shown = service.notifier("show", found[0].id)
    assert f"{found[0].producer}, proven by its broker user" in shown.out
    assert service.notifier("search", "--json").json[0]["proof"] == "broker_user"
    assert {(n.producer, n.sent_by) for n in found} == {
        (producer, f"user:{users.names[producer]}") for producer in ("shop", "billing")
    }
    assert unproven_producers(service.engine, found[0].accepted_at.replace(year=2020)) == []


def test_nobody_publishes_as_another(users: Users, start: Any) -> None:
    service = start(users.service, **two(users))
    with Client(users.billing, producer="shop") as client:
        client.send("hello", "ann@example.com", context={"name": "Ann"})
    with Client(users.stranger, producer="shop") as client:
        client.send("hello", "ann@example.com", context={"name": "Ann"})
    publish_raw(users.shop, "email.normal", body_of("shop"))
    # Who it is is another producer: so it is not one that nobody knows.
    publish_raw(users.shop, "email.normal", body_of("newsletter"), user_id=users.names["shop"])
    assert [codes(found) for found in service.rejected(4)] == [NOT_PROVEN] * 4
    assert sorted(found.broker_user or "" for found in service.rejected(4)) == sorted(
        ["", users.names["shop"], users.names["billing"], users.names["stranger"]]
    )
    assert service.audit.search(Filter()) == []


def test_a_forged_user_id_does_not_leave_the_producer(users: Users, start: Any) -> None:
    service = start(users.service, **two(users))
    with pytest.raises(PreconditionFailed, match="user_id"):
        publish_raw(users.billing, "email.normal", body_of("shop"), user_id=users.names["shop"])
    liar = Client(users.billing, producer="shop", broker_user=users.names["shop"])
    with pytest.raises(PublishRefused, match=r"another name than broker_user: give .* again does not help"):
        liar.send("hello", "ann@example.com", context={"name": "Ann"})
    # The header of the service's own tools is nothing from anybody else, with a user_id or without.
    voucher = {VOUCHED: users.names["shop"]}
    publish_raw(users.billing, "email.normal", body_of("shop"), headers=voucher, user_id=users.names["billing"])
    publish_raw(users.billing, "email.normal", body_of("shop"), headers=voucher)
    for found in service.rejected(2):
        assert codes(found) == NOT_PROVEN
        assert VOUCHED not in found.headers


def test_a_producers_user_can_publish_to_the_exchange_and_nowhere_else(users: Users) -> None:
    waits = {"timeout": 10, "confirm_timeout": 10}
    for exchange, key in (("", "notify.email.normal"), ("deliver", "deliver.email.normal"), ("notify.dead", "")):
        with amqp_connection(users.shop) as connection, pytest.raises(AccessRefused):
            connection.channel().basic_publish_confirm(amqp.Message(b"{}"), exchange, key, **waits)
    with amqp_connection(users.shop) as connection, pytest.raises(AccessRefused):
        connection.channel().basic_get("notify.email.normal")


def test_every_entry_of_a_batch_is_judged_on_its_own(users: Users, start: Any) -> None:
    service = start(users.service, **two(users, templates=["hello"]))
    own = json.loads(body_of("shop"))
    entries = [
        own,
        json.loads(body_of("billing")),
        json.loads(body_of("cli")),
        {**own, "template": "order_shipped"},
    ]
    body = json.dumps({"batch": entries}).encode()
    publish_raw(users.shop, "email.normal", body, user_id=users.names["shop"])
    [found] = service.accepted(1)
    assert (found.producer, found.proof) == ("shop", "broker_user")
    refused = {rejected.entry: codes(rejected) for rejected in service.rejected(3)}
    assert refused == {1: NOT_PROVEN, 2: NOT_PROVEN, 3: [("template", "template_not_allowed")]}


def test_who_is_in_no_table_is_taken_at_its_word_unless_proof_is_required(users: Users, start: Any) -> None:
    service = start(users.service, **two(users))
    publish_raw(users.stranger, "email.normal", body_of("newsletter"), user_id=users.names["stranger"])
    publish_raw(users.stranger, "email.normal", body_of("newsletter"))
    found = service.accepted(2)
    assert {n.proof for n in found} == {"none"}
    assert "newsletter, not proven" in service.notifier("show", found[0].id).out
    assert unproven_producers(service.engine, found[0].accepted_at.replace(year=2020)) == ["newsletter"]
    service.end()
    service = start(users.service, require_proof=True, **two(users))
    publish_raw(users.stranger, "email.normal", body_of("newsletter"), user_id=users.names["stranger"])
    publish_raw(users.stranger, "email.normal", body_of("newsletter"))
    assert [codes(found) for found in service.rejected(2)] == [NOT_PROVEN] * 2


def test_a_producer_sends_within_its_limits_only(users: Users, start: Any) -> None:
    limits = {"channels": ["email"], "lanes": ["normal", "bulk"], "templates": ["order_*"], "senders": ["support"]}
    service = start(users.service, **two(users, **limits))
    with Client(users.shop, producer="shop") as client:
        # The template goes out as `support` by itself.
        client.send("order_shipped", "ann@example.com", lane="bulk", reply_to="support")
        client.send("order_shipped", "ann@example.com", sender="shop", reply_to="shop")
        client.send("hello", "ann@example.com", lane="urgent", context={"name": "Ann"})
        client.send("code", "+15550100123", sender="support", context={"code": "123456"})
    [found] = service.accepted(1)
    assert (found.template, found.lane) == ("order_shipped", "bulk")
    assert sorted(codes(rejected) for rejected in service.rejected(3)) == [
        [("channel", "channel_not_allowed"), ("template", "template_not_allowed")],
        [("lane", "lane_not_allowed"), ("template", "template_not_allowed"), ("sender", "sender_not_allowed")],
        [("sender", "sender_not_allowed"), ("reply_to", "sender_not_allowed")],
    ]
    for fault in (fault for rejected in service.rejected(3) for fault in rejected.faults):
        assert "[producers.shop] in notifier.toml" in fault["fix"]


def test_the_outbox_relay_proves_who_it_is(users: Users, start: Any) -> None:
    service = start(users.service, **two(users))
    with Wire(users.shop) as wire:
        row = OutboxRow(UUID(int=1), Channel.EMAIL, Lane.NORMAL, body_of("shop"))
        wire.publish(row.channel, row.lane, row.body)
    with Wire(users.shop, broker_user="") as wire:
        wire.publish(Channel.EMAIL, Lane.NORMAL, body_of("shop"))
    assert [n.proof for n in service.accepted(1)] == ["broker_user"]
    assert [codes(found) for found in service.rejected(1)] == [NOT_PROVEN]


def test_what_was_proven_stays_so_when_an_operator_replays_it(users: Users, start: Any, templates: Path) -> None:
    service = start(users.service, **two(users))
    publish_raw(users.shop, "email.normal", body_of("shop", template="welcome"), user_id=users.names["shop"])
    [kept] = service.rejected(1)
    assert (codes(kept), kept.broker_user) == ([("template", "unknown_template")], users.names["shop"])
    assert users.names["shop"] in service.notifier("rejected", "show", kept.id).out
    # Still wrong: it is rejected again, and still known to be the shop's.
    assert service.notifier("rejected", "replay", kept.id).code == 0
    assert [found.broker_user for found in service.rejected(2)] == [users.names["shop"]] * 2
    (templates / "email" / "hello").rename(templates / "email" / "welcome")
    assert service.notifier("rejected", "replay", service.rejected(2)[0].id).code == 0
    assert [(n.proof, n.sent_by) for n in service.accepted(1)] == [("broker_user", f"user:{users.names['shop']}")]


def test_what_was_not_proven_is_not_when_an_operator_replays_it(users: Users, start: Any) -> None:
    service = start(users.service, **two(users))
    headers = {VOUCHED: users.names["shop"], "user_id": users.names["shop"]}
    publish_raw(users.stranger, "email.normal", body_of("shop"), headers=headers)
    publish_raw(users.billing, "email.normal", body_of("shop"), headers=headers, user_id=users.names["billing"])
    service.rejected(2)
    assert service.notifier("rejected", "replay", "--code", "producer_not_proven", "--yes").code == 0
    assert [codes(found) for found in service.rejected(4)] == [NOT_PROVEN] * 4
    assert service.audit.search(Filter()) == []


def test_a_replay_of_the_services_own_user_makes_nobody_the_service(users: Users, start: Any) -> None:
    """The service's user may be a producer's, too: what had no user is not its."""
    [own] = own_users(users.service, None)
    service = start(users.service, producers={"cli": {"broker_user": own}})
    publish_raw(users.stranger, "email.normal", body_of("cli"))
    [kept] = service.rejected(1)
    assert service.notifier("rejected", "replay", kept.id).code == 0
    assert [codes(found) for found in service.rejected(2)] == [NOT_PROVEN] * 2
    with Client(users.service, producer="cli") as client:
        client.send("hello", "ann@example.com", context={"name": "Ann"})
    assert [n.proof for n in service.accepted(1)] == ["broker_user"]


def test_only_the_services_own_user_can_say_who_published_first(
    amqp_server: PrivateRabbitmq, users: Users, start: Any, database_url: str
) -> None:
    service = start(users.service, **two(users))
    publish_raw(users.shop, "email.normal", body_of("shop", template="welcome"), user_id=users.names["shop"])
    [kept] = service.rejected(1)
    with amqp_server.user(users.service, f"ops-{uuid4().hex[:8]}", configure=".*", write=".*", read=".*") as ops:
        notifier = CommandLine({"database_url": database_url, "broker_url": ops})
        assert notifier("rejected", "replay", kept.id).code == 0
        assert NOT_PROVEN[0] in codes(service.rejected(2)[0])


def give_up(url: str, queue: str) -> None:
    """What the broker does after too many deliveries."""
    with Connection(url) as connection:
        channel = connection.channel()
        found: list[Any] = []
        wait_until(lambda: bool(found.append(channel.basic_get(queue)) or found[-1]))
        channel.basic_reject(found[-1].delivery_info["delivery_tag"], requeue=False)


def dead_letters(notifier: CommandLine, count: int) -> Sequence[dict[str, Any]]:
    wait_until(lambda: len(notifier("queues", "dead", "list", "--json").json) == count)
    found: list[dict[str, Any]] = notifier("queues", "dead", "list", "--json").json
    return found


def test_dead_letters_keep_who_published_them(users: Users, start: Any, database_url: str) -> None:
    notifier = CommandLine({"database_url": database_url, "broker_url": users.service})
    publish_raw(users.shop, "email.normal", body_of("shop"), user_id=users.names["shop"])
    publish_raw(users.shop, "email.normal", body_of("shop"), headers={VOUCHED: users.names["shop"]})
    for _ in range(2):
        give_up(users.service, "notify.email.normal")
    # Twice: after the first replay it is the operator's tool that published them.
    for _ in range(2):
        letters = dead_letters(notifier, 2)
        assert {letter["broker_user"] for letter in letters} == {users.names["shop"], None}
        assert notifier("queues", "dead", "replay", "--all", "--yes").code == 0
        for _ in range(2):
            give_up(users.service, "notify.email.normal")
    dead_letters(notifier, 2)
    assert notifier("queues", "dead", "replay", "--all", "--yes").code == 0
    service = start(users.service, **two(users))
    assert [n.proof for n in service.accepted(1)] == ["broker_user"]
    assert [codes(found) for found in service.rejected(1)] == [NOT_PROVEN]


def doctor(database_url: str, broker_url: str, folder: Path, text: str, **more: Any) -> dict[str, tuple[str, str]]:
    """What doctor says about producers and the broker's user: mark, and text with its fix."""
    config = folder / "notifier.toml"
    config.write_text(text)
    settings = {"database_url": database_url, "broker_url": broker_url, "config": config, **more}
    answer = CommandLine(settings)("doctor")
    lines = [line.partition(": ") for line in answer.out.splitlines()]
    return {text: (head[0], head[2:]) for head, _, text in lines if head[2:] in ("producers", "broker user")}


def test_doctor_says_who_is_proven_and_who_is_not(
    users: Users, start: Any, database_url: str, tmp_path: Path
) -> None:
    service = start(users.service)
    with Client(users.stranger, producer="newsletter") as client:
        client.send("hello", "ann@example.com", context={"name": "Ann"})
    service.accepted(1)
    nothing = doctor(database_url, users.service, tmp_path, "")
    [first, second] = nothing
    assert first.startswith("taken at their word: notifier.toml names no broker user of a producer → set the ")
    assert "published without proof in the last 7 days: newsletter → a broker user for each" in second
    text = '[producers.shop]\nbroker_user = "shop"\ntemplates = ["order_*", "both"]\n'
    found = doctor(database_url, users.service, tmp_path, text)
    assert found["proven by their broker users: shop (shop); others are taken at their word"] == ("✓", "producers")
    [slip] = [line for line in found if "order_*" in line]
    assert "correct templates of [producers.shop]" in slip


def test_doctor_says_when_the_services_user_is_not_the_services_alone(
    users: Users, database_url: str, tmp_path: Path
) -> None:
    [own] = own_users(users.service, None)
    shared = doctor(database_url, users.service, tmp_path, f'[producers.shop]\nbroker_user = "{own}"\n')
    assert [mark for mark in shared.values() if mark[1] == "broker user"] == [("!", "broker user")]
    assert any(f"the producer shop uses the service's own user {own}" in line for line in shared)
    guest = doctor(database_url, users.service, tmp_path, "", broker_user="guest")
    assert any("logs in to the broker as guest" in line for line in guest)
    unknown = doctor(database_url, users.service, tmp_path, '[producers.a]\nbroker_user = "a"\n', broker_user="")
    assert any("set NOTIFIER_BROKER_USER" in line for line in unknown)


def test_doctor_says_that_over_redis_nothing_is_proven(
    redis_broker_url: str, database_url: str, tmp_path: Path
) -> None:
    text = '[producers.shop]\nbroker_user = "shop"\n'
    [(said, mark)] = doctor(database_url, redis_broker_url, tmp_path, text).items()
    assert mark == ("!", "producers")
    assert said.startswith("taken at their word: a Redis-protocol broker cannot tell who publishes → ")
    [(said, mark)] = doctor(database_url, redis_broker_url, tmp_path, f"require_proof = true\n{text}").items()
    assert mark == ("✗", "producers")
    assert "use RabbitMQ, or take require_proof out of notifier.toml" in said


def test_an_intake_that_would_refuse_everything_does_not_start(
    redis_broker_url: str, database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "notifier.toml").write_text("require_proof = true\n")
    environment = {
        "PATH": os.environ["PATH"],
        "NOTIFIER_DATABASE_URL": database_url,
        "NOTIFIER_BROKER_URL": redis_broker_url,
        "NOTIFIER_CONFIG": str(tmp_path / "notifier.toml"),
    }
    command = [sys.executable, "-m", "notifier", "intake"]
    ended = forking.run(command, env=environment, capture_output=True, text=True, timeout=patient(60), check=False)
    assert ended.returncode == 2
    assert "require_proof is on, and a Redis-protocol broker cannot tell who publishes" in ended.stderr


def test_over_http_the_key_proves_it_and_the_producers_limits_hold(database_url: str, templates: Path) -> None:
    limits = {"lanes": ["normal"], "senders": ["support"], "broker_user": "shop"}
    api = Api(database_url, templates, structure={"senders": SENDERS, "producers": {"shop": limits}})
    hello = {"channel": "email", "to": "ann@example.com", "template": "hello", "context": {"name": "Ann"}}
    key = api.key(Scope.SEND)

    def send(**fields: Any) -> Reply:
        body = {**hello, "idempotency_key": uuid4().hex, **fields}
        return api("POST", "/v1/notifications", key=key, json_body=body)

    accepted = send(sender="support")
    assert accepted.status == 202
    shown = api("GET", accepted.json["url"], key=api.key(Scope.READ))
    assert shown.json["notification"]["proof"] == "api_key"
    refused = send(lane="urgent")
    assert refused.status == 403
    assert [(e["pointer"], e["code"]) for e in refused.json["errors"]] == [
        ("/lane", "lane_not_allowed"),
        ("/sender", "sender_not_allowed"),
    ]
    api.close()


def test_over_redis_nothing_is_proven_and_nothing_refused_for_it(redis_broker_url: str, start: Any) -> None:
    tables = {"shop": {"broker_user": "shop", "templates": ["hello"]}}
    service = start(redis_broker_url, producers=tables)
    with Client(redis_broker_url, producer="shop") as client:
        client.send("hello", "ann@example.com", context={"name": "Ann"})
        client.send("order_shipped", "ann@example.com")
    assert [(n.proof, n.sent_by) for n in service.accepted(1)] == [("none", None)]
    assert [codes(found) for found in service.rejected(1)] == [[("template", "template_not_allowed")]]
