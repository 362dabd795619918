"""Reading and acting over HTTP: what a key finds, page by page or as a file, and what operators may do."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from notifier.api.middleware import BrokenOff
from notifier.domain.errors import Fault, ServiceUnavailable, WrongSelection
from notifier.domain.message import new_id
from notifier.operations.api_keys import Scope
from notifier.store import search as audit
from notifier.store.engine import transaction
from notifier.store.operator_actions import OperatorActions
from notifier.store.records import NewAttempt, NewRejection
from notifier.store.upkeep import UpkeepRepository
from tests.support.api import Api, run_all
from tests.support.templates import write_templates
from tests.waiting import wait_until


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    api = Api(database_url, write_templates(tmp_path))
    yield api
    api.close()


def send(api: Api, producer: str = "shop", count: int = 1, **fields: Any) -> list[str]:
    common = {
        "channel": "email",
        "to": "ann@example.com",
        "template": "hello",
        "context": {"name": "Ann"},
        **fields,
    }
    batch = [{"id": str(new_id()), **common} for _ in range(count)]
    reply = api(
        "POST", "/v1/notifications/batch", key=api.key(Scope.SEND, producer=producer), json_body={"batch": batch}
    )
    assert reply.status == 202, reply.body
    return [entry["id"] for entry in reply.json["entries"]]


def become(api: Api, status: str, *ids: str) -> None:
    with transaction(api.services.engine) as connection:
        connection.execute(
            text("UPDATE states SET status = :status, due_at = NULL WHERE id = ANY(CAST(:ids AS uuid[]))"),
            {"status": status, "ids": list(ids)},
        )


def ids_of(reply: Any) -> list[str]:
    assert reply.status == 200, reply.body
    return [item["id"] for item in reply.json["items"]]


def test_a_story_has_attempts_and_events(api: Api) -> None:
    [sent] = send(api)
    [claimed] = api.services.ledger.claim([UUID(sent)], lease_seconds=60)
    attempt = NewAttempt(claimed, "smtp", template_version="v2", sender_address="shop@example.com")
    api.services.ledger.start_attempts([attempt], margin_seconds=1)
    found = api("GET", f"/v1/notifications/{sent}", key=api.key(Scope.READ)).json
    assert (found["notification"]["id"], found["notification"]["status"]) == (sent, "sending")
    names = ("provider", "template_version", "sender_address")
    assert [[attempt[name] for name in names] for attempt in found["attempts"]] == [
        ["smtp", "v2", "shop@example.com"]
    ]
    assert [event["kind"] for event in found["events"]] == ["accepted", "status"]
    assert "context" not in found["notification"]


@pytest.mark.parametrize("number", ["+1５５５0100123", "+١٥٥٥٠١٠٠١٢٣", "0155 501"])
def test_a_search_for_a_number_that_is_none_says_so(api: Api, number: str) -> None:
    reply = api("GET", "/v1/notifications", key=api.key(Scope.READ), recipient=number)
    assert reply.status == 422
    assert [error["code"] for error in reply.json["errors"]] == ["not_e164"]


def test_a_producer_sees_its_own_only(api: Api) -> None:
    [ours], [theirs] = send(api), send(api, producer="bank")
    key = api.key(Scope.READ, Scope.SEND)
    assert ids_of(api("GET", "/v1/notifications", key=key)) == [ours]
    assert api("GET", f"/v1/notifications/{ours}", key=key).status == 200
    other, none = (api("GET", f"/v1/notifications/{id_}", key=key) for id_ in (theirs, str(new_id())))
    assert other.status == none.status == 404
    assert other.json["detail"].replace(theirs, "") == none.json["detail"][:-36]
    assert api("POST", f"/v1/notifications/{theirs}/cancel", key=key).status == 404
    assert api("GET", "/v1/notifications", key=key, producer="bank").status == 403
    assert api("GET", "/v1/stats", key=key).json["counts"] == [{"status": "queued", "count": 1}]
    everything = api("GET", "/v1/notifications", key=api.key(Scope.OPERATE, producer=None))
    assert set(ids_of(everything)) == {ours, theirs}


def test_pages_follow_each_other_without_gap_or_repetition(api: Api) -> None:
    sent = send(api, count=5)
    key, pages = api.key(Scope.READ), list[Any]()
    after: dict[str, Any] = {}
    while True:
        reply = api("GET", "/v1/notifications", key=key, limit=2, **after)
        pages.append(ids_of(reply))
        # A new one does not shift the pages.
        send(api)
        if reply.json["next"] is None:
            break
        after = {"after": reply.json["next"]}
    assert pages == [sorted(sent, reverse=True)[start : start + 2] for start in (0, 2, 4)]


@pytest.mark.parametrize(
    "query",
    [
        {"recipient": "Bob <BOB@example.com>"},
        {"reference": "C-7"},
        {"template": "code"},
        {"channel": "sms"},
        {"status": "failed"},
        {"metadata": ["order=7", "shop=nice"], "reference": "C-7"},
    ],
)
def test_a_search_finds_what_all_conditions_hold_for(api: Api, query: dict[str, Any]) -> None:
    send(api, metadata={"order": "8"})
    if "recipient" in query:
        wanted = send(api, to="bob@example.com")
    elif query.keys() & {"template", "channel"}:
        wanted = send(api, channel="sms", template="code", to="+15550100123", context={"code": "7"})
    else:
        wanted = send(api, reference="C-7", metadata={"order": "7", "shop": "nice"})
        become(api, "failed", *wanted)
    assert ids_of(api("GET", "/v1/notifications", key=api.key(Scope.READ), **query)) == wanted


def test_a_span_of_time_is_searched(api: Api) -> None:
    sent, key = send(api), api.key(Scope.READ)
    soon = (datetime.now(UTC) + timedelta(minutes=1)).isoformat()
    assert ids_of(api("GET", "/v1/notifications", key=key, since="2026-01-01T00:00:00Z", until=soon)) == sent
    assert ids_of(api("GET", "/v1/notifications", key=key, since=soon)) == []


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ({"stauts": "failed"}, "unknown_field"),
        ({"status": "gone"}, "bad_choice"),
        ({"since": "yesterday"}, "bad_time"),
        ({"limit": 0}, "invalid"),
        ({"metadata": "order=7"}, None),
        ({"metadata": "order=7", "since": "2020-01-01T00:00:00Z"}, None),
        ({"metadata": "order=7", "since": "2020-01-01T00:00:00Z", "until": "2020-02-02T00:00:00Z"}, None),
        ({"metadata": "order=7", "since": "2020-01-01T00:00:00Z", "format": "csv"}, None),
        ({"metadata": "order", "reference": "x"}, None),
        ({"after": "%%%"}, None),
        ({"reference": "a\0b"}, "nul_character"),
        ({"recipient": "\0"}, "nul_character"),
        ({"metadata": "order=\0", "reference": "x"}, "nul_character"),
    ],
)
def test_a_wrong_condition_is_refused(api: Api, query: dict[str, Any], code: str | None) -> None:
    reply = api("GET", "/v1/notifications", key=api.key(Scope.READ), **query)
    assert reply.status == 422
    assert [error["code"] for error in reply.json["errors"]] == ([code] if code else [])
    assert all(error["parameter"].partition(".")[0] in query for error in reply.json["errors"])


def test_a_nul_character_is_refused_by_its_parameter_in_every_list(api: Api) -> None:
    given: dict[str, Any]
    for path, name in (("suppressions", "scope"), ("suppressions", "source"), ("callbacks", "endpoint")):
        given = {name: "a\0"}
        [error] = api("GET", f"/v1/{path}", key=api.key(Scope.OPERATE), **given).json["errors"]
        assert (error["parameter"], error["code"], error["fix"]) == (name, "nul_character", "Remove it")


def test_a_read_that_takes_too_long_is_broken_off_with_a_way_out(api: Api) -> None:
    send(api)
    with transaction(api.services.engine) as connection:
        usual = connection.execute(text("SHOW statement_timeout")).scalar_one()
    reads = audit.Audit(api.services.engine, seconds=0.2)
    wanted = audit.Filter(template="hello")
    with transaction(api.services.engine) as other:
        other.execute(text("LOCK TABLE notifications IN ACCESS EXCLUSIVE MODE"))
        for read in (partial(reads.search, wanted), partial(reads.group, wanted, [audit.Dimension.STATUS])):
            with pytest.raises(WrongSelection, match=r"not found within 0.2 s: give since and until nearer"):
                read()
    # The connections that it was read with have their own time again.
    with transaction(api.services.engine) as connection:
        assert connection.execute(text("SHOW statement_timeout")).scalar_one() == usual
    assert len(reads.search(wanted)) == 1


def test_long_reads_of_one_key_leave_others_theirs(api: Api) -> None:
    mine, other = api.key(Scope.READ), api.key(Scope.READ)
    ends = [api.parts.long_reads.begin(mine.split("_")[2]) for _ in range(2)]
    paths: list[tuple[str, dict[str, Any]]] = [
        ("/v1/stats", {}),
        ("/v1/notifications", {"format": "csv"}),
        ("/v1/notifications", {"channel": "email"}),
    ]
    for path, query in paths:
        refused = api("GET", path, key=mine, **query)
        assert (refused.status, refused.headers["retry-after"]) == (429, "5")
        assert api("GET", path, key=other, **query).status == 200
    assert api("GET", "/v1/notifications", key=mine, reference="C-7").status == 200
    for end in ends:
        end()
    assert len(api.parts.long_reads) == 0
    assert api("GET", "/v1/stats", key=mine).status == 200


@pytest.mark.parametrize("accept", ["text/csv", "application/jsonl"])
def test_an_export_streams_everything(api: Api, monkeypatch: pytest.MonkeyPatch, accept: str) -> None:
    monkeypatch.setattr(audit, "EXPORT_PAGE", 2)
    sent = send(api, count=5, metadata={"note": 'a "b", c\nd'})
    reply = api("GET", "/v1/notifications", key=api.key(Scope.READ), headers={"accept": accept})
    assert reply.headers["content-type"].startswith(accept)
    assert reply.pieces >= 3
    body = reply.body.decode()
    rows: list[Any]
    if accept == "text/csv":
        rows = list(csv.DictReader(io.StringIO(body, newline="")))
        notes = {json.loads(row["metadata"])["note"] for row in rows}
    else:
        rows = [json.loads(line) for line in body.splitlines()]
        notes = {row["metadata"]["note"] for row in rows}
    assert [row["id"] for row in rows] == sorted(sent, reverse=True)
    assert notes == {'a "b", c\nd'}


def test_an_export_that_fails_in_the_middle_does_not_end_as_if_it_were_whole(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit, "EXPORT_PAGE", 2)
    send(api, count=5)
    search, calls = audit.Audit.search, []

    def fail_later(*given: Any, **options: Any) -> Any:
        calls.append(1)
        if len(calls) > 1:
            raise ServiceUnavailable("away")
        return search(*given, **options)

    monkeypatch.setattr(audit.Audit, "search", fail_later)
    with pytest.raises(BrokenOff):
        api("GET", "/v1/notifications", key=api.key(Scope.READ), format="csv")


def test_stats_count_by_what_is_asked_for(api: Api) -> None:
    send(api, count=2)
    send(api, channel="sms", template="code", to="+15550100123", context={"code": "7"})
    key = api.key(Scope.READ)
    counts = api("GET", "/v1/stats", key=key, by=["channel", "status"]).json["counts"]
    assert counts == [
        {"channel": "email", "status": "queued", "count": 2},
        {"channel": "sms", "status": "queued", "count": 1},
    ]
    [hour] = api("GET", "/v1/stats", key=key, by=["hour"]).json["counts"]
    assert datetime.fromisoformat(hour["hour"]) <= datetime.now(UTC)
    assert api("GET", "/v1/stats", key=key, since="2026-01-01T00:00:00Z").status == 422


def test_a_retry_is_recorded_with_the_name_of_the_key(api: Api) -> None:
    sent = send(api, count=3)
    become(api, "failed", *sent[:2])
    key = api.key(Scope.OPERATE, producer=None)
    one = api("POST", f"/v1/notifications/{sent[0]}/retry", key=key, json_body={"reason": "mended"})
    assert one.status == 200
    record = OperatorActions(api.services.engine).record(UUID(one.json["record_id"]))
    assert record.operator.startswith("ops (key ")
    assert (record.action, record.reason) == ("retry", "mended")
    again = api("POST", f"/v1/notifications/{sent[0]}/retry", key=key)
    assert (again.status, again.json["detail"]) == (409, "retrying: it is on its way already")
    many = {"filter": {"producer": "shop"}, "dry_run": True, "rate_per_second": 5}
    assert api("POST", "/v1/notifications/retry", key=key, json_body=many).json["changed"] == 1
    done = api("POST", "/v1/notifications/retry", key=key, json_body={**many, "dry_run": False}).json
    assert (done["matched"], done["changed"]) == (1, 1)
    assert api("POST", f"/v1/notifications/{new_id()}/retry", key=key).status == 404


def test_a_retry_in_the_background_is_a_job(api: Api) -> None:
    sent = send(api, count=2)
    become(api, "failed", *sent)
    key = api.key(Scope.OPERATE, producer=None)
    wanted = {"filter": {"recipient": "ann@example.com"}, "background": True, "reason": "mended"}
    assert api("POST", "/v1/notifications/retry", key=key, json_body={**wanted, "dry_run": True}).status == 200
    made = api("POST", "/v1/notifications/retry", key=key, json_body=wanted)
    assert (made.status, made.json["state"], made.json["total"]) == (202, "waiting", 2)
    assert b"ann@example.com" not in made.body
    url = made.headers["location"]
    api.services.jobs.dispatch(partial(run_all, api.services.jobs))
    done = api("GET", url, key=key).json
    assert (done["state"], done["changed"], done["reason"]) == ("done", 2, "mended")
    assert done["operator"].startswith("ops (key ")
    assert [one["id"] for one in api("GET", "/v1/jobs", key=key, limit=1).json["items"]] == [done["id"]]
    assert api("POST", f"{url}/stop", key=key).status == 409
    assert api("POST", f"/v1/jobs/{new_id()}/stop", key=key).status == 404
    bad = {"filter": {"status": "sent"}, "background": True}
    assert api("POST", "/v1/notifications/retry", key=key, json_body=bad).status == 422
    for method, path in (("GET", "/v1/jobs"), ("GET", url), ("POST", f"{url}/stop")):
        assert api(method, path, key=api.key(Scope.READ)).status == 403


@pytest.mark.parametrize(
    "body",
    [
        {"filter": {}},
        {"filter": {"status": "sent"}},
        {"filter": {"stauts": "failed"}},
        {"filter": {"status": "failed"}, "rate_per_second": 0},
        {"filter": {"status": "failed"}, "rate_per_second": "1_0"},
        {"filter": {"status": "failed"}, "dry_run": "no"},
        {},
    ],
)
def test_a_retry_of_everything_or_of_what_may_arrive_is_refused(api: Api, body: Any) -> None:
    reply = api("POST", "/v1/notifications/retry", key=api.key(Scope.OPERATE), json_body=body)
    assert reply.status == 422


def test_a_producer_cancels_what_it_sent(api: Api) -> None:
    [sent] = send(api)
    key = api.key(Scope.SEND, Scope.READ)
    assert api("POST", f"/v1/notifications/{sent}/cancel", key=key).status == 200
    assert api("GET", f"/v1/notifications/{sent}", key=key).json["notification"]["status"] == "cancelled"
    assert api("POST", f"/v1/notifications/{sent}/cancel", key=key).status == 409
    assert api("POST", f"/v1/notifications/{sent}/retry", key=key).status == 403


def test_a_producer_gives_what_it_sent_another_time(api: Api) -> None:
    [sent] = send(api)
    key = api.key(Scope.SEND, Scope.READ)
    later = {"send_at": (datetime.now(UTC) + timedelta(hours=1)).isoformat(), "reason": "too early"}
    assert api("POST", f"/v1/notifications/{sent}/reschedule", key=key, json_body=later).status == 200
    found = api("GET", f"/v1/notifications/{sent}", key=key).json["notification"]
    assert (found["status"], datetime.fromisoformat(found["send_at"])) == (
        "scheduled",
        datetime.fromisoformat(later["send_at"]),
    )
    far = {"send_at": "2099-01-01T00:00:00Z"}
    refused = api("POST", f"/v1/notifications/{sent}/reschedule", key=key, json_body=far)
    assert (refused.status, refused.json["errors"][0]["pointer"]) == (422, "/send_at")
    other = api.key(Scope.SEND, producer="bank")
    assert api("POST", f"/v1/notifications/{sent}/reschedule", key=other, json_body=later).status == 404
    become(api, "sent", sent)
    assert api("POST", f"/v1/notifications/{sent}/reschedule", key=key, json_body=later).status == 409


def test_templates_are_listed_and_previewed(api: Api) -> None:
    key = api.key(Scope.READ)
    listed = {one["name"]: one for one in api("GET", "/v1/templates", key=key).json}
    assert listed["code"]["variables"]["code"]["secret"]
    sample = api("POST", "/v1/templates/email/hello/preview", key=key, json_body={})
    assert sample.json["subject"] == "Hello Ann"
    given = api("POST", "/v1/templates/sms/code/preview", key=key, json_body={"context": {"code": "42"}})
    assert (given.json["text"], given.json["segments"]["count"]) == ("Your code is 42.", 1)
    wrong = api("POST", "/v1/templates/sms/code/preview", key=key, json_body={"context": {}})
    assert [error["pointer"] for error in wrong.json["errors"]] == ["/context/code"]
    assert api("POST", "/v1/templates/sms/cod/preview", key=key, json_body={}).status == 404


def test_bodies_of_rejected_messages_are_for_admins(api: Api) -> None:
    fault = Fault("to", "missing", "is missing", "Add it")
    api.services.ledger.accept([], [NewRejection("notify.email.normal", b"\xff secret", (fault,))])
    operator, admin = api.key(Scope.OPERATE), api.key(Scope.ADMIN)
    [listed] = api("GET", "/v1/rejected-messages", key=operator).json["items"]
    assert (listed["faults"][0]["code"], listed["body"]) == ("missing", None)
    path = f"/v1/rejected-messages/{listed['id']}"
    assert api("GET", path, key=operator).json["body"] is None
    assert api("GET", path, key=admin).json["body"]["encoding"] == "base64"
    assert api("GET", f"/v1/rejected-messages/{new_id()}", key=admin).status == 404
    assert api("GET", path, key=api.key(Scope.READ)).status == 403


def test_providers_are_for_operators(api: Api) -> None:
    assert api("GET", "/v1/providers", key=api.key(Scope.OPERATE)).json == []
    assert api("GET", "/v1/providers", key=api.key(Scope.READ)).status == 403


def test_metrics_hold_counts_and_nothing_about_a_person(api: Api) -> None:
    send(api, count=2, reference="hidden-reference")
    reply = api("GET", "/metrics")
    assert reply.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert 'notifier_accepted_total{channel="email",lane="normal",source="http"}' in reply.body.decode()
    assert b"ann@" not in reply.body
    assert b"hidden" not in reply.body
    with transaction(api.services.engine) as connection:
        connection.execute(text("UPDATE states SET due_at = now() - interval '1 minute'"))
        connection.execute(text("UPDATE messages SET accepted_at = now() - interval '5 minutes'"))
    upkeep = UpkeepRepository(api.services.engine)
    for step in ("report", "retention"):
        upkeep.begin(step)
        upkeep.succeed(step)

    def values() -> dict[str, float]:
        body = api("GET", "/metrics").body.decode()
        lines = [line.rsplit(" ", 1) for line in body.splitlines() if line[0] != "#"]
        return {name: float(value) for name, value in lines}

    # An answer is kept for two seconds.
    wait_until(lambda: values()["notifier_due"])
    found = values()
    assert found["notifier_due"] == 2
    assert 60 <= found["notifier_oldest_due_seconds"] < 90
    kind = 'channel="email",lane="normal"'
    assert found[f'notifier_notifications_waiting{{{kind},status="queued"}}'] == 2
    assert 300 <= found[f"notifier_oldest_queued_seconds{{{kind}}}"] < 330
    assert found['notifier_oldest_queued_seconds{channel="sms",lane="urgent"}'] == 0
    # Nobody asks for the daily report any more.
    assert 'notifier_upkeep_age_seconds{step="report"}' not in found
    # Nobody listens where the broker should be.
    assert (found["notifier_database_up"], found["notifier_broker_up"]) == (1, 0)
    assert found['notifier_upkeep_age_seconds{step="partitions"}'] == math.inf
    assert found['notifier_upkeep_age_seconds{step="retention"}'] < 60


def test_ready_tells_the_parts_apart(api: Api) -> None:
    reply = api("GET", "/readyz")
    assert (reply.status, reply.json) == (
        200,
        {"database": "ok", "tables": "ok", "broker": "away", "process": "ok"},
    )


def test_old_tables_are_not_ready(empty_database_url: str, tmp_path: Path) -> None:
    api = Api(empty_database_url, write_templates(tmp_path))
    reply = api("GET", "/readyz")
    assert (reply.status, reply.json["tables"]) == (503, "run `notifier db upgrade`")
    api.close()


def test_what_there_is_not_is_a_problem_too(api: Api) -> None:
    calls = (("GET", "/nothing", 404), ("GET", "/v1/notifications/7", 404), ("DELETE", "/v1/notifications", 405))
    for method, path, status in calls:
        reply = api(method, path, key=api.key(Scope.ADMIN))
        assert (reply.status, reply.headers["content-type"]) == (status, "application/problem+json")
