"""The console's pages of rejected messages and dead letters, on a real broker."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import amqp
import pytest
from sqlalchemy import text

from notifier.broker import topology
from notifier.broker.amqp_connections import AmqpBrokerConnection
from notifier.broker.user_id import VOUCHED
from notifier.console.app import add_console
from notifier.console.routes import dead_letters, rejected
from notifier.domain.message import new_id
from notifier.domain.statuses import Channel, Lane
from notifier.intake.batch import Received
from notifier.operations.api_keys import Scope
from notifier.store import rejected as store
from notifier.store.engine import transaction
from notifier.store.filters import Filter
from notifier.store.search import RejectedView, Story
from tests.support.api import Api
from tests.support.brokers import amqp_connection
from tests.support.console import XSS, Browser, operator  # noqa: F401
from tests.support.queues import bodies
from tests.support.templates import write_templates

QUEUE = "notify.email.normal"


@pytest.fixture
def api(database_url: str, amqp_url: str, tmp_path: Path) -> Iterator[Api]:
    with AmqpBrokerConnection(amqp_url) as connection:
        topology.declare_for_producers(connection.default_channel)
    api = Api(database_url, write_templates(tmp_path), amqp_url)
    add_console(api.app, api.services, api.parts)
    yield api
    api.close()


@pytest.fixture
def admin(api: Api) -> Browser:
    browser = Browser(api)
    browser.sign_in(api.key(Scope.ADMIN, producer=None))
    browser.get("/search")
    return browser


def message(**fields: Any) -> dict[str, Any]:
    given = {"id": str(new_id()), "producer": "shop", "to": "ann@example.com", "template": "hello"}
    return given | {"context": {"name": "Ann"}} | fields


def reject(api: Api, *contents: Any, **more: Any) -> list[RejectedView]:
    """Messages that the intake rejects, newest first."""
    received = [Received(json.dumps(one).encode(), Channel.EMAIL, Lane.NORMAL, **more) for one in contents]
    assert api.parts.intake.process(received).rejected == len(contents)
    return api.parts.audit.rejected(limit=len(contents))


def waiting(api: Api) -> list[dict[str, Any]]:
    """What went back to the queue; it is taken out."""
    return [json.loads(body) for body in bodies(api.services.settings.require("broker_url"), QUEUE)]


def taken_in(api: Api) -> list[Story]:
    """What edited messages became, newest first."""
    return [api.parts.audit.story(found.id) for found in api.parts.audit.search(Filter())]


def test_rejected_messages_are_grouped_and_replayed_by_fault(api: Api, operator: Browser) -> None:
    reject(api, message(template="gone"), message(template="gone"), message(producer="bank", to="?"))
    page = operator.get("/rejected")
    assert b"3 rejected messages to look at" in page.body
    assert b"/rejected?producer=shop&amp;code=unknown_template" in page.body
    chosen = operator.get("/rejected", producer="shop", code="unknown_template")
    assert b"bank" not in chosen.body.partition(b'id="list"')[2]
    dry = operator.post("/rejected/replay", producer="shop", code="unknown_template", dry_run="true")
    assert b"2 messages would be replayed." in dry.body
    assert waiting(api) == []
    done = operator.post("/rejected/replay", producer="shop", code="unknown_template", reason="it is there now")
    assert b"2 messages are replayed." in done.body
    assert [one["template"] for one in waiting(api)] == ["gone", "gone"]
    assert b"1 rejected message to look at" in operator.get("/rejected").body
    assert operator.post("/rejected/replay", reason="everything").status == 422


def test_what_takes_too_long_goes_on_when_it_is_done_again(
    api: Api, operator: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rejected, "REPLAY_SECONDS", 0.0)
    monkeypatch.setattr(store, "PAGE", 2)
    # One that cannot be replayed comes first, and holds nobody up.
    reject(api, message(template="gone"))
    with transaction(api.services.engine) as connection:
        connection.execute(text("UPDATE rejected_messages SET body_size = 1000000"))
    reject(api, *(message(template="gone", reference=str(number)) for number in range(3)))
    dry = operator.post("/rejected/replay", code="unknown_template", dry_run="true")
    assert b"2 more of these were not looked at yet" in dry.body
    first = operator.post("/rejected/replay", code="unknown_template")
    assert b"1 message is replayed." in first.body
    assert b"2 more of these were not looked at yet" in first.body
    operator.post("/rejected/replay", code="unknown_template")
    last = operator.post("/rejected/replay", code="unknown_template")
    assert b"not looked at" not in last.body
    assert sorted(one["reference"] for one in waiting(api)) == ["0", "1", "2"]


def test_an_edited_message_is_checked_and_goes_once(api: Api, admin: Browser) -> None:
    [kept] = reject(api, message(template="gone"))
    path, wrong = f"/rejected/{kept.id}/edited", json.dumps(message(template="also_gone"))
    page = admin.get(f"/rejected/{kept.id}")
    assert '"template": "gone"' in html.unescape(page.body.decode())
    refused = admin.post(path, body=wrong)
    assert refused.status == 422
    assert b"this is still wrong" in refused.body
    assert b"also_gone" in refused.body
    right = json.loads(kept.body) | {"template": "hello"}
    checked = admin.post(path, body=json.dumps(right), dry_run="true")
    assert b"1 message would be replayed." in checked.body
    assert taken_in(api) == []
    done = admin.post(path, body=json.dumps(right), reason="a slip of theirs")
    assert b"1 message is replayed." in done.body
    assert [str(one.notification.id) for one in taken_in(api)] == [right["id"]]
    assert f"/notifications/{right['id']}".encode() in done.body, "it leads to what became of it"
    late = admin.post(path, body=json.dumps(right | {"reference": "typed-late"}))
    assert (late.status, b"It was replayed at" in late.body) == (409, True)
    assert b"typed-late" in late.body, "what was typed is still there"
    assert b"by ops (key" in late.body
    assert b"/edited" not in late.body, "nothing is offered that always fails"
    with transaction(api.services.engine) as connection:
        query = "SELECT * FROM operator_records WHERE action = 'replay_edited'"
        record = connection.execute(text(query)).one()
    published = {"producer": "shop", "id": right["id"]}
    assert record.selection == {"ids": [str(kept.id)], "changed": ["template"], "published": published}
    assert record.reason == "a slip of theirs"
    assert record.operator.startswith("ops (key ")


def test_an_edited_message_that_is_rejected_too_counts_as_not_replayed(api: Api, admin: Browser) -> None:
    first = message(idempotency_key="order-1")
    assert api.parts.intake.process([Received(json.dumps(first).encode(), Channel.EMAIL, Lane.NORMAL)]).accepted
    [kept] = reject(api, first | {"to": "nobody"})
    path = f"/rejected/{kept.id}/edited"
    conflicting = admin.post(path, body=json.dumps(first | {"context": {"name": "Bob"}}))
    assert b"was rejected, too" in conflicting.body
    assert api.parts.audit.rejected()[0].faults[0]["code"] == "idempotency_conflict"
    done = admin.post(path, body=json.dumps(first | {"idempotency_key": "order-2", "id": str(new_id())}))
    assert b"1 message is replayed." in done.body, "it is left for the next edit"


def test_an_edited_batch_of_which_the_record_refuses_an_entry_says_how_many(api: Api, admin: Browser) -> None:
    first = message(idempotency_key="order-1")
    assert api.parts.intake.process([Received(json.dumps(first).encode(), Channel.EMAIL, Lane.NORMAL)]).accepted
    conflicting = first | {"id": str(new_id()), "context": {"name": "Bob"}}
    [kept] = reject(api, message(template="gone"))
    batch = {"producer": "shop", "batch": [conflicting, first, message()]}
    done = admin.post(f"/rejected/{kept.id}/edited", body=json.dumps(batch))
    assert b"1 message is replayed." in done.body
    assert b"Of its entries, 2 were accepted and 1 rejected." in done.body
    with transaction(api.services.engine) as connection:
        query = "SELECT result FROM operator_records WHERE action = 'replay_edited'"
        found = connection.execute(text(query)).scalar_one()
    assert found["entries"] == {"accepted": 2, "rejected": 1}
    assert api.parts.audit.rejected()[0].faults[0]["code"] == "idempotency_conflict"


def test_a_replay_under_the_key_of_another_message_does_not_lead_to_that(api: Api, admin: Browser) -> None:
    first = message(idempotency_key="order-1")
    received = Received(json.dumps(first).encode(), Channel.EMAIL, Lane.NORMAL)
    assert api.parts.intake.process([received]).accepted == 1
    other = first | {"id": str(new_id()), "context": {"name": "Bob"}}
    same = first | {"id": str(new_id())}
    for one in reject(api, other | {"to": "nobody"}, other):
        admin.post(f"/rejected/{one.id}/replay")
        assert b"No notification has been made from it yet" in admin.get(f"/rejected/{one.id}").body
    [wrong] = reject(api, same | {"to": "nobody"})
    admin.post(f"/rejected/{wrong.id}/replay")
    # It is still no message.
    assert b"No notification has been made from it yet" in admin.get(f"/rejected/{wrong.id}").body
    [repeated] = reject(api, same | {"template": "gone"})
    with transaction(api.services.engine) as connection:
        # A template that came meanwhile: now it is the first one's repetition.
        body = {"body": json.dumps(same).encode(), "id": repeated.id}
        connection.execute(text("UPDATE rejected_messages SET body = :body WHERE id = :id"), body)
    admin.post(f"/rejected/{repeated.id}/replay")
    assert f"/notifications/{first['id']}".encode() in admin.get(f"/rejected/{repeated.id}").body


def test_of_several_who_replay_one_message_one_does(api: Api, admin: Browser) -> None:
    [edited, plain] = reject(api, message(template="gone"), message(template="gone"))

    def edit(number: int) -> Any:
        return admin.post(f"/rejected/{edited.id}/edited", body=json.dumps(message(reference=str(number))))

    def replay(_: int) -> Any:
        return admin.post(f"/rejected/{plain.id}/replay")

    for act, found in ((edit, taken_in), (replay, waiting)):
        with ThreadPoolExecutor(4) as pool:
            answers = list(pool.map(act, range(4)))
        won = [one for one in answers if b"1 message is replayed." in one.body]
        assert len(won) == 1
        assert all(b"replayed" in one.body and b"by ops (key" in one.body for one in answers if one not in won)
        assert len(found(api)) == 1


def test_an_interrupted_edit_is_told_and_left_to_a_person(api: Api, admin: Browser, operator: Browser) -> None:
    [kept] = reject(api, message(template="gone"))
    path = f"/rejected/{kept.id}"
    # As if the process had been killed after the claim.
    record = api.app.state.console.rejections.claim_for_edit(kept.id, "Ann", {}, None, over=False)
    assert record is not None
    assert b"Somebody is replaying it now" in admin.get(path).body
    with transaction(api.services.engine) as connection:
        connection.execute(text("UPDATE rejected_messages SET claimed_at = now() - interval '2 minutes'"))
    assert b"A replay was interrupted" in admin.get(path).body
    assert b"1 rejected message to look at" in admin.get("/rejected").body, "it is not lost"
    bulk = operator.post("/rejected/replay", code="unknown_template")
    assert b"of an edited copy by Ann" in bulk.body
    assert admin.post(f"{path}/edited", body=json.dumps(message())).status == 409
    assert taken_in(api) == []
    done = admin.post(f"{path}/edited", body=json.dumps(message()), again="true")
    assert b"1 message is replayed." in done.body
    assert len(taken_in(api)) == 1


def test_an_edited_message_is_proven_by_its_operator_and_no_longer_by_the_broker_user(
    api: Api, admin: Browser
) -> None:
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    headers = {"traceparent": trace, "task": "of another protocol"}
    [kept] = reject(api, message(template="gone"), broker_user="shop", headers=headers)
    other = message(to="eve@example.com")
    assert admin.post(f"/rejected/{kept.id}/edited", body=json.dumps(other), reason="their typo").status == 200
    [story] = taken_in(api)
    assert (story.notification.producer, story.notification.proof) == ("shop", "operator")
    assert (story.notification.sent_by or "").startswith("operator:ops (key ")
    assert story.notification.trace_id == trace.split("-")[1]
    with transaction(api.services.engine) as connection:
        record = connection.execute(text("SELECT * FROM operator_records WHERE action = 'replay_edited'")).one()
    by = f"rejected message {kept.id} edited by {record.operator}: their typo (operator record {record.id})"
    assert [event.detail for event in story.events] == [by]
    page = admin.get(f"/notifications/{other['id']}").body
    assert html.escape(by).encode() in page
    assert b"shop, written by an operator" in page
    again = admin.post(f"/rejected/{reject(api, other | {'to': '?'})[0].id}/edited", body=json.dumps(other))
    assert b"1 message is replayed." in again.body
    [repeated] = [event for event in taken_in(api)[0].events if event.kind == "duplicate"]
    assert f"edited by {record.operator}" in (repeated.detail or ""), "no producer sent it again"


@pytest.mark.parametrize("producer", ["shop", "bank"])
def test_an_edited_message_is_accepted_where_proof_is_required(
    database_url: str, tmp_path: Path, producer: str
) -> None:
    """And nothing that a producer writes makes it an operator's."""
    tables = {"shop": {"broker_user": ["shop"]}}
    structure = {"senders": {"default": {"email": "shop@example.com"}}, "require_proof": True, "producers": tables}
    api = Api(database_url, write_templates(tmp_path), structure=structure)
    add_console(api.app, api.services, api.parts)
    browser = Browser(api)
    browser.sign_in(api.key(Scope.ADMIN, producer=None))
    browser.get("/search")
    claimed = {"proof": "operator", "origin": "operator", VOUCHED: "shop"}
    [kept] = reject(api, message(producer=producer), headers=claimed, broker_user="stranger")
    assert [fault["code"] for fault in kept.faults] == ["producer_not_proven"]
    assert browser.post(f"/rejected/{kept.id}/edited", body=json.dumps(message(producer=producer))).status == 200
    assert [one.notification.proof for one in taken_in(api)] == ["operator"]
    api.close()


def test_bodies_are_for_admins(api: Api, operator: Browser) -> None:
    [kept] = reject(api, message(template="gone"), headers={"note": "of-ann"})
    page = operator.get(f"/rejected/{kept.id}")
    assert page.status == 200
    assert b"ann@example.com" not in page.body
    assert b"of-ann" not in page.body
    assert operator.post(f"/rejected/{kept.id}/edited", body="{}").status == 403
    assert operator.post(f"/rejected/{kept.id}/replay", reason="mended").status == 200
    assert len(waiting(api)) == 1


def test_dead_letters_go_back_to_their_queues(
    api: Api, operator: Browser, admin: Browser, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = api.services.settings.require("broker_url")
    with amqp_connection(url) as connection:
        death = [{"queue": QUEUE, "reason": "delivery_limit", "time": datetime.now(UTC), "count": 1}]
        for reference in ("one", XSS, "three"):
            letter = amqp.Message(
                json.dumps(message(reference=reference)), application_headers={"x-death": death, "note": XSS}
            )
            connection.channel().basic_publish_confirm(letter, "notify.dead")
    page = admin.get("/dead-letters")
    assert b"3 dead letters" in page.body
    assert b"ann@example.com" in page.body
    assert b"<script>alert" not in page.body
    page = operator.get("/dead-letters")
    assert b"ann@example.com" not in page.body
    letter_id = page.body.decode().partition('name="letter" value="')[2][:16]
    done = operator.post("/dead-letters/replay", letter=letter_id, reason="the intake is mended")
    assert b"1 dead letter is replayed." in done.body
    with monkeypatch.context() as patch:
        patch.setattr(dead_letters, "REPLAY_SECONDS", 0.0)
        short = operator.post("/dead-letters/replay")
    assert b"1 dead letter is replayed." in short.body
    assert b"1 more of these were not looked at yet" in short.body
    assert b"1 dead letter is replayed." in operator.post("/dead-letters/replay").body
    assert [one["reference"] for one in waiting(api)] == ["one", XSS, "three"]
    assert b"The dead queue is empty" in operator.get("/dead-letters").body


def test_nothing_that_producers_wrote_becomes_markup(api: Api, admin: Browser) -> None:
    found = reject(
        api, message(producer=XSS), {XSS: 1, "producer": "shop"}, message(template=XSS), headers={XSS: XSS}
    )
    # Half a pair, which JSON can name and UTF-8 cannot hold.
    found += reject(api, {"producer": "shop", "reference": "\ud800"})
    for page in (
        admin.get("/rejected"),
        admin.get("/rejected", producer=XSS),
        admin.get("/rejected", producer=XSS, code=XSS),
        *(admin.get(f"/rejected/{one.id}") for one in found),
        admin.post(f"/rejected/{found[0].id}/edited", body=f"</textarea>{XSS}", reason=XSS),
    ):
        assert page.status in (200, 422)
        assert b"<script>alert" not in page.body
        assert b"</textarea><" not in page.body.partition(b"<textarea")[2].partition(b"</textarea>")[0]


def test_a_producers_key_sees_no_rejected_message(api: Api) -> None:
    [kept] = reject(api, message(template="gone"))
    browser = Browser(api)
    browser.sign_in(api.key(Scope.READ, Scope.SEND))
    browser.get("/search")
    assert b"/rejected" not in browser.get("/search").body
    for path in ("/rejected", f"/rejected/{kept.id}", "/dead-letters"):
        assert browser.get(path).status == 403
    for path in ("/rejected/replay", f"/rejected/{kept.id}/replay", "/dead-letters/replay"):
        assert browser.post(path).status == 403
