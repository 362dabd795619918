"""Keys: what is kept of them, when they are right, what they allow, how fast."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from notifier.domain.errors import NotFound, WrongSelection
from notifier.domain.message import new_id
from notifier.domain.statuses import Channel
from notifier.operations.api_keys import Grants, Scope
from notifier.store.engine import transaction
from tests.support.api import Api
from tests.support.templates import write_template, write_templates
from tests.unit.cli.commandline import CommandLine
from tests.waiting import wait_until

OPEN = {"/healthz", "/readyz", "/metrics"}


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    api = Api(database_url, write_templates(tmp_path))
    yield api
    api.close()


def status(api: Api, token: str | None) -> int:
    return api("GET", "/v1/notifications", key=token).status


def test_the_secret_is_not_kept(api: Api) -> None:
    token = api.key(Scope.READ)
    with transaction(api.services.engine) as connection:
        rows = connection.execute(text("SELECT to_jsonb(k) FROM api_keys AS k")).scalars().all()
        records = connection.execute(text("SELECT to_jsonb(r) FROM operator_records AS r")).scalars().all()
    assert len(rows) == len(records) == 1
    assert token.rpartition("_")[2] not in json.dumps([rows, records])
    assert status(api, token) == 200


@pytest.mark.parametrize("spoil", ["{}x", "x{}", "ntf_live_000000000000_" + "0" * 64, "", "ntf_live_", "\xe9"])
def test_a_wrong_key_is_refused(api: Api, spoil: str) -> None:
    token = spoil.format(api.key(Scope.READ))
    reply = api("GET", "/v1/notifications", headers={"authorization": f"Bearer {token}"})
    assert reply.status == 401
    assert reply.headers["www-authenticate"].startswith("Bearer")
    assert not token or token not in reply.body.decode()


def test_one_digit_of_the_secret_matters(api: Api) -> None:
    token = api.key(Scope.READ)
    assert status(api, token[:-1] + ("0" if token[-1] != "0" else "1")) == 401
    assert status(api, None) == 401
    assert api("GET", "/v1/notifications", headers={"authorization": f"Basic {token}"}).status == 401


def test_a_key_is_refused_by_the_next_request_to_the_process_that_revoked_it(api: Api) -> None:
    token = api.key(Scope.READ)
    assert status(api, token) == 200
    assert api.parts.keys.revoke(token.split("_")[2], operator="ann")
    assert status(api, token) == 401
    assert not api.parts.keys.revoke(token.split("_")[2], operator="ann")
    with pytest.raises(NotFound):
        api.parts.keys.revoke("nobody", operator="ann")


@pytest.mark.parametrize(
    ("change", "answer"),
    [("revoked_at = now()", 401), ("expires_at = now()", 401), ("""scopes = '["send"]'""", 403)],
)
def test_a_key_that_others_end_or_narrow_is_known_for_a_moment_only(api: Api, change: str, answer: int) -> None:
    token, other = api.key(Scope.READ), api.key(Scope.READ, producer="bank")
    assert status(api, token) == status(api, other) == 200
    with transaction(api.services.engine) as connection:
        values = {"id": token.split("_")[2]}
        connection.execute(text(f"UPDATE api_keys SET {change} WHERE id = :id"), values)
    wait_until(lambda: status(api, token) == answer)
    assert status(api, other) == 200


def test_a_known_key_may_do_no_more_than_before(api: Api) -> None:
    token = api.key(Scope.READ)
    assert status(api, token) == 200
    assert api("POST", "/v1/notifications", key=token, json_body={}).status == 403


def test_a_known_key_is_not_looked_up(api: Api) -> None:
    token = api.key(Scope.READ)
    assert api.parts.keys.known(token) is None
    first = api.parts.keys.holder(token)
    assert first is not None
    # Both say nothing of the one that is known, whatever the rest of them is.
    wrong = [token[:-1] + ("0" if token[-1] != "0" else "1"), token.replace("live", "test"), ""]
    assert [api.parts.keys.known(one) for one in wrong] == [None] * 3
    assert [api.parts.keys.holder(one) for one in wrong] == [None] * 3


def test_an_expired_key_is_refused(api: Api) -> None:
    assert status(api, api.key(Scope.READ, expires_at=datetime.now(UTC) - timedelta(seconds=1))) == 401
    assert status(api, api.key(Scope.READ, expires_at=datetime.now(UTC) + timedelta(minutes=1))) == 200


def test_after_a_rotation_both_are_valid_for_a_while(api: Api) -> None:
    old = api.key(Scope.READ, channels=None, templates=("order_*",))
    new = api.parts.keys.rotate(old.split("_")[2], overlap_seconds=60, operator="ann")
    assert status(api, old) == status(api, new.token) == 200
    made, before = api.parts.keys.list()
    assert (made.rotated_from, made.templates) == (before.id, ["order_*"])
    assert made.expires_at is None
    assert before.expires_at is not None
    last = api.parts.keys.rotate(new.id, overlap_seconds=0, operator="ann")
    assert (status(api, new.token), status(api, last.token)) == (401, 200)
    with pytest.raises(WrongSelection):
        api.parts.keys.rotate(new.id, overlap_seconds=0, operator="ann")


def test_the_last_use_is_written_once_a_minute(api: Api) -> None:
    token = api.key(Scope.READ)
    seen = []
    for _ in range(2):
        status(api, token)
        seen.append(api.parts.keys.list()[0].last_used_at)
    assert seen[0] is not None
    assert seen[0] == seen[1]
    first = seen[0]
    with transaction(api.services.engine) as connection:
        connection.execute(text("UPDATE api_keys SET last_used_at = now() - interval '2 minutes'"))

    def is_written_again() -> bool:
        status(api, token)
        used_at = api.parts.keys.list()[0].last_used_at
        return used_at is not None and used_at > first

    # A known key has to be forgotten first.
    wait_until(is_written_again)


def test_a_key_that_is_too_fast_hears_when_to_come_back(api: Api) -> None:
    # One in 20 s: no machine is too slow for that.
    token = api.key(Scope.READ, rate_per_second=0.05)
    replies = [api("GET", "/v1/notifications", key=token) for _ in range(6)]
    slow = [reply for reply in replies if reply.status == 429]
    assert replies[0].status == 200
    assert slow
    assert all(1 <= int(reply.headers["retry-after"]) <= 20 for reply in slow)
    assert status(api, api.key(Scope.READ)) == 200


def test_a_batch_counts_by_its_entries(api: Api) -> None:
    token = api.key(Scope.SEND, rate_per_second=5)
    batch: dict[str, Any] = {"batch": [{}] * 30}
    assert api("POST", "/v1/notifications/batch", key=token, json_body=batch).status == 422
    assert api("POST", "/v1/notifications/batch", key=token, json_body=batch).status == 429


#: What the templates of these tests need.
CONTEXTS = {"hello": {"name": "Ann"}}


def accept(api: Api, key: str, template: str) -> str:
    """The address of a mail that the key sent."""
    body = {"channel": "email", "to": "ann@example.com", "template": template, "idempotency_key": template}
    reply = api("POST", "/v1/notifications", key=key, json_body={**body, "context": CONTEXTS.get(template, {})})
    assert reply.status == 202, reply.json
    return str(reply.json["url"])


def test_a_key_for_some_templates_sees_and_touches_no_others(database_url: str, tmp_path: Path) -> None:
    templates = write_templates(tmp_path / "templates")
    write_template(templates, "order_paid", "")
    made = Api(database_url, templates)
    whole = made.key(Scope.SEND, Scope.READ)
    limited = made.key(Scope.SEND, Scope.READ, templates=("order_*",), channels=(Channel.EMAIL,))
    theirs, ours = accept(made, whole, "hello"), accept(made, whole, "order_paid")
    seen = made("GET", "/v1/templates", key=limited).json
    assert {(one["channel"], one["name"]) for one in seen} == {("email", "order_paid")}
    assert len(made("GET", "/v1/templates", key=whole).json) > 1

    def preview(key: str, name: str) -> int:
        path = f"/v1/templates/email/{name}/preview"
        return made("POST", path, key=key, json_body={"context": CONTEXTS.get(name, {})}).status

    assert [preview(limited, name) for name in ("order_paid", "hello", "nothing")] == [200, 403, 403]
    assert [preview(whole, name) for name in ("order_paid", "hello", "nothing")] == [200, 200, 404]
    assert [made("GET", path, key=limited).status for path in (ours, theirs)] == [200, 404]
    assert [made("POST", f"{path}/cancel", key=limited).status for path in (ours, theirs)] == [200, 404]
    found = made("GET", "/v1/notifications", key=limited).json["items"]
    assert [one["template"] for one in found] == ["order_paid"]
    lines = made("GET", "/v1/notifications", key=limited, format="jsonl").body.splitlines()
    assert len(lines) == 1
    counts = made("GET", "/v1/stats", key=limited, by="template").json["counts"]
    assert counts == [{"template": "order_paid", "count": 1}]
    operator = made.key(Scope.OPERATE, templates=("order_*",))
    assert len(made("GET", "/v1/notifications", key=operator).json["items"]) == 2
    made.close()


def test_a_producer_with_limits_previews_no_template_beyond_them(database_url: str, tmp_path: Path) -> None:
    templates = write_templates(tmp_path / "templates")
    write_template(templates, "order_paid", "")
    write_template(templates, "order_raw", '[variables.html]\ntype = "html"\nrequired = false')
    limits = {"shop": {"templates": "order_*", "lanes": "urgent"}, "billing": {"channels": "sms"}}
    made = Api(database_url, templates, structure={"producers": limits})

    def preview(key: str, name: str) -> int:
        path = f"/v1/templates/email/{name}/preview"
        return made("POST", path, key=key, json_body={"context": CONTEXTS.get(name, {})}).status

    shop, billing = made.key(Scope.SEND), made.key(Scope.SEND, producer="billing")
    assert [preview(shop, name) for name in ("order_paid", "hello")] == [200, 403]
    assert [preview(billing, name) for name in ("order_paid", "hello")] == [403, 403]
    assert [one["name"] for one in made("GET", "/v1/templates", key=shop).json] == ["order_paid", "order_raw"]
    assert [one["name"] for one in made("GET", "/v1/templates", key=billing).json] == ["code"]
    unnamed = made.key(Scope.SEND, producer="bank")
    assert preview(unnamed, "order_raw") == 403
    assert "order_raw" not in {one["name"] for one in made("GET", "/v1/templates", key=unnamed).json}
    operator = made.key(Scope.OPERATE)
    assert "order_raw" in {one["name"] for one in made("GET", "/v1/templates", key=operator).json}
    headers = {"content-disposition": "attachment; filename=a.txt", "content-type": "text/plain"}
    assert made("POST", "/v1/attachments", key=billing, body=b"x", headers=headers).status == 403
    assert made("POST", "/v1/attachments", key=shop, body=b"x", headers=headers).status == 201
    made.close()


def test_a_pattern_of_templates_is_taken_as_it_is_written(api: Api) -> None:
    accept(api, api.key(Scope.SEND), "hello")
    found = {
        pattern: len(api("GET", "/v1/notifications", key=api.key(Scope.READ, templates=(pattern,))).json["items"])
        for pattern in ("h*", "hell?", "hel_o", "*l*", "H*", "hello?")
    }
    assert found == {"h*": 1, "hell?": 1, "hel_o": 0, "*l*": 1, "H*": 0, "hello?": 0}


def test_every_route_that_is_not_for_monitoring_needs_a_key_and_takes_no_unknown_parameter(api: Api) -> None:
    paths = {(method.upper(), path) for path, methods in api.app.openapi()["paths"].items() for method in methods}
    assert len(paths) > 14
    key = api.key(*Scope)
    for method, path in paths:
        place = re.sub(r"{(notification|message|callback|recurring_id|job)}", str(new_id()), path)
        assert (api(method, place).status == 401) == (path not in OPEN), path
        if path not in OPEN:
            reply = api(method, place, key=key, json_body={}, dry_run=True)
            assert reply.status == 422, path
            assert ("dry_run", "unknown_field") in {(e.get("parameter"), e["code"]) for e in reply.json["errors"]}


def test_every_parameter_that_takes_one_value_is_refused_when_it_is_given_twice(api: Api) -> None:
    key, one, lists = api.key(*Scope), set[tuple[str, str]](), set[tuple[str, str]]()
    for path, methods in api.app.openapi()["paths"].items():
        place = re.sub(r"{(notification|message|callback|recurring_id|job)}", str(new_id()), path)
        for method, described in methods.items():
            for parameter in described.get("parameters", ()):
                if parameter["in"] != "query":
                    continue
                name = parameter["name"]
                is_list = parameter["schema"].get("type") == "array"
                (lists if is_list else one).add((path, name))
                given: dict[str, Any] = {name: ["status", "status"]}
                reply = api(method.upper(), place, key=key, **given)
                found = [(e.get("parameter"), e["code"]) for e in reply.json.get("errors", ())]
                assert is_list == ((name, "given_twice") not in found), (path, name, found)
                assert is_list or (reply.status, reply.json["errors"][0]["fix"]) == (422, "Give it once")
    assert lists == {("/v1/notifications", "metadata"), ("/v1/stats", "by")}
    assert len(one) > 30


def test_nobody_is_redirected_to_whatever_host_the_request_names(api: Api) -> None:
    for path in ("/v1/notifications/", "/healthz/"):
        reply = api("POST", path, key=api.key(*Scope), json_body={}, headers={"host": "evil.example.com"})
        assert (reply.status, "location" in reply.headers) == (404, False)


def test_a_number_of_the_address_is_written_in_digits(api: Api) -> None:
    key, place = api.key(*Scope), f"/v1/notifications/{new_id()}/status"
    for path, name, values in (
        ("/v1/notifications", "limit", ["1_0", "1.0", "+5", " 5", "٥", "1e1", "", "9" * 5000]),
        ("/v1/jobs", "limit", ["1_0"]),
        (place, "wait", ["0_1", "1e-3", "+1", " 1", "1.", ".5", "٥", "inf", ""]),
    ):
        for value in values:
            given: dict[str, Any] = {name: value}
            reply = api("GET", path, key=key, **given)
            [error] = reply.json["errors"]
            assert (reply.status, error["parameter"], error["code"]) == (422, name, "bad_format"), value
    assert [api("GET", "/v1/notifications", key=key, limit=limit).status for limit in ("10", "007", "-1")] == [
        *(200, 200, 422)
    ]
    assert [api("GET", place, key=key, wait=wait).status for wait in ("0", "0.001", "-1")] == [404, 404, 422]


@pytest.mark.parametrize(
    "grants",
    [
        Grants((), "x", "shop"),
        Grants((Scope.SEND,), "x"),
        Grants((Scope.READ,), "x"),
        Grants((Scope.SEND,), "x", "no spaces"),
        Grants((Scope.SEND,), "", "shop"),
        Grants((Scope.SEND,), "x", "shop", channels=()),
        Grants((Scope.SEND,), "x", "shop", templates=("a b",)),
        Grants((Scope.SEND,), "x", "shop", rate_per_second=0),
    ],
)
def test_grants_that_make_no_sense_are_refused(api: Api, grants: Grants) -> None:
    with pytest.raises(WrongSelection):
        api.parts.keys.create(grants, operator="ann")


def test_operators_make_list_rotate_and_revoke_keys(api: Api, database_url: str) -> None:
    notifier = CommandLine({"database_url": database_url})
    options: list[Any] = ["--scope", "send,read", "--channels", "email", "--templates", "hel*", "--expires", "90d"]
    made = notifier("keys", "create", "--producer", "shop", *options, "--rate", "50")
    assert made.code == 0
    token = made.out.strip()
    assert status(api, token) == 200
    [listed] = notifier("keys", "list", "--json").json
    assert (listed["producer"], listed["scopes"]) == ("shop", ["send", "read"])
    assert (listed["channels"], listed["templates"], listed["rate_per_second"]) == (["email"], ["hel*"], 50)
    rotated = notifier("keys", "rotate", listed["id"], "--overlap", "1h", "--json").json
    assert status(api, token) == status(api, rotated["token"]) == 200
    assert notifier("keys", "revoke", listed["id"], "--why", "leaked").code == 0
    wait_until(lambda: status(api, token) == 401)
    assert status(api, rotated["token"]) == 200
    assert "revoked" in notifier("keys", "list").out
    assert token not in notifier("keys", "list", "--json").out
    assert notifier("keys", "create", "--scope", "fly").code == 2
    assert notifier("keys", "revoke", "nobody").code == 1
