"""Lines are published in chunks: bad ones are set aside, good ones go, and publishing again is safe."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import pytest

from notifier.cli.batch_publisher import CHUNK, BadLine, BatchDefaults, BatchPublisher, LineKeys
from notifier.cli.message_files import Line
from notifier.client.client import RecordingClient
from notifier.domain.errors import Fault, PublishFailed
from notifier.domain.statuses import Channel, Lane


def text_stays(
    channel: Channel, template: object, context: Mapping[str, Any], texts: Iterable[str]
) -> dict[str, Any]:
    return dict(context)


class Run:
    """One run, and what came of it."""

    def __init__(self, lines: Iterable[Line], client: Any = None, **fields: Any) -> None:
        self.client = client or RecordingClient(producer="cli")
        self.bad: list[BadLine] = []
        defaults = BatchDefaults("cli", fields={"template": "hello", **fields})
        self.publishing = BatchPublisher(self.client, defaults, self.bad.append, text_stays)
        self.lines = lines

    def to_the_end(self) -> Run:
        for _ in self.publishing.run(self.lines):
            pass
        return self

    @property
    def sent(self) -> list[Any]:
        return [recorded.message for recorded in self.client.sent]


def lines_to(*recipients: str) -> list[Line]:
    return [Line(number, {"to": to}) for number, to in enumerate(recipients, start=2)]


def test_a_bad_line_does_not_keep_the_others() -> None:
    run = Run(lines_to("a@example.com", "nobody", "b@example.com")).to_the_end()
    assert [message.to for message in run.sent] == ["a@example.com", "b@example.com"]
    assert [(bad.line, bad.faults[0].field) for bad in run.bad] == [(3, "to")]
    progress = run.publishing.progress
    assert (progress.read, progress.sent, progress.failed, progress.complete) == (3, 2, 1, True)


def test_lines_go_to_their_own_channel_and_lane() -> None:
    lines = [
        Line(1, {"to": "+15550100123"}),
        Line(2, {"to": "a@example.com", "lane": "urgent"}),
        Line(3, {"to": "a@example.com", "lane": "huge"}),
        Line(4, {"to": "a@example.com", "channel": "sms"}),
    ]
    run = Run(lines).to_the_end()
    assert {(message.channel, message.lane) for message in run.sent} == {
        (Channel.SMS, Lane.BULK),
        (Channel.EMAIL, Lane.URGENT),
    }
    assert [(bad.line, bad.faults[0].field) for bad in run.bad] == [(3, "lane"), (4, "to")]


def test_defaults_fill_what_a_line_leaves_open() -> None:
    line = Line(1, {"to": "a@example.com", "context": {"name": "Ann"}, "locale": "fr"})
    run = Run([line], context={"name": "you", "city": "Bonn"}, locale="en", reference="r").to_the_end()
    [message] = run.sent
    assert message.context == {"name": "Ann", "city": "Bonn"}
    assert (message.locale, message.reference, message.template) == ("fr", "r", "hello")


def test_the_same_lines_have_the_same_keys_in_every_run() -> None:
    lines = lines_to("a@example.com", "b@example.com", "a@example.com")
    first = [message.idempotency_key for message in Run(lines).to_the_end().sent]
    again = [message.idempotency_key for message in Run(lines).to_the_end().sent]
    assert first == again
    assert len(set(first)) == 3
    assert all(key.startswith("publish:") for key in first)


def test_a_key_does_not_depend_on_bad_lines_before_it() -> None:
    broken = Line(2, faults=(Fault("", "not_json", "not JSON", "Mend it"),))
    [key] = [m.idempotency_key for m in Run([broken, *lines_to("a@example.com")]).to_the_end().sent]
    [other] = [m.idempotency_key for m in Run(lines_to("a@example.com")).to_the_end().sent]
    assert key == other


def test_a_line_keeps_its_own_key_or_id() -> None:
    id_ = "01a20470-9331-73b2-88dc-ad24a063248d"
    lines = [
        Line(1, {"to": "a@example.com", "idempotency_key": "mine"}),
        Line(2, {"to": "a@example.com", "id": id_}),
    ]
    run = Run(lines)
    entries = [run.publishing._completed(line) for line in lines]
    assert entries[0]["idempotency_key"] == "mine"
    assert "idempotency_key" not in entries[1]


def test_keys_tell_producers_and_templates_apart() -> None:
    content = {"to": "a@example.com"}
    keys = {LineKeys(producer, template).next(content) for producer in "ab" for template in "xy"}
    assert len(keys) == 4


def test_it_takes_no_more_than_a_chunk_ahead() -> None:
    taken = 0

    def endless() -> Iterable[Line]:
        nonlocal taken
        while True:
            taken += 1
            yield Line(taken, {"to": "a@example.com"})

    chunks = Run(endless()).publishing.run(endless())
    next(chunks)
    assert taken == CHUNK


class FailingClient(RecordingClient):
    """A broker that goes away after the first chunk."""

    def send_many(self, *arguments: Any, **options: Any) -> Any:
        if self.sent:
            raise PublishFailed("no confirmation")
        return super().send_many(*arguments, **options)


def test_a_broker_that_goes_away_ends_it_with_what_is_done() -> None:
    run = Run(lines_to(*["a@example.com"] * (CHUNK + 1)), FailingClient(producer="cli"))
    with pytest.raises(PublishFailed):
        run.to_the_end()
    progress = run.publishing.progress
    assert (progress.sent, progress.complete) == (CHUNK, False)
