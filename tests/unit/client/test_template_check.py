"""When the list of templates is read again, and what a client that cannot read it does."""

from __future__ import annotations

import json
from typing import Any

import pytest

from notifier import Client, ConfigurationError, InvalidMessage
from notifier.client.addresses import ApiSearch
from notifier.client.conversations import ApiReply
from notifier.client.service_api import ServiceApi
from notifier.client.template_check import AGAIN_SECONDS, FRESH_SECONDS, REFRESH_SECONDS, TemplateCheck
from notifier.domain.message import Message
from notifier.domain.statuses import Channel

NAME = {"type": "string", "required": True, "secret": False, "description": ""}
HELLO = {"channel": "email", "name": "hello", "is_broken": False, "variables": {"name": NAME}}
ITEMS = {
    **NAME,
    "type": "list",
    "of": {
        "type": "object",
        "required": True,
        "description": "",
        "of": None,
        "fields": {"n": {"type": "integer"}},
    },
}


class Lists:
    """Stands where the API is."""

    def __init__(self) -> None:
        self.reads = 0
        self.reply = ApiReply(200, json.dumps([HELLO]).encode())

    def run(self, _: Any) -> ApiReply:
        self.reads += 1
        return self.reply


def fields(check: TemplateCheck, template: str = "hello", **context: Any) -> list[str]:
    message = Message(
        producer="shop", idempotency_key="k", to="a@example.com", template=template, context=context,
        channel=Channel.EMAIL,
    )  # fmt: skip
    return [fault.field for fault in check.faults(message)]


def test_a_list_serves_for_a_while_and_a_fault_is_told_by_a_fresh_one_only() -> None:
    lists, now = Lists(), [1000.0]
    check = TemplateCheck(lists, lambda: now[0])  # type: ignore[arg-type]
    assert (fields(check, name="Ann"), lists.reads) == ([], 1)
    assert (fields(check), fields(check, "other"), lists.reads) == (["context.name"], ["template"], 1)
    now[0] += FRESH_SECONDS
    # Deployed meanwhile.
    lists.reply = ApiReply(200, json.dumps([HELLO, {**HELLO, "name": "other"}]).encode())
    assert (fields(check, name="Ann"), lists.reads) == ([], 1)
    assert (fields(check, "other", name="Ann"), lists.reads) == ([], 2)
    now[0] += REFRESH_SECONDS
    assert (fields(check, name="Ann"), lists.reads) == ([], 3)


def test_without_an_answer_nothing_is_checked_and_it_is_seldom_asked() -> None:
    lists, now = Lists(), [1000.0]
    check = TemplateCheck(lists, lambda: now[0])  # type: ignore[arg-type]
    for reply in (ApiReply(problem="no answer"), ApiReply(429), ApiReply(200, b"<html>")):
        lists.reply, reads = reply, lists.reads
        assert [fields(check), fields(check, "other"), lists.reads - reads] == [[], [], 1]
        now[0] += AGAIN_SECONDS
    lists.reply = ApiReply(200, json.dumps([HELLO]).encode())
    assert fields(check) == ["context.name"]
    now[0] += FRESH_SECONDS
    lists.reply = ApiReply(503)
    assert fields(check) == []


def test_a_refused_key_is_an_error_until_a_list_was_read_and_then_a_line_in_the_log(
    caplog: pytest.LogCaptureFixture,
) -> None:
    lists, now = Lists(), [1000.0]
    check = TemplateCheck(lists, lambda: now[0])  # type: ignore[arg-type]
    lists.reply, good = ApiReply(401), lists.reply
    for _ in range(2):
        with pytest.raises(ConfigurationError, match="refuses the key") as refused:
            fields(check)
        assert refused.value.setting == "NOTIFIER_API_KEY"
    lists.reply = ApiReply(404)
    with pytest.raises(ConfigurationError, match="correct its address"):
        fields(check)
    lists.reply = good
    assert fields(check) == ["context.name"]
    assert caplog.messages == []
    lists.reply = ApiReply(401)
    for _ in range(3):
        now[0] += REFRESH_SECONDS
        assert fields(check) == []
    lists.reply = good
    now[0] += REFRESH_SECONDS
    assert fields(check) == ["context.name"]
    assert ["unchecked" in line for line in caplog.messages] == [True, False]


def test_without_a_key_every_message_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFIER_API_KEY", raising=False)
    check = TemplateCheck(ServiceApi(ApiSearch(api_url="http://127.0.0.1:1").find, 1.0))
    for _ in range(3):
        with pytest.raises(ConfigurationError, match="there is no key"):
            fields(check)


def test_a_name_that_one_channel_has_tells_the_channel() -> None:
    lists = Lists()
    sms = {**HELLO, "channel": "sms"}
    lists.reply = ApiReply(200, json.dumps([HELLO, sms, {**sms, "name": "code"}]).encode())
    check = TemplateCheck(lists)  # type: ignore[arg-type]
    assert [check.channel_of(name) for name in ("code", "hello", "other", 5)] == [Channel.SMS, None, None, None]
    client = Client("redis://127.0.0.1:1/0", producer="shop", templates=True)
    client._templates = check
    with pytest.raises(InvalidMessage) as refused:
        client.send("code", "555")
    assert {fault.field: fault.code for fault in refused.value.faults} == {
        "to": "not_e164",
        "context.name": "missing_variable",
    }


def test_members_and_entries_are_checked_too() -> None:
    lists = Lists()
    broken = {**HELLO, "name": "broken", "is_broken": True}
    lists.reply = ApiReply(200, json.dumps([{**HELLO, "variables": {"items": ITEMS}}, broken]).encode())
    check = TemplateCheck(lists)  # type: ignore[arg-type]
    assert fields(check, items=[{"n": 1}, {"n": "x"}]) == ["context.items.1.n"]
    assert fields(check, "broken") == ["template"]
