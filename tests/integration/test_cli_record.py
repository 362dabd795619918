"""The commands that read the record, on a real database."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from datetime import UTC, datetime
from uuid import UUID

import pytest

from notifier.domain.errors import Fault
from notifier.domain.message import Message, new_id
from notifier.domain.statuses import Channel, Lane, OnUnknown, Outcome, Reason, Status
from notifier.security.recipient_hash import HashKey
from notifier.store.engine import make_engine
from notifier.store.ledger import Ledger
from notifier.store.ledger_sql import LISTED_DUPLICATES
from notifier.store.personal_data import PersonalData
from notifier.store.records import DeliveryResult, NewAttempt, NewNotification, NewRejection
from tests.unit.cli.commandline import CommandLine


@pytest.fixture
def ledger(database_url: str) -> Iterator[Ledger]:
    engine = make_engine(database_url, pool_size=1)
    yield Ledger(engine)
    engine.dispose()


@pytest.fixture
def notifier(database_url: str) -> CommandLine:
    return CommandLine({"database_url": database_url})


def accept(ledger: Ledger, to: str = "+15550100123", key: str | None = None, **fields: object) -> UUID:
    message = Message.model_validate(
        {
            "id": new_id(),
            "idempotency_key": key,
            "producer": "shop",
            "to": to,
            "template": "code",
            "context": {"code": "042137"},
            **fields,
        }
    )
    new = NewNotification(message, Channel.SMS, Lane.NORMAL, "abc", OnUnknown.HOLD, 0)
    return ledger.accept([new])[0].id


def fail(ledger: Ledger, notification: UUID) -> None:
    [claim] = ledger.claim([notification], lease_seconds=60)
    started = ledger.start_attempts([NewAttempt(claim, "twilio")], margin_seconds=1)[notification]
    ledger.finish(
        [
            DeliveryResult(
                notification,
                claim.claim,
                Status.FAILED,
                reason=Reason.INVALID_RECIPIENT,
                number=started.number,
                outcome=Outcome.REJECTED,
                code="21211",
            )
        ]
    )


def test_show_tells_the_story_without_the_context(notifier: CommandLine, ledger: Ledger) -> None:
    notification = accept(ledger, reference="A-1")
    fail(ledger, notification)
    answer = notifier("show", notification)
    assert answer.code == 0
    assert answer.out.startswith(f"{notification}  failed: given up\n")
    assert "attempt 1: twilio refused it for good" in answer.out
    assert "042137" not in answer.out + notifier("show", notification, "--json").out


def test_show_as_json_has_attempts_and_events(notifier: CommandLine, ledger: Ledger) -> None:
    notification = accept(ledger)
    fail(ledger, notification)
    story = notifier("show", notification, "--json").json
    assert (story["id"], story["reason"]) == (str(notification), "invalid_recipient")
    assert [attempt["code"] for attempt in story["attempts"]] == ["21211"]
    assert [event["status"] for event in story["events"]] == ["queued", "sending", "failed"]
    assert datetime.fromisoformat(story["accepted_at"]).tzinfo == UTC


def test_show_of_an_unknown_id_says_where_else_to_look(notifier: CommandLine) -> None:
    answer = notifier("show", new_id())
    assert answer.code == 1
    assert "notifier rejected list" in answer.err


def test_search_finds_by_every_condition(notifier: CommandLine, ledger: Ledger) -> None:
    wanted, other = accept(ledger, reference="A-1"), accept(ledger, "+15550100124")
    fail(ledger, wanted)
    for condition in (
        ("--recipient", "+15550100123"),
        ("--reference", "A-1"),
        ("--status", "failed"),
        ("--reason", "invalid_recipient"),
    ):
        assert [found["id"] for found in notifier("search", *condition, "--json").json] == [str(wanted)]
    everything = (
        "search",
        "--producer",
        "shop",
        "--template",
        "code",
        "--channel",
        "sms",
        "--since",
        "1h",
        "--json",
    )
    assert {found["id"] for found in notifier(*everything).json} == {str(wanted), str(other)}
    assert notifier("search", "--until", "1h", "--json").json == []


def test_search_goes_page_by_page(notifier: CommandLine, ledger: Ledger) -> None:
    ids = sorted((str(accept(ledger)) for _ in range(3)), reverse=True)
    first = notifier("search", "--limit", "2")
    assert [line.split("\t")[0] for line in first.out.splitlines()[1:]] == ids[:2]
    assert f"--before {ids[1]}" in first.err
    last = notifier("search", "--limit", "2", "--before", ids[1])
    assert [line.split("\t")[0] for line in last.out.splitlines()[1:]] == ids[2:]
    assert "--before" not in last.err


def reject(ledger: Ledger, body: bytes) -> None:
    fault = Fault("", "not_json", "not readable as JSON", "Publish one JSON object")
    more = Fault("to", "missing", "is missing", "Add it")
    ledger.accept([], [NewRejection("notify.sms.normal", body, (fault, more), {"x-by": "\x1b[2J"}, "shop")])


def test_rejected_messages_are_listed_with_their_reasons(notifier: CommandLine, ledger: Ledger) -> None:
    reject(ledger, b"nope")
    row = notifier("rejected", "list").out.splitlines()[1].split("\t")
    assert row[2:] == ["notify.sms.normal", "shop", "4", "body: not readable as JSON (and 1 more)"]


def test_a_rejected_message_is_shown_with_all_of_it(notifier: CommandLine, ledger: Ledger) -> None:
    reject(ledger, b'{"to": \xff')
    [found] = notifier("rejected", "list", "--json").json
    answer = notifier("rejected", "show", found["id"])
    assert "to: is missing. Add it." in answer.out
    assert "00000000  7b 22 74 6f 22 3a 20 ff" in answer.out
    assert "\x1b" not in answer.out
    assert found["body"]["encoding"] == "base64"


def test_a_rejected_message_comes_back_byte_by_byte(database_url: str, ledger: Ledger) -> None:
    from typer.testing import CliRunner

    from notifier.cli.app import app

    reject(ledger, b"\x00\xff raw\n")
    [found] = CommandLine({"database_url": database_url})("rejected", "list", "--json").json
    environment = {"NOTIFIER_DATABASE_URL": database_url}
    result = CliRunner().invoke(app, ["rejected", "show", found["id"], "--raw"], env=environment)
    assert result.stdout_bytes == b"\x00\xff raw\n"


def test_send_waits_for_what_becomes_of_it(notifier: CommandLine, ledger: Ledger) -> None:
    notification = new_id()
    accept(ledger, id=notification)
    fail(ledger, notification)
    notifier.client = AnswersWith(ledger, notification)
    answer = notifier("send", "code", "+15550100123", "--wait", "5")
    assert answer.code == 1
    assert "failed: given up" in answer.out


def test_send_with_a_used_key_waits_for_the_first_one(notifier: CommandLine, ledger: Ledger) -> None:
    first = accept(ledger, key="k")
    fail(ledger, first)
    notifier.client = AnswersWith(ledger, None)
    answer = notifier("send", "code", "+15550100123", "--key", "k", "--wait", "5", "--json")
    assert answer.json["id"] == str(first)


def test_send_with_a_key_whose_repetitions_are_listed_no_more_still_finds_the_first_one(
    notifier: CommandLine, ledger: Ledger
) -> None:
    first = accept(ledger, key="k")
    for _ in range(LISTED_DUPLICATES):
        accept(ledger, key="k")
    fail(ledger, first)
    notifier.client = AnswersWith(ledger, None)
    answer = notifier("send", "code", "+15550100123", "--key", "k", "--wait", "0.1")
    assert answer.out.startswith(str(first))
    assert f"at least {LISTED_DUPLICATES}" in answer.out


def test_send_tells_that_it_was_rejected(notifier: CommandLine, ledger: Ledger) -> None:
    notifier.client = AnswersWith(ledger, None, rejects=True)
    answer = notifier("send", "code", "+15550100123", "--wait", "5")
    assert answer.code == 1
    assert "body: not readable as JSON. Publish one JSON object." in answer.err


def test_send_gives_up_waiting(notifier: CommandLine) -> None:
    answer = notifier("send", "code", "+15550100123", "--wait", "0.1")
    assert answer.code == 1
    assert "not in the record after 0.1 s" in answer.err


class AnswersWith:
    """A client behind which the intake is at once: it records, repeats or rejects what is sent."""

    def __init__(self, ledger: Ledger, notification: UUID | None, *, rejects: bool = False) -> None:
        self.ledger, self.notification, self.rejects = ledger, notification, rejects

    def send(self, template: str, to: str, **fields: object) -> object:
        from notifier.client.handles import Handle

        key = fields.get("idempotency_key")
        handle_id = self.notification or new_id()
        if self.rejects:
            reject(self.ledger, f'{{"id": "{handle_id}"'.encode())
        elif key:
            accept(self.ledger, to, str(key))
        return Handle(handle_id, str(key or handle_id), Channel.SMS, Lane.NORMAL)


def test_the_beginning_of_an_id_is_enough_to_show_it(notifier: CommandLine, ledger: Ledger) -> None:
    first, second = sorted([accept(ledger), accept(ledger)])
    size = next(size for size in range(36) if str(first)[:size] != str(second)[:size])
    assert notifier("show", str(second)[:size]).out.startswith(str(second))
    both = notifier("show", str(second)[: size - 1])
    assert both.code == 1
    assert str(first) in both.err
    assert notifier("show", "00000000").code == 1


def test_a_search_under_another_hash_key_does_not_say_that_nothing_is_there(
    notifier: CommandLine, ledger: Ledger, database_url: str
) -> None:
    key = "another key of sixteen or more"
    other = CommandLine({"database_url": database_url, "hash_key": key})
    wanted = ("search", "--recipient", "+15550100123")
    # What is on its way gets no new hash.
    fail(ledger, accept(ledger))
    assert notifier(*wanted).code == 0
    answer = other(*wanted)
    assert answer.code == 1
    assert "set NOTIFIER_HASH_KEY to that of the service" in answer.err
    assert "none is found by its address" in other("stuck").err
    engine = make_engine(database_url)
    under_key = Ledger(engine, PersonalData(HashKey(key)))
    fail(under_key, accept(under_key))
    engine.dispose()
    answer = other(*wanted)
    assert (answer.code, "are not found by their address" in answer.err) == (0, True)
    assert other("db", "reseal", "--rehash").code == 0
    answer = other(*wanted, "--json")
    assert len(json.loads(answer.out)) == 2
    assert "hash key" not in answer.err


def test_top_shows_what_waits_and_the_queues(notifier: CommandLine, ledger: Ledger) -> None:
    fail(ledger, accept(ledger))
    accept(ledger)
    answer = notifier("top", "--once")
    assert answer.code == 0
    waits = answer.out.splitlines()[1].split("\t")
    assert waits[:2] == ["sms normal", "1"]
    assert "NOTIFIER_BROKER_URL is not set" in answer.out
    assert json.loads(notifier("top", "--json").out)["gauges"]["waiting"][0]["count"] == 1


@pytest.mark.parametrize("scheme", ["amqp", "redis"])
def test_top_tells_a_broker_that_is_late_from_one_that_is_away(database_url: str, scheme: str) -> None:
    # The kernel takes the connection, and nobody answers.
    with socket.create_server(("127.0.0.1", 0)) as server:
        place = f"127.0.0.1:{server.getsockname()[1]}"
        late = CommandLine({"database_url": database_url, "broker_url": f"{scheme}://{place}/"})
        assert f"the broker at {place}/ did not answer in time" in late("top").out
    problem = json.loads(late("top", "--json").out)["broker_problem"]
    assert problem.startswith(f"the broker at {place}/ cannot be reached")
