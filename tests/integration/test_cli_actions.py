"""`notifier retry`, `cancel`, `resolve`, `stuck`, `rejected replay|purge` and `queues dead` on real services."""

from __future__ import annotations

import json
import os
import pty
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event, Thread
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import Engine, text

from notifier.broker import amqp_connections, amqp_transport, topology
from notifier.cli.actions import operator
from notifier.config.structure import Structure
from notifier.domain.message import Message, new_id
from notifier.domain.statuses import Channel, Lane, OnUnknown, Reason
from notifier.intake import Intake
from notifier.intake.rabbitmq import AmqpReader
from notifier.intake.redis import RedisReader
from notifier.rendering import Renderer
from notifier.store.circuits import CircuitKey, CircuitRefusal, CircuitRepository
from notifier.store.engine import make_engine, transaction
from notifier.store.ledger import Ledger
from notifier.store.records import NewNotification
from notifier.store.search import Audit, Filter
from tests.support import forking
from tests.support.brokers import publish_raw
from tests.support.columns import set_columns
from tests.support.strange import properties
from tests.support.strange.rabbitmq import publish_properties
from tests.support.templates import write_templates
from tests.unit.cli.commandline import Answer, CommandLine
from tests.waiting import patient, wait_until

ME = operator()


@pytest.fixture
def audit(engine: Engine) -> Audit:
    return Audit(engine)


@pytest.fixture
def notifier(database_url: str) -> CommandLine:
    return CommandLine({"database_url": database_url})


Make = Callable[..., list[UUID]]


@pytest.fixture
def make(engine: Engine) -> Make:
    """Makes notifications that are in a status already."""

    def make_notifications(status: str, count: int = 1, **columns: Any) -> list[UUID]:
        messages = [
            Message(id=new_id(), producer="shop", to="+15550100123", template="code") for _ in range(count)
        ]
        new = [
            NewNotification(message, Channel.SMS, Lane.NORMAL, "v1", OnUnknown.HOLD, position)
            for position, message in enumerate(messages)
        ]
        ids = [answer.id for answer in Ledger(engine).accept(new)]
        with transaction(engine) as connection:
            set_columns(connection, ids, **{"status": status, "due_at": None, **columns})
        return ids

    return make_notifications


def test_retry_by_id_is_told_by_show(notifier: CommandLine, make: Make) -> None:
    [wanted] = make("failed", reason="provider_account", detail="535 no")
    answer = notifier("retry", wanted, "--why", "the password is mended")
    assert (answer.code, answer.out) == (0, "1 retried\n")
    assert "operator record " in answer.err
    shown = notifier("show", wanted).out
    assert "retrying: will be tried again" in shown
    assert f"an operator stepped in — retried by {ME}: the password is mended (operator record " in shown


def test_a_retry_in_the_background_is_a_job_that_can_be_stopped(notifier: CommandLine, make: Make) -> None:
    make("failed", 3)
    retry = ("retry", "--since", "2h", "--background")
    assert notifier(*retry, "--dry-run").out.splitlines()[-1] == "3 would be retried"
    job = notifier(*retry, "--why", "mended", "--json").json["id"]
    assert notifier(*retry).out.endswith(": 3 selected\n")
    assert [one["state"] for one in notifier("jobs", "list", "--json").json] == ["waiting"] * 2
    shown = notifier("jobs", "show", job).out
    assert f"retry by {ME}: mended" in shown
    assert "0 of 3" in shown
    assert "stops after this page" in notifier("jobs", "stop", job, "--why", "wrong ones").out
    assert notifier("jobs", "show", new_id()).code == 1


def test_retry_by_conditions_takes_those_that_failed(notifier: CommandLine, audit: Audit, make: Make) -> None:
    make("failed", 3, reason="provider_unavailable", provider="twilio")
    make("failed", 1, reason="invalid_recipient")
    make("undelivered", 1, reason="provider_unavailable")
    conditions = (
        "--reason",
        "provider_unavailable",
        "--template",
        "code",
        "--provider",
        "twilio",
        "--since",
        "2h",
    )
    counted = notifier("retry", *conditions, "--dry-run")
    assert counted.out.splitlines()[-1] == "3 would be retried"
    assert "3\tfailed\tprovider_unavailable\ttwilio\tcode" in counted.out
    assert notifier("retry", *conditions, "--rate", "50", "--json").json["changed"] == 3
    assert len(audit.search(Filter(status="retrying"))) == 3


def test_retry_says_what_it_left_alone(notifier: CommandLine, make: Make) -> None:
    [sending] = make("sending")
    answer = notifier("retry", sending)
    assert answer.code == 1
    assert answer.out == "0 retried, 1 left alone\n"
    assert f"{sending}  sending: a worker has it in hand" in answer.err


@pytest.mark.parametrize("command", ["retry", "cancel"])
def test_nothing_is_selected_by_accident(notifier: CommandLine, command: str) -> None:
    assert notifier(command).code == 2
    assert notifier(command, new_id(), "--template", "code").code == 2


def test_retry_refuses_a_status_that_has_not_ended(notifier: CommandLine) -> None:
    answer = notifier("retry", "--status", "unknown")
    assert answer.code == 1
    assert "give one of undelivered, failed, expired" in answer.err


def on_a_terminal(database_url: str, answer: str, *arguments: str) -> tuple[int, str]:
    """Run it as a person does, who types `answer`."""
    ours, theirs = pty.openpty()
    environment = {**os.environ, "NOTIFIER_DATABASE_URL": database_url}
    command = [sys.executable, "-m", "notifier", *arguments]
    os.write(ours, f"{answer}\n".encode())
    with forking.launch(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, env=environment, text=True
    ) as process:
        out, _ = process.communicate(timeout=patient(60))
    os.close(ours)
    os.close(theirs)
    return process.returncode, out


def test_on_a_terminal_a_filter_asks_before_it_acts(database_url: str, audit: Audit, make: Make) -> None:
    make("failed", 2)
    code, out = on_a_terminal(database_url, "n", "retry", "--status", "failed")
    assert (code, len(audit.search(Filter(status="failed")))) == (1, 2)
    assert "retry 2?" in out
    code, out = on_a_terminal(database_url, "y", "retry", "--status", "failed")
    assert (code, len(audit.search(Filter(status="retrying")))) == (0, 2)


def test_on_a_terminal_yes_asks_nothing(database_url: str, make: Make) -> None:
    make("failed", 2)
    code, out = on_a_terminal(database_url, "n", "retry", "--status", "failed", "--yes")
    assert (code, "retry 2?" in out) == (0, False)


def test_cancel_stops_what_waits(notifier: CommandLine, audit: Audit, make: Make) -> None:
    make("scheduled", 2)
    [sent] = make("sent")
    assert notifier("cancel", "--template", "code", "--dry-run").out.splitlines()[-1] == "2 would be cancelled"
    assert notifier("cancel", "--status", "scheduled", "--why", "wrong text").out == "2 cancelled\n"
    answer = notifier("cancel", sent)
    assert (answer.code, "cannot be recalled" in answer.err) == (1, True)


def test_resolve_wants_one_of_the_two(notifier: CommandLine, audit: Audit, make: Make) -> None:
    first, second = make("unknown", 2, reason="outcome_unknown")
    assert notifier("resolve", first).code == 2
    assert notifier("resolve", first, "--sent", "--resend").code == 2
    assert "1 would be resolved" in notifier("resolve", first, "--sent", "--dry-run").out
    assert notifier("resolve", first, "--sent", "--why", "Twilio has it").out == "1 resolved\n"
    assert notifier("resolve", second, "--resend").out == "1 resolved\n"
    assert [audit.story(id_).notification.status for id_ in (first, second)] == ["sent", "retrying"]


def test_stuck_tells_and_exits_1(notifier: CommandLine, make: Make) -> None:
    assert (notifier("stuck").code, notifier("stuck").out) == (0, "nothing is stuck\n")
    assert notifier("stuck", "--json").json == []
    ids = make("unknown", 5)
    answer = notifier("stuck")
    assert answer.code == 1
    assert "5 × sms normal: nobody can say whether the provider took it" in answer.out
    assert "and 2 more" in answer.out
    assert "notifier resolve ID --sent or --resend" in answer.err
    [found] = notifier("stuck", "--json").json
    assert (found["cause"], sorted(found["ids"])) == ("held", sorted(map(str, ids)))


def test_stuck_and_providers_name_open_circuits_and_held_senders(
    database_url: str, make: Make, tmp_path: Path
) -> None:
    config = tmp_path / "notifier.toml"
    config.write_text('[[providers]]\nname = "text"\nkind = "vonage"\napi_key = "a"\napi_secret = "b"\n')
    notifier = CommandLine({"database_url": database_url, "config": str(config)})
    engine = make_engine(database_url)
    book = CircuitRepository(engine)
    book.open(CircuitKey("text"), 300, Reason.PROVIDER_ACCOUNT, "no credit", by=None, again=False)
    for id_ in make("queued", 3, due_at="sql: now()"):
        book.refuse(CircuitKey("text", "news"), 60, CircuitRefusal(id_, Reason.SENDER_REFUSED, "15 no"), at_most=3)
    with transaction(engine) as connection:
        connection.execute(text("UPDATE states SET reason = 'provider_account' WHERE status = 'queued'"))
    engine.dispose()
    answer = notifier("stuck")
    assert answer.code == 1
    assert "text refuses our account: nothing is sent through it" in answer.out
    assert "no credit" in answer.out
    assert "3 wait for it, of shop" in answer.out
    assert "text refuses the sender news" in answer.out
    assert "notifier providers resume text" in answer.err
    account, held = [one for one in notifier("stuck", "--json").json if "provider" in one]
    assert (account["cause"], account["waiting"], account["producers"]) == ("circuit_open", 3, ["shop"])
    assert (held["cause"], held["sender"], held["channel"]) == ("sender_held", "news", "sms")
    assert account["since"] < account["until"]
    shown = notifier("providers")
    assert "open, next try in" in shown.out
    assert "held back, next try in" in shown.out
    [view] = notifier("providers", "--json").json
    assert (view["state"], [one["sender"] for one in view["senders"]]) == ("open", ["news"])
    failed = [check for check in notifier("doctor", "--json").json if not check["ok"]]
    assert {"circuit of text", "sender news at text"} <= {check["name"] for check in failed}
    assert notifier("providers", "resume", "text").code == 0
    [view] = notifier("providers", "--json").json
    assert (view["state"], view["senders"]) == ("in use", [])


def test_doctor_warns_of_a_provider_that_an_operator_paused(
    database_url: str, engine: Engine, tmp_path: Path
) -> None:
    config = tmp_path / "notifier.toml"
    config.write_text('[[providers]]\nname = "text"\nkind = "vonage"\napi_key = "a"\napi_secret = "b"\n')
    notifier = CommandLine({"database_url": database_url, "config": str(config)})
    assert notifier("providers", "pause", "text").code == 0
    [pause] = [check for check in notifier("doctor", "--json").json if check["name"].startswith("pause")]
    assert pause["ok"]
    assert pause["fix"] == "notifier providers resume text"


def test_what_waited_for_a_provider_is_due_soon_when_it_is_resumed(
    database_url: str, engine: Engine, make: Make, tmp_path: Path
) -> None:
    config = tmp_path / "notifier.toml"
    config.write_text('[[providers]]\nname = "text"\nkind = "vonage"\napi_key = "a"\napi_secret = "b"\n')
    notifier = CommandLine({"database_url": database_url, "config": str(config)})
    late, paused = (
        "sql: now() + interval '10 minutes'",
        {"reason": "operator", "detail": "every provider is paused"},
    )
    waiting = make("retrying", 300, due_at=late, **paused)
    # Those that an operator spaced, that are limited, or that wait for an answer of their own keep their time.
    make("retrying", due_at=late, reason="operator")
    make("retrying", due_at=late, reason="rate_limited")
    make("retrying", due_at=late, reason="unreachable_recipient")
    assert notifier("providers", "pause", "text").code == 0
    assert "an operator paused every provider" in notifier("stuck").out
    answer = notifier("providers", "resume", "text")
    assert "300 notifications that waited are due within 5 s" in answer.err
    assert "paused" not in notifier("stuck").out
    with transaction(engine) as connection:
        due = connection.execute(
            text("SELECT id, extract(epoch FROM due_at - now()) AS seconds FROM states WHERE status = 'retrying'")
        ).all()
    hastened = {row.id: row.seconds for row in due if row.seconds < 300}
    assert set(hastened) == set(waiting)
    assert len({round(seconds, 3) for seconds in hastened.values()}) == 300, "one after the other"


class Reading:
    """An intake that reads until it is stopped."""

    def __init__(self, database_url: str, broker_url: str, templates: Path) -> None:
        self.engine = make_engine(database_url)
        self.audit = Audit(self.engine)
        self._intake = Intake(
            Ledger(self.engine), Renderer(templates), Structure(), lambda channel, lane, ids: None
        )
        self._stop = Event()
        # The reader declares them too, but a test may publish first.
        CommandLine({"broker_url": broker_url})("queues", "declare")
        reader = RedisReader(broker_url) if broker_url.startswith("redis") else AmqpReader(broker_url)
        self._thread = Thread(target=reader.run, args=(self._intake.process, self._stop))
        self._thread.start()

    def end(self) -> None:
        self._stop.set()
        self._thread.join()
        self.engine.dispose()


@pytest.fixture
def templates(tmp_path: Path) -> Path:
    return write_templates(tmp_path / "templates")


@pytest.fixture
def reading(database_url: str, broker_url: str, templates: Path) -> Iterator[Reading]:
    running = Reading(database_url, broker_url, templates)
    yield running
    running.end()


def body_of(template: str, **fields: Any) -> bytes:
    message = {"idempotency_key": "k", "producer": "shop", "to": "ann@example.com", "template": template}
    return json.dumps(message | {"context": {"name": "Ann"}} | fields).encode()


def test_a_rejected_message_is_replayed_when_its_template_is_there(
    reading: Reading, database_url: str, broker_url: str, templates: Path
) -> None:
    notifier = CommandLine({"database_url": database_url, "broker_url": broker_url})
    publish_raw(broker_url, "email.normal", body_of("welcome"))
    wait_until(lambda: len(reading.audit.rejected()) == 1)
    [kept] = reading.audit.rejected()
    assert notifier("rejected", "replay", "--code", kept.faults[0]["code"], "--dry-run").out.endswith(
        "1 would be replayed\n"
    )
    (templates / "email" / "hello").rename(templates / "email" / "welcome")
    assert notifier("rejected", "replay", kept.id, "--why", "the template is there").code == 0
    wait_until(lambda: len(reading.audit.search(Filter())) == 1)
    again = notifier("rejected", "replay", kept.id)
    assert (again.code, "it was replayed at" in again.err) == (1, True)
    assert notifier("rejected", "replay", kept.id, "--again").code == 0
    [accepted] = reading.audit.search(Filter())
    wait_until(lambda: reading.audit.story(accepted.id).duplicates == 1)


def test_what_is_still_wrong_comes_back_as_rejected(reading: Reading, database_url: str, broker_url: str) -> None:
    notifier = CommandLine({"database_url": database_url, "broker_url": broker_url})
    publish_raw(broker_url, "sms.bulk", b"\xff\x00 no JSON", headers={"trace": "t1"})
    wait_until(lambda: len(reading.audit.rejected()) == 1)
    assert "1 replayed" in notifier("rejected", "replay", "--since", "1h").out.splitlines()
    wait_until(lambda: len(reading.audit.rejected()) == 2)
    first, second = reading.audit.rejected()
    assert (first.body, first.queue, first.headers["trace"]) == (second.body, second.queue, "t1")


def test_rejected_messages_are_purged_by_age(
    reading: Reading, database_url: str, broker_url: str, engine: Engine
) -> None:
    notifier = CommandLine({"database_url": database_url})
    publish_raw(broker_url, "sms.bulk", b"no JSON")
    wait_until(lambda: len(reading.audit.rejected()) == 1)
    assert notifier("rejected", "purge").code == 2
    assert notifier("rejected", "purge", "--older-than", "30d").out == "0 deleted\n"
    [kept] = reading.audit.rejected()
    assert notifier("rejected", "purge", kept.id, "--why", "a test").out == "1 deleted\n"
    assert reading.audit.rejected() == []


@pytest.fixture
def dead(amqp_url: str, database_url: str) -> CommandLine:
    """A broker with two dead letters of different queues."""
    notifier = CommandLine({"database_url": database_url, "broker_url": amqp_url})
    notifier("queues", "declare")
    for key in ("email.normal", "sms.bulk"):
        publish_raw(amqp_url, key, body_of("hello", reference=key), headers={"trace": "t1"})
        give_up(amqp_url, f"notify.{key}")
    wait_until(lambda: waiting(notifier, topology.DEAD_QUEUE) == 2)
    return notifier


def give_up(url: str, queue: str) -> None:
    """What the broker does after too many deliveries."""
    with amqp_connections.AmqpBrokerConnection(url) as connection:
        channel = connection.channel()
        found: list[Any] = []
        wait_until(lambda: bool(found.append(channel.basic_get(queue)) or found[-1]))
        channel.basic_reject(found[-1].delivery_info["delivery_tag"], requeue=False)


def waiting(notifier: CommandLine, queue: str) -> int:
    states = {state["queue"]: state["messages"] for state in notifier("queues", "--json").json}
    found: int = states[queue]
    return found


def listed(notifier: CommandLine) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = notifier("queues", "dead", "list", "--json").json
    return found


def test_dead_letters_are_looked_at_where_they_lie(dead: CommandLine) -> None:
    first = listed(dead)
    assert {letter["queue"] for letter in first} == {"notify.email.normal", "notify.sms.bulk"}
    assert first == listed(dead)
    assert first[0]["id"] in dead("queues", "dead", "list").out
    answer = dead("queues", "dead", "show", first[0]["id"])
    assert answer.code == 0
    assert "ann@example.com" in answer.out
    assert dead("queues", "dead", "show", "none").code == 1
    wait_until(lambda: waiting(dead, topology.DEAD_QUEUE) == 2)


def test_a_dead_letter_goes_back_to_its_queue_and_can_die_again(dead: CommandLine) -> None:
    [letter] = [letter for letter in listed(dead) if letter["queue"] == "notify.sms.bulk"]
    answer = dead("queues", "dead", "replay", letter["id"], "--why", "the intake is mended")
    assert (answer.code, answer.out) == (0, "1 replayed\n")
    wait_until(lambda: (waiting(dead, "notify.sms.bulk"), waiting(dead, topology.DEAD_QUEUE)) == (1, 1))
    give_up(dead.settings["broker_url"], "notify.sms.bulk")
    wait_until(lambda: waiting(dead, topology.DEAD_QUEUE) == 2)
    [again] = [found for found in listed(dead) if found["queue"] == "notify.sms.bulk"]
    assert (again["body"], again["headers"]["trace"]) == (letter["body"], "t1")


def test_all_dead_letters_go_back_to_their_queues(dead: CommandLine) -> None:
    assert dead("queues", "dead", "replay").code == 2
    assert dead("queues", "dead", "replay", "--all").out == "2 replayed\n"
    wait_until(lambda: waiting(dead, "notify.email.normal") == waiting(dead, "notify.sms.bulk") == 1)
    assert dead("queues", "dead", "replay", "--all").out == "0 replayed\n"


def test_a_dead_letter_that_cannot_be_read_is_shown_and_goes_back_byte_for_byte(
    dead: CommandLine, amqp_url: str
) -> None:
    raw = properties.wire({"content_type": b"\xff", "application_headers": b"\x01tT" + b"\xff" * 8})
    publish_properties(amqp_url, "notify", b"email.normal", raw, b"odd")
    give_up(amqp_url, "notify.email.normal")
    wait_until(lambda: waiting(dead, topology.DEAD_QUEUE) == 3)
    odd = listed(dead)[2]
    assert (odd["queue"], odd["reason"]) == ("notify.email.normal", "rejected")
    assert "not UTF-8" in odd["problem"]
    assert "unreadable" in dead("queues", "dead", "show", odd["id"]).out
    assert dead("queues", "dead", "replay", "--all").out == "3 replayed\n"
    with amqp_connections.AmqpBrokerConnection(amqp_url) as connection:
        channel = connection.channel()
        found = [channel.basic_get("notify.email.normal", no_ack=True) for _ in range(2)][1]
    # RabbitMQ adds a header of its own to each delivery.
    given = amqp_transport.raw_properties(found)
    assert amqp_transport.to_publish_again(given, lambda name: name == "x-delivery-count") == raw
    assert bytes(found.body) == b"odd"


def test_dead_letters_are_purged_with_a_count(dead: CommandLine, engine: Engine) -> None:
    one = listed(dead)[0]["id"]
    assert dead("queues", "dead", "purge", one).out == "1 deleted\n"
    answer = dead("queues", "dead", "purge", one)
    assert (answer.code, "there is no such dead letter" in answer.err) == (1, True)
    assert dead("queues", "dead", "purge", "--all").out == "1 deleted\n"
    with transaction(engine) as connection:
        query = "SELECT operator, action FROM operator_records ORDER BY at"
        assert set(map(tuple, connection.execute(text(query)))) == {(ME, "purge_dead")}


def test_redis_has_no_dead_queue(redis_broker_url: str, database_url: str) -> None:
    notifier = CommandLine({"database_url": database_url, "broker_url": redis_broker_url})
    answer: Answer = notifier("queues", "dead", "list", "--json")
    assert (answer.code, answer.json) == (0, [])
    assert "has no dead queue" in answer.err
    answer = notifier("queues", "dead", "replay", "--all")
    assert (answer.code, "has no dead queue" in answer.err) == (1, True)


def test_a_broker_that_is_away_is_told_without_its_password(database_url: str) -> None:
    for url in ("amqp://user:hidden@127.0.0.1:1/", "redis://:hidden@127.0.0.1:1/0"):
        answer = CommandLine({"database_url": database_url, "broker_url": url})("queues", "dead", "list")
        assert (answer.code, "hidden" in answer.err) == (1, False)
