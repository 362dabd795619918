"""`POST /v1/notifications`: in the record before the answer, once, or refused with everything that is wrong."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from notifier.api.timeouts import ClientTimeouts
from notifier.domain.statuses import Channel, Lane
from notifier.intake.batch import Received
from notifier.operations.api_keys import Scope
from notifier.store.search import Filter
from tests.support.api import Api, Reply, call, served
from tests.support.counted import counted
from tests.support.slow_statements import make_slow
from tests.support.templates import write_templates
from tests.waiting import patient, wait_until

HELLO: dict[str, Any] = {
    "idempotency_key": "hello-1",
    "channel": "email",
    "to": "Ann <ann@example.com>",
    "template": "hello",
    "context": {"name": "Ann"},
}


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    api = Api(database_url, write_templates(tmp_path))
    yield api
    api.close()


def send(api: Api, **fields: Any) -> Reply:
    key = fields.pop("key", None) or api.key(Scope.SEND)
    return api("POST", "/v1/notifications", key=key, json_body={**HELLO, **fields})


def codes(reply: Reply) -> set[tuple[str, str]]:
    assert reply.headers["content-type"] == "application/problem+json"
    assert reply.json["status"] == reply.status
    return {
        (error.get("pointer") or error.get("parameter") or "", error["code"]) for error in reply.json["errors"]
    }


def test_an_accepted_message_is_in_the_record_and_handed_over(api: Api) -> None:
    reply = send(api, lane="urgent", metadata={"order": "7"})
    assert reply.status == 202
    found = api.services.audit.story(UUID(reply.json["id"])).notification
    assert (found.producer, found.channel, found.lane, found.status) == ("shop", "email", "urgent", "queued")
    assert reply.headers["location"] == reply.json["url"] == f"/v1/notifications/{found.id}"
    assert api.handed.tasks == [("email", "urgent", (found.id,))]


def test_what_is_over_when_it_comes_is_recorded_as_expired_and_not_handed_over(api: Api) -> None:
    over = {"expires_at": "2026-01-01T00:00:00Z"}
    first, again = send(api, **over), send(api, **over)
    queued = json.dumps({**HELLO, **over, "producer": "shop", "idempotency_key": "hello-2"}).encode()
    api.parts.intake.process([Received(queued, Channel.EMAIL, Lane.NORMAL)])
    assert (first.status, again.status, first.json["id"]) == (202, 202, again.json["id"])
    found = api.services.audit.search(Filter())
    assert [(one.status, one.reason) for one in found] == [("expired", "expired")] * 2
    assert api.handed.tasks == []


def test_one_answer_has_everything_that_is_wrong(api: Api) -> None:
    wrong = {"to": "nobody", "context": {}, "sender": "mallory", "lane": "soon", "producer": "bank"}
    expected = {
        ("/to", "not_an_address"),
        ("/context/name", "missing_variable"),
        ("/sender", "unknown_sender"),
    }
    assert codes(send(api, to="nobody", context={}, sender="mallory")) == expected
    expected |= {("/lane", "bad_choice"), ("/producer", "wrong_producer")}
    assert codes(send(api, **wrong)) == expected
    batch: dict[str, Any] = {"batch": [{**HELLO, "to": "nobody", "context": {}}]}
    reply = api("POST", "/v1/notifications/batch", key=api.key(Scope.SEND), json_body=batch)
    assert codes(reply) == {("/batch/0/to", "not_an_address"), ("/batch/0/context/name", "missing_variable")}
    # Without a channel, by the one of the recipient or the template.
    assert codes(send(api, to="nobody", channel=None, context={}, sender="mallory", idempotency_key=None)) == {
        ("/channel", "missing"),
        ("/to", "not_an_address"),
        ("/context/name", "missing_variable"),
        ("/sender", "unknown_sender"),
        ("", "no_key"),
    }
    batch = {
        "rate": 5,
        "batch": [{**HELLO, "idempotency_key": "1"}, {**HELLO, "to": "nobody", "context": {}}],
    }
    reply = api("POST", "/v1/notifications/batch", key=api.key(Scope.SEND), json_body=batch)
    assert codes(reply) == {
        ("/rate", "unknown_field"),
        ("/batch/1/to", "not_an_address"),
        ("/batch/1/context/name", "missing_variable"),
    }
    assert api.services.audit.search(Filter()) == []
    # A key that may not send the template learns nothing of it.
    other = api.key(Scope.SEND, templates=("receipt",))
    assert codes(send(api, key=other, to="nobody", context={})) == {
        ("/to", "not_an_address"),
        ("/template", "template_not_allowed"),
    }


def test_the_same_request_again_is_answered_alike(api: Api) -> None:
    key = api.key(Scope.SEND)
    first, second = send(api, key=key), send(api, key=key)
    assert (first.status, first.body) == (second.status, second.body)
    assert "idempotency-replayed" not in first.headers
    assert second.headers["idempotency-replayed"] == "true"
    assert len(api.services.audit.search(Filter())) == 1
    assert len(api.handed.tasks) == 1


def test_the_same_key_with_another_content_is_a_conflict(api: Api) -> None:
    key = api.key(Scope.SEND)
    send(api, key=key)
    reply = send(api, key=key, context={"name": "Bob"})
    assert reply.status == 409
    assert codes(reply) == {("/idempotency_key", "idempotency_conflict")}


def test_two_producers_may_use_the_same_key(api: Api) -> None:
    ids = {send(api, key=api.key(Scope.SEND, producer=name)).json["id"] for name in ("shop", "bank")}
    assert len(ids) == 2


@pytest.mark.parametrize(
    ("written", "key"),
    [
        ("order-7", "order-7"),
        ('"order-7"', "order-7"),
        ("zür-7".encode(), "zür-7"),
        ("zür-7".encode("latin-1"), "zür-7"),
    ],
    ids=["plain", "quoted", "UTF-8", "Latin-1"],
)
def test_the_header_is_the_contracts_key(api: Api, written: Any, key: str) -> None:
    body = {name: value for name, value in HELLO.items() if name != "idempotency_key"}
    headers = {"Idempotency-Key": written}
    reply = api("POST", "/v1/notifications", key=api.key(Scope.SEND), json_body=body, headers=headers)
    assert reply.status == 202
    assert api.services.audit.search(Filter())[0].idempotency_key == key


def test_a_header_that_says_another_key_than_the_body_is_refused(api: Api) -> None:
    headers = {"Idempotency-Key": "other"}
    reply = api("POST", "/v1/notifications", key=api.key(Scope.SEND), json_body=HELLO, headers=headers)
    assert (reply.status, codes(reply)) == (422, {("/idempotency_key", "key_mismatch")})


def test_everything_that_is_wrong_is_said_at_once(api: Api) -> None:
    with counted("notifier_rejected_total", 1, fault="wrong_producer"):
        reply = send(api, channel=None, to="x", lane="soon", surprise=1, metadata={"a.b": 7}, producer="bank")
    assert reply.status == 422
    assert codes(reply) == {
        ("/channel", "missing"),
        ("/to", "too_short"),
        ("/lane", "bad_choice"),
        ("/surprise", "unknown_field"),
        ("/metadata/a.b", "wrong_type"),
        ("/producer", "wrong_producer"),
    }
    assert api.services.audit.search(Filter()) == []
    assert api.services.audit.rejected() == []


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"template": "helo"}, ("/template", "unknown_template")),
        ({"context": {}}, ("/context/name", "missing_variable")),
        ({"sender": "nobody"}, ("/sender", "unknown_sender")),
        ({"to": "ann@@example"}, ("/to", "not_an_address")),
        ({"idempotency_key": None}, ("", "no_key")),
        ({"to": "+15550100123", "channel": "sms", "template": "hello"}, ("/template", "unknown_template")),
        ({"send_at": "tomorrow"}, ("/send_at", "bad_time")),
        ({"context": {"name": "a\0b"}}, ("/context/name", "nul_character")),
    ],
)
def test_what_the_intake_would_reject_is_refused_with_its_pointer(
    api: Api, fields: dict[str, Any], expected: tuple[str, str]
) -> None:
    reply = send(api, **fields)
    assert reply.status == 422
    assert expected in codes(reply)


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"{", {}, 400),
        (b"\xff", {}, 400),
        (b"[]", {}, 422),
        (b"", {}, 400),
        (b"{}", {"content-type": "text/xml"}, 415),
        (b"{}", {"content-encoding": "gzip"}, 415),
        (b"x" * (1024 * 1024 + 1), {}, 413),
        ([b"x" * 600_000, b"x" * 600_000], {}, 413),
        (b"{}", {"content-length": "99999999"}, 413),
        (b"[" * 500_000, {}, 400),
    ],
)
def test_a_body_that_is_no_json_object_is_refused(api: Api, body: Any, headers: Any, status: int) -> None:
    headers = {"content-type": "application/json", **headers}
    reply = api("POST", "/v1/notifications", key=api.key(Scope.SEND), body=body, headers=headers)
    assert reply.status == status, reply.body
    assert reply.headers["content-type"] == "application/problem+json"


def test_what_each_key_of_a_producer_sent_can_be_told_apart(api: Api) -> None:
    first, second, test = api.key(Scope.SEND), api.key(Scope.SEND), api.key(Scope.SEND, is_test=True)
    entries: dict[str, Any] = {"batch": [{**HELLO, "idempotency_key": str(number)} for number in range(2)]}
    for number, key in enumerate((first, second, test), 2):
        one = {**HELLO, "idempotency_key": str(number)}
        assert api("POST", "/v1/notifications", key=key, json_body=one).status == 202
    assert api("POST", "/v1/notifications/batch", key=first, json_body=entries).status == 202
    found = api("GET", "/v1/notifications", key=api.key(Scope.OPERATE, producer=None)).json["items"]
    sent = Counter((one["sent_by"], one["proof"], one["is_test"]) for one in found)
    names = [f"key:{key.split('_')[2]}" for key in (first, second, test)]
    assert sent == {
        (names[0], "api_key", False): 3,
        (names[1], "api_key", False): 1,
        (names[2], "api_key", True): 1,
    }


def test_every_entry_of_a_batch_is_answered_by_itself(api: Api) -> None:
    batch = {
        "template": "hello",
        "defaults": {"channel": "email", "lane": "bulk"},
        "batch": [
            {"idempotency_key": "1", "to": "ann@example.com", "context": {"name": "Ann"}},
            {"idempotency_key": "2", "to": "nobody", "context": {"name": "Bob"}},
            "not an object",
            {
                "idempotency_key": "4",
                "channel": "sms",
                "template": "code",
                "to": "+15550100123",
                "context": {"code": "7"},
            },
        ],
    }
    with (
        counted("notifier_accepted_total", 1, channel="sms", lane="bulk", source="http"),
        counted("notifier_rejected_total", 1, fault="not_an_object"),
    ):
        reply = api("POST", "/v1/notifications/batch", key=api.key(Scope.SEND), json_body=batch)
    assert reply.status == 202
    assert (reply.json["accepted"], reply.json["refused"]) == (2, 2)
    entries = reply.json["entries"]
    assert [entry.get("status") for entry in entries] == [None, 422, 422, None]
    assert entries[1]["errors"][0]["pointer"] == "/to"
    found = {str(n.id): (n.channel, n.lane) for n in api.services.audit.search(Filter())}
    assert found == {entries[0]["id"]: ("email", "bulk"), entries[3]["id"]: ("sms", "bulk")}


def test_a_batch_of_which_nothing_is_accepted_is_a_problem(api: Api) -> None:
    batch = {"template": "hello", "batch": [{"idempotency_key": "1", "to": "nobody", "channel": "email"}]}
    reply = api("POST", "/v1/notifications/batch", key=api.key(Scope.SEND), json_body=batch)
    assert reply.status == 422
    assert ("/batch/0/to", "not_an_address") in codes(reply)


def test_a_batch_has_its_limits(api: Api) -> None:
    key = api.key(Scope.SEND)
    batch: Sequence[object]
    for batch in ([], [{}] * 1001):
        reply = api("POST", "/v1/notifications/batch", key=key, json_body={"batch": batch})
        assert reply.status == 422
        assert codes(reply) & {("/batch", "too_short"), ("/batch", "too_long")}
    headers = {"Idempotency-Key": "x"}
    reply = api("POST", "/v1/notifications/batch", key=key, json_body={"batch": [{}]}, headers=headers)
    assert codes(reply) == {("Idempotency-Key", "key_not_here")}


def test_a_key_sends_only_what_it_may(api: Api) -> None:
    key = api.key(Scope.SEND, channels=(Channel.SMS,), templates=("order_*",))
    reply = send(api, key=key)
    assert reply.status == 403
    assert codes(reply) == {("/channel", "channel_not_allowed"), ("/template", "template_not_allowed")}


def test_a_fault_of_our_own_is_a_problem_without_a_trace(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise RuntimeError("secret words")

    monkeypatch.setattr(api.services.ledger, "accept", fail)
    reply = send(api)
    assert reply.status == 500
    assert b"secret" not in reply.body
    assert json.loads(reply.body)["errors"][0]["code"] == "technical_error"


def test_while_the_database_is_away_it_says_when_to_come_back(tmp_path: Path) -> None:
    api = Api("postgresql://user:hidden@127.0.0.1:1/none", write_templates(tmp_path))
    token = f"ntf_live_{'0' * 12}_{'0' * 64}"
    reply = send(api, key=token)
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")
    assert b"hidden" not in reply.body
    assert api("GET", "/healthz").status == 200
    ready = api("GET", "/readyz")
    assert (ready.status, ready.json["database"], ready.json["broker"]) == (503, "away", "away")


def send_at_once(api: Api, bodies: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch) -> list[Reply]:
    """Requests of which all but the first are accepted together: they wait while that one is written."""
    key, go, sizes = api.key(Scope.SEND), threading.Event(), []
    answer_each, accept = api.parts.intake.answer_each, api.parts.acceptance.accept
    begun = []

    def held(messages: Any) -> Any:
        sizes.append(len(messages))
        assert go.wait(patient(20))
        return answer_each(messages)

    async def noted(*args: Any, **named: Any) -> Any:
        begun.append(1)
        return await accept(*args, **named)

    monkeypatch.setattr(api.parts.intake, "answer_each", held)
    monkeypatch.setattr(api.parts.acceptance, "accept", noted)
    with served(api.app, ClientTimeouts()) as port, ThreadPoolExecutor(len(bodies)) as threads:
        url = f"http://127.0.0.1:{port}/v1/notifications"
        first = threads.submit(call, "POST", url, key=key, json_body=bodies[0])
        wait_until(lambda: sizes)
        others = []
        for body in bodies[1:]:
            before = len(begun)
            others.append(threads.submit(call, "POST", url, key=key, json_body=body))
            # One behind the other, so that it is known who was first.
            wait_until(partial(_is_longer, begun, before))
        go.set()
        replies = [one.result() for one in [first, *others]]
    assert len(sizes) == 2
    return replies


def test_requests_at_once_are_accepted_together_and_each_is_answered_for_itself(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, *others = send_at_once(
        api,
        [
            HELLO,
            {**HELLO, "idempotency_key": "a", "lane": "urgent"},
            {**HELLO, "idempotency_key": "b", "to": "nobody"},
            HELLO,
            {**HELLO, "idempotency_key": "c", "context": {}},
            {**HELLO, "idempotency_key": "d", "lane": "urgent"},
            {**HELLO, "idempotency_key": "d", "lane": "urgent"},
            {**HELLO, "idempotency_key": "d", "to": "bob@example.com"},
        ],
        monkeypatch,
    )
    assert [reply.status for reply in others] == [202, 422, 202, 422, 202, 202, 409]
    assert codes(others[1]) == {("/to", "not_an_address")}
    assert codes(others[3]) == {("/context/name", "missing_variable")}
    assert codes(others[6]) == {("/idempotency_key", "idempotency_conflict")}
    a, _, again, _, d, d_again, _ = others
    assert (again.body, d_again.body) == (first.body, d.body)
    replayed = [reply.headers.get("idempotency-replayed") for reply in (a, again, d, d_again)]
    assert replayed == [None, "true", None, "true"]
    assert len(api.services.audit.search(Filter())) == 3
    # One task for all of the batch that are for the same workers.
    urgent = tuple(UUID(reply.json["id"]) for reply in (a, d))
    [_, task] = api.handed.tasks
    assert (task[1], set(task[2])) == ("urgent", set(urgent))


def test_a_batch_that_takes_the_database_too_long_is_accepted_in_parts(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_slow(api.services.engine, "INSERT", above=2)
    bodies = [{**HELLO, "idempotency_key": str(number)} for number in range(7)]
    replies = send_at_once(api, bodies, monkeypatch)
    assert [reply.status for reply in replies] == [202] * 7
    assert not any("idempotency-replayed" in reply.headers for reply in replies)
    assert len(api.services.audit.search(Filter())) == 7


def test_what_takes_the_database_too_long_by_itself_is_to_be_sent_again(api: Api) -> None:
    make_slow(api.services.engine, "INSERT", above=0)
    reply = send(api, idempotency_key="slow")
    assert (reply.status, reply.headers["retry-after"]) == (503, "5")


def _is_longer(things: Sequence[object], length: int) -> bool:
    return len(things) > length
