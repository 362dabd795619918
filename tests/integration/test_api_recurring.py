"""Recurring notifications over HTTP: a producer keeps its own, and an operator stops anybody's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from notifier.operations.api_keys import Scope
from notifier.store.operator_actions import OperatorActions
from tests.support.api import Api
from tests.support.templates import write_templates
from tests.unit.cli.commandline import CommandLine


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    made = Api(database_url, write_templates(tmp_path / "templates"))
    yield made
    made.close()


def plan(*people: str, **fields: Any) -> dict[str, Any]:
    lines = [{"to": f"{one}@example.com", "context": {"name": one}} for one in people or ("ann", "bo")]
    made = {"name": "digest", "cron": "30 9 * * 1-5", "zone": "Europe/Berlin", "channel": "email"}
    return {**made, "template": "hello", "recipients": lines} | fields


def test_who_revokes_a_key_is_told_which_plans_go_on(api: Api, database_url: str) -> None:
    leaked, other, bank = api.key(Scope.SEND), api.key(Scope.SEND), api.key(Scope.SEND, producer="bank")
    operating = api.key(Scope.OPERATE, producer=None)

    def add(key: str, name: str) -> str:
        return str(api("POST", "/v1/recurring", key=key, json_body=plan(name=name)).json["id"])

    evil, own, paused, theirs = add(leaked, "evil"), add(other, "own"), add(other, "paused"), add(bank, "theirs")
    assert api("POST", f"/v1/recurring/{paused}/pause", key=other).status == 200
    notifier = CommandLine({"database_url": database_url})
    said = notifier("keys", "revoke", leaked.split("_")[2], "--why", "leaked").err
    assert f"notifier recurring pause {evil}   # evil, made or changed with this key\n" in said
    assert f"notifier recurring pause {own}   # own, of shop\n" in said
    assert [paused in said, theirs in said] == [False, False]
    # An operator's key has no producer: what it changed is named.
    assert api("POST", f"/v1/recurring/{theirs}/run", key=operating).status == 200
    left = api.parts.keys.plans_left(operating.split("_")[2])
    assert [(one.name, one.is_by_key) for one in left] == [("theirs", True)]


def test_a_producer_keeps_its_own_list(api: Api) -> None:
    key = api.key(Scope.SEND, Scope.READ)
    made = api("POST", "/v1/recurring", key=key, json_body=plan(reason="every working day"))
    assert (made.status, made.json["recipients"], made.json["refused"]) == (201, 2, [])
    record = OperatorActions(api.services.engine).record(UUID(made.json["record_id"]))
    assert (record.action, record.reason) == ("recurring_add", "every working day")
    one = f"/v1/recurring/{made.json['id']}"
    assert api("POST", "/v1/recurring", key=key, json_body=plan()).status == 409
    more = {"recipients": [{"to": "cy@example.com", "context": {"name": "Cy"}}, {"to": "dee@example.com"}]}
    added = api("POST", f"{one}/recipients", key=key, json_body=more)
    [refused] = added.json["refused"]
    assert (refused["line"], refused["faults"][0]["field"]) == (2, "context.name")
    gone = api(
        "POST", f"{one}/recipients/remove", key=key, json_body={"recipients": ["Ann@example.com", "x@example.com"]}
    )
    assert gone.json == {"count": 1}
    found = api("GET", one, key=key).json
    assert (found["recurring"]["recipients"], found["recurring"]["state"], len(found["times"])) == (
        3,
        "waiting",
        5,
    )
    assert "example.com" not in str(found)
    assert (
        api("PUT", f"{one}/recipients", key=key, json_body={"recipients": plan("eve")["recipients"]}).status == 200
    )
    assert api("POST", f"{one}/run", key=key).status == 200
    assert api("POST", f"{one}/run", key=key).status == 409
    assert api.services.recurring_runs.tick() == {"accepted": 1, "refused": 0}
    [sent] = api("GET", "/v1/notifications", key=key, reference="digest").json["items"]
    assert (sent["recipient"], sent["lane"], sent["proof"]) == ("eve@example.com", "bulk", "service")
    assert api("POST", f"{one}/pause", key=key, json_body={"reason": "holidays"}).status == 200
    assert [view["state"] for view in api("GET", "/v1/recurring", key=key).json] == ["paused"]
    assert api("POST", f"{one}/resume", key=key).status == 200
    assert api("DELETE", one, key=key).status == 200
    assert api("GET", one, key=key).status == 404


def test_nobody_but_an_operator_sees_or_changes_that_of_others(api: Api) -> None:
    shop, operator = api.key(Scope.SEND), api.key(Scope.OPERATE, producer=None)
    one = f"/v1/recurring/{api('POST', '/v1/recurring', key=shop, json_body=plan()).json['id']}"
    acts: list[tuple[str, str, Any]] = [
        ("GET", one, None),
        ("POST", f"{one}/pause", None),
        ("POST", f"{one}/run", None),
        ("DELETE", one, None),
    ]
    acts.append(("PUT", f"{one}/recipients", {"recipients": plan()["recipients"]}))
    strangers = [
        api.key(Scope.SEND, Scope.READ, producer="bank"),
        api.key(Scope.SEND, Scope.READ, is_test=True),
        api.key(Scope.SEND, Scope.READ, templates=("order_*",)),
    ]
    for key in strangers:
        assert {api(method, path, key=key, json_body=body).status for method, path, body in acts} == {404}
        assert api("GET", "/v1/recurring", key=key).json == []
    # One name for each producer, and for its tests.
    assert [api("POST", "/v1/recurring", key=key, json_body=plan()).status for key in strangers] == [201, 201, 403]
    reader = api.key(Scope.READ)
    assert [view["producer"] for view in api("GET", "/v1/recurring", key=reader).json] == ["shop"]
    assert api("POST", f"{one}/pause", key=reader).status == 403
    assert len(api("GET", "/v1/recurring", key=operator).json) == 3
    assert api("POST", f"{one}/pause", key=operator).status == 200
    assert api("POST", "/v1/recurring", key=operator, json_body=plan()).status == 403


WRONG: list[tuple[dict[str, Any], list[str]]] = [
    ({"cron": "0 0 30 2 *", "zone": "Mars"}, ["/cron", "/zone"]),
    ({"template": "hullo"}, ["/template"]),
    ({"recipients": []}, ["/recipients"]),
    ({"recipients": [{"to": "a@example.com"}, {"to": "A@example.com"}]}, ["/recipients/1/to"]),
    ({"recipients": [{"to": "a@example.com", "lane": "urgent"}]}, ["/recipients/0/lane"]),
    ({"until": "2020-01-01T00:00:00Z"}, ["/until"]),
]


def test_what_is_wrong_is_answered_with_its_place(api: Api) -> None:
    key = api.key(Scope.SEND)
    for fields, pointers in WRONG:
        reply = api("POST", "/v1/recurring", key=key, json_body=plan(**fields))
        assert (reply.status, [error["pointer"] for error in reply.json["errors"]]) == (422, pointers)
