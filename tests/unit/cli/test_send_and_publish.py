"""`notifier send` and `notifier publish`, with a client that records."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from notifier.client.client import RecordingClient
from notifier.domain.errors import PublishFailed
from notifier.domain.statuses import Channel, Lane
from tests.unit.cli.commandline import CommandLine

ROWS = "to,name\nann@example.com,Ann\nnobody,Bob\nzoe@example.com,Zoë\n"


def test_send_publishes_one_message(notifier: CommandLine) -> None:
    answer = notifier("send", "code", "+15550100123", "-c", "code=042137", "-c", "minutes=10", "--key", "k")
    [message] = notifier.sent
    assert answer.code == 0
    assert answer.out == f"{message.id}\n"
    assert f"next: notifier show {message.id}" in answer.err
    assert message.context == {"code": "042137", "minutes": 10}
    assert (message.channel, message.lane, message.idempotency_key) == (Channel.SMS, Lane.NORMAL, "k")


def test_send_takes_every_field(notifier: CommandLine) -> None:
    options = "--lane urgent --locale fr --sender shop --reply-to support --reference A-1 --metadata a=b"
    times = ["--send-at", "2h", "--expires-at", "2099-01-01"]
    notifier("send", "hello", "Ann <ann@example.com>", *options.split(), *times, "--context", '{"name": "Ann"}')
    [message] = notifier.sent
    assert (message.lane, message.locale, message.sender) == (Lane.URGENT, "fr", "shop")
    assert (message.reply_to, message.reference, message.metadata) == ("support", "A-1", {"a": "b"})
    assert message.send_at < message.expires_at


def test_send_as_json_prints_the_handle_and_no_hint(notifier: CommandLine) -> None:
    answer = notifier("send", "hello", "ann@example.com", "--json")
    assert answer.json["id"] == str(notifier.sent[0].id)
    assert answer.err == ""


def test_send_tells_every_fault(notifier: CommandLine) -> None:
    answer = notifier("send", "hello world", "nobody")
    assert answer.code == 1
    assert answer.err.count("\n  ") >= 1
    assert not notifier.sent


@pytest.mark.parametrize(
    ("template", "to", "options", "told"),
    [
        ("hello", "adaexample.com", (), {"to", "context.name"}),
        ("hello", "adaexample.com", ("--channel", "email"), {"to", "context.name"}),
        # The number of minutes is text of a number: right, as the template is that of the only channel.
        ("code", "015550100123", ("-c", "minutes=5"), {"to", "context.code"}),
        ("elsewhere", "adaexample.com", (), {"to"}),
    ],
)
def test_a_refused_message_is_held_against_the_templates_at_hand(
    notifier: CommandLine, template: str, to: str, options: tuple[str, ...], told: set[str]
) -> None:
    answer = notifier("send", template, to, *options)
    assert answer.code == 1
    assert {
        name
        for name in ("to", "context.name", "context.code", "context.minutes", "template")
        if f"\n  {name}:" in answer.err
    } == told
    assert not notifier.sent


def test_publish_sends_good_lines_and_exits_1_for_bad_ones(notifier: CommandLine, tmp_path: Path) -> None:
    file = tmp_path / "people.csv"
    file.write_text(ROWS, "utf-8")
    answer = notifier("publish", file, "--template", "hello", "--producer", "shop")
    assert answer.code == 1
    assert [(m.to, m.context) for m in notifier.sent] == [
        ("ann@example.com", {"name": "Ann"}),
        ("zoe@example.com", {"name": "Zoë"}),
    ]
    assert answer.out == "3 lines read: 2 published, 1 not\n"
    assert f"{file}:3: to: not an e-mail address." in answer.err
    assert "nothing is sent twice" in answer.err


def test_publish_reads_json_lines_from_standard_input(notifier: CommandLine) -> None:
    line = {"to": "+15550100123", "template": "code", "context": {"code": "1", "minutes": 5}}
    answer = notifier("publish", "-", stdin=json.dumps(line) + "\n")
    assert answer.code == 0
    assert notifier.sent[0].context == line["context"]


def test_publish_gives_cells_the_types_of_the_template(notifier: CommandLine) -> None:
    rows = "to,code,minutes\n+15550100123,042137,5\n"
    notifier("publish", "-", "--format", "csv", "--template", "code", stdin=rows)
    assert notifier.sent[0].context == {"code": "042137", "minutes": 5}


def test_publish_again_has_the_same_keys(notifier: CommandLine) -> None:
    for _ in range(2):
        notifier("publish", "-", "--format", "csv", "--template", "hello", stdin=ROWS)
    keys = [message.idempotency_key for message in notifier.sent]
    assert keys[:2] == keys[2:]


def test_publish_as_json_has_every_bad_line(notifier: CommandLine, tmp_path: Path) -> None:
    rows = "to\n" + "nobody\n" * 30
    errors = tmp_path / "errors.jsonl"
    arguments = ("publish", "-", "--format", "csv", "--template", "hello", "--errors", errors)
    answer = notifier(*arguments, "--json", stdin=rows)
    assert (answer.json["read"], answer.json["sent"], answer.json["failed"]) == (30, 0, 30)
    assert [bad["line"] for bad in answer.json["errors"]] == list(range(2, 32))
    assert [json.loads(line) for line in errors.read_text().splitlines()] == answer.json["errors"]


def test_publish_shows_the_first_bad_lines_to_people(notifier: CommandLine) -> None:
    answer = notifier("publish", "-", "--format", "csv", "--template", "hello", stdin="to\n" + "nobody\n" * 30)
    assert answer.err.count("not an e-mail address") == 20
    assert "and 10 more bad lines" in answer.err


def test_publish_refuses_files_that_it_cannot_read(notifier: CommandLine, tmp_path: Path) -> None:
    strange = tmp_path / "people.xlsx"
    strange.write_bytes(b"PK")
    assert notifier("publish", strange).code == 2
    assert notifier("publish", tmp_path / "nosuch.csv").code == 2
    assert notifier("publish", "-", "--format", "csv", stdin="name\nAnn\n").code == 2
    assert not notifier.sent


class AbsentBroker(RecordingClient):
    def send_many(self, *arguments: Any, **options: Any) -> Any:
        raise PublishFailed("the broker did not confirm the message (TimeoutError); publish again")


def test_publish_says_how_far_it_came_when_the_broker_goes_away() -> None:
    answer = CommandLine(client=AbsentBroker())(
        "publish", "-", "--template", "hello", stdin='{"to":"a@example.com"}'
    )
    assert answer.code == 1
    assert answer.out == "1 lines read: 0 published, 0 not\n"
    assert "Run the same command again: nothing is sent twice" in answer.err
    assert "did not confirm" in answer.err
