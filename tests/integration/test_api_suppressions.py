"""Suppressions over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from notifier.operations.api_keys import Scope
from tests.support.api import Api
from tests.support.templates import write_templates

ANN = {"channel": "email", "address": "Ann <ann@example.com>"}


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    api = Api(database_url, write_templates(tmp_path))
    yield api
    api.close()


def test_operators_suppress_ask_and_lift(api: Api) -> None:
    key = api.key(Scope.OPERATE, producer=None)
    wanted = {**ANN, "scope": "category:digest", "reason": "opted_out", "detail": "she rang"}
    answers = [api("POST", "/v1/suppressions", key=key, json_body=wanted) for _ in range(2)]
    assert [(answer.status, answer.json["is_new"]) for answer in answers] == [(200, True), (200, False)]
    told = api("POST", "/v1/suppressions/search", key=key, json_body=ANN)
    assert told.json["is_suppressed"]
    [one] = told.json["items"]
    assert (one["scope"], one["reason"], one["detail"], one["state"]) == (
        "category:digest",
        "opted_out",
        "she rang",
        "active",
    )
    assert one["source"].startswith("operator:ops (key ")
    assert b"ann@" not in told.body
    assert api("POST", "/v1/suppressions/lift", key=key, json_body=ANN).status == 404
    lift = {**ANN, "scope": "category:digest"}
    assert api("POST", "/v1/suppressions/lift", key=key, json_body=lift).json == {"is_lifted": True}
    assert not api("POST", "/v1/suppressions/search", key=key, json_body=ANN).json["is_suppressed"]


def test_the_list_goes_page_by_page(api: Api) -> None:
    key = api.key(Scope.ADMIN, producer=None)
    for number in range(3):
        body = {"channel": "sms", "address": f"+1555010012{number}", "reason": "manual"}
        assert api("POST", "/v1/suppressions", key=key, json_body=body).status == 200
    first = api("GET", "/v1/suppressions", key=key, limit=2, reason="manual").json
    last = api("GET", "/v1/suppressions", key=key, limit=2, after=first["next"]).json
    assert (len(first["items"]), len(last["items"]), last["next"]) == (2, 1, None)
    assert api("GET", "/v1/suppressions", key=key, scope="sender:shop").json["items"] == []


WRONG: list[tuple[dict[str, Any], str]] = [
    ({**ANN, "address": "ann"}, "/address"),
    ({**ANN, "scope": "everything"}, "/scope"),
    ({**ANN, "expires_at": "2020-01-01T00:00:00Z"}, "/expires_at"),
    ({**ANN, "why": "she rang"}, "/why"),
    ({"channel": "email"}, "/address"),
]


def test_what_is_wrong_is_answered_with_its_place(api: Api) -> None:
    key = api.key(Scope.OPERATE)
    for body, pointer in WRONG:
        answer = api("POST", "/v1/suppressions", key=key, json_body=body)
        assert answer.status == 422
        assert [error["pointer"] for error in answer.json["errors"]] == [pointer]


def test_a_producer_hears_nothing_of_them(api: Api) -> None:
    key = api.key(Scope.SEND, Scope.READ)
    assert api("GET", "/v1/suppressions", key=key).status == 403
    assert api("POST", "/v1/suppressions/search", key=key, json_body=ANN).status == 403
