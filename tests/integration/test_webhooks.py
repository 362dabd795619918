"""What providers call: signed for the public URL, small, in any state of the record, and nothing else gets in."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, quote, urlencode

import pytest
from sqlalchemy import text
from twilio.request_validator import RequestValidator

from notifier.api.routes.webhooks import MAX_BODY_BYTES
from notifier.domain.message import new_id
from notifier.domain.statuses import Channel, Status, SuppressionReason
from notifier.providers.twilio.webhooks import Form
from notifier.providers.vonage.options import METHODS
from notifier.providers.vonage.webhooks import sign
from notifier.security.recipient_hash import HashKey
from notifier.store.engine import transaction
from notifier.store.suppressions import SuppressionView
from tests.support.api import Api, Reply
from tests.support.receipts import NUMBER, SID, Texts
from tests.support.templates import write_templates

PUBLIC = "https://notify.example.com"
FIRST, SECOND = "AC" + "1" * 32, "AC" + "2" * 32
TOKENS = {FIRST: "token-of-the-first", SECOND: "token-of-the-second"}
SECRET = "signature-secret-of-nobody"
STRUCTURE = {
    "default_sender": "shop",
    "senders": {"shop": {"sms": "+15550100100"}, "clinic": {"sms": "MG" + "3" * 32}},
    "providers": [
        {"name": "text-a", "kind": "twilio", "account_sid": FIRST, "auth_token": TOKENS[FIRST]},
        {"name": "text-b", "kind": "twilio", "account_sid": SECOND, "auth_token": TOKENS[SECOND]},
        {
            "name": "vonage",
            "kind": "vonage",
            "api_key": "abcd1234",
            "api_secret": "x",
            "signature_secret": SECRET,
            "signature_method": "sha256",
        },
        {"name": "gone", "kind": "twilio", "account_sid": "${NOT_SET_ANYWHERE}", "auth_token": "x"},
    ],
}


@pytest.fixture
def api(database_url: str, tmp_path: Path) -> Iterator[Api]:
    templates = write_templates(tmp_path / "templates")
    api = Api(database_url, templates, structure=STRUCTURE, public_url=PUBLIC)
    yield api
    api.close()


@pytest.fixture
def texts(api: Api) -> Texts:
    return Texts(api.services.engine)


def sent(texts: Texts, **fields: Any) -> Any:
    [claim] = texts.start(provider="text-a", **fields)
    return claim.id


def post(
    api: Api,
    path: str,
    form: dict[str, Any],
    *,
    signed_for: str = PUBLIC,
    token: str | None = None,
    query: str = "",
    **headers: str,
) -> Reply:
    account = form.setdefault("AccountSid", FIRST)
    url = signed_for + path + (f"?{query}" if query else "")
    signature = RequestValidator(token or TOKENS.get(account, "none")).compute_signature(
        url, Form(parse_qsl(urlencode(form, doseq=True), keep_blank_values=True))
    )
    headers = {"X-Twilio-Signature": signature, "Content-Type": "application/x-www-form-urlencoded", **headers}
    more = dict(pair.split("=") for pair in query.split("&")) if query else {}
    return api("POST", path, body=urlencode(form, doseq=True).encode(), headers=headers, **more)


def callback(word: str, **more: str) -> dict[str, Any]:
    return {"MessageSid": SID, "MessageStatus": word, "To": NUMBER, "From": "+15550100100", **more}


def inbound(body: str, **more: str) -> dict[str, Any]:
    return {"MessageSid": SID, "From": NUMBER, "To": "+15550100100", "Body": body, **more}


def suppressed(api: Api) -> list[SuppressionView]:
    return api.services.suppressions.find(Channel.SMS, NUMBER)


@pytest.mark.parametrize("number", ["+１５５５０１００１２３", "+١٥٥٥٠١٠٠١٢٣", "+1555010٠123"])
def test_a_stop_of_a_number_in_other_digits_is_nobody_s(api: Api, number: str) -> None:
    assert post(api, "/webhooks/twilio/inbound", inbound("STOP", From=number)).status == 200
    assert suppressed(api) == []


def test_a_callback_moves_the_status_and_tells_the_carriers_time(api: Api, texts: Texts) -> None:
    id_ = sent(texts)
    path = f"/webhooks/twilio/{id_}/1"
    for word in ("sent", "delivered", "delivered"):
        reply = post(api, path, callback(word, ApiVersion="2010-04-01", SomethingNew=""))
        assert (reply.status, reply.body) == (204, b"")
    story = texts.story(id_)
    assert story.notification.status == Status.DELIVERED
    assert [(e.kind, e.status, e.detail) for e in story.events if e.kind == "provider"] == [
        ("provider", "sent", "sent"),
        ("provider", "delivered", "delivered"),
    ]


def test_each_account_signs_with_its_own_token_and_speaks_for_its_own_provider(api: Api, texts: Texts) -> None:
    path = f"/webhooks/twilio/{sent(texts)}/1"
    before = texts.count("events")
    # Of the other account, well signed: none of its messages. The answer does not tell.
    assert post(api, path, callback("delivered", AccountSid=SECOND)).status == 204
    assert texts.count("events") == before
    assert post(api, path, callback("delivered", AccountSid=SECOND), token=TOKENS[FIRST]).status == 403
    assert post(api, path, callback("delivered", AccountSid="AC" + "9" * 32), token=TOKENS[FIRST]).status == 403
    assert post(api, path, callback("delivered")).status == 204
    assert texts.count("events") == before + 1


def test_what_nobody_knows_is_answered_alike_and_leaves_nothing(api: Api, texts: Texts) -> None:
    known = post(api, f"/webhooks/twilio/{sent(texts)}/1", callback("sent"))
    before = texts.count("events")
    for path in (f"/webhooks/twilio/{new_id()}/1", f"/webhooks/twilio/{new_id()}/{10**40}"):
        reply = post(api, path, callback("delivered"))
        assert (reply.status, reply.body, reply.headers) == (known.status, known.body, known.headers)
    assert texts.count("events") == before


def test_the_host_of_the_request_does_not_count_only_the_public_url(api: Api, texts: Texts) -> None:
    path = f"/webhooks/twilio/{sent(texts)}/1"
    host = {"Host": "api-7.internal:8080", "X-Forwarded-Host": "evil.example.com"}
    assert post(api, path, callback("sent"), **host).status == 204
    assert post(api, path, callback("delivered"), signed_for="http://evil.example.com", **host).status == 403
    assert post(api, path, callback("delivered"), signed_for="http://api-7.internal:8080", **host).status == 403
    assert post(api, path, callback("delivered"), query="a=b").status == 204


def test_what_is_not_signed_changes_nothing_and_is_not_logged(
    api: Api, texts: Texts, caplog: pytest.LogCaptureFixture
) -> None:
    id_ = sent(texts)
    path, form = f"/webhooks/twilio/{id_}/1", urlencode({"AccountSid": FIRST, **callback("delivered")}).encode()
    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    before = texts.count("events")
    with caplog.at_level(logging.DEBUG):
        for body in (
            form,
            b"",
            b"\xff\xfe",
            b"a" * 1000,
            b"&=&=&",
            b"x=1&" * 1000,
            b"{}",
            b"%00=%00&AccountSid=%FF",
        ):
            for signature in ({}, {"X-Twilio-Signature": "AAAA"}, {"X-Twilio-Signature": ""}):
                for target in (path, "/webhooks/twilio/inbound"):
                    reply = api("POST", target, body=body, headers={**headers, **signature})
                    assert reply.status == 403, (body, signature)
                    assert reply.headers["content-type"] == "application/problem+json"
                vonage = f"/webhooks/vonage/{id_}/1/1"
                assert api("POST", vonage, body=body, headers={**headers, **signature}).status == 403
    assert texts.count("events") == before
    assert NUMBER not in caplog.text
    assert not suppressed(api)


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"MessageSid": SID, "MessageStatus": "x\0y" * 2000},
        {"MessageSid": SID, "MessageStatus": "\ufffe\u2028\U0001f600"},
        {"MessageSid": SID + "\0", "MessageStatus": "delivered"},
        {"MessageSid": SID, "MessageStatus": "undelivered", "ErrorCode": "9" * 5000},
        {"MessageSid": SID, "MessageStatus": "delivered", "RawDlrDoneDate": "0000000000"},
        {"MessageSid": ["SM1", "SM2"], "MessageStatus": ["sent", "delivered"]},
        {"Body": "STOP", "From": "+" + "1" * 5000, "To": ""},
        {"Body": "STOP", "From": NUMBER + "\n", "OptOutType": "\0"},
    ],
)
def test_whatever_is_signed_is_answered_calmly(api: Api, texts: Texts, form: dict[str, Any]) -> None:
    id_ = sent(texts)
    assert post(api, f"/webhooks/twilio/{id_}/1", dict(form)).status == 204
    assert post(api, "/webhooks/twilio/inbound", dict(form)).status == 200
    assert not suppressed(api)


@pytest.mark.parametrize("declared", [True, False])
def test_a_large_body_is_not_read_to_its_end(api: Api, declared: bool) -> None:
    chunks = [b"a" * 10_000] * 10
    headers = {"Content-Length": str(MAX_BODY_BYTES + 1)} if declared else {}
    reply = api("POST", "/webhooks/twilio/inbound", body=chunks, headers=headers)
    assert reply.status == 413


def test_other_methods_and_places_are_refused_as_everywhere(api: Api) -> None:
    assert api("GET", "/webhooks/twilio/inbound").status == 405
    assert api("POST", "/webhooks/twilio/not-an-id/1").status == 404
    assert api("POST", "/webhooks/other/inbound").status == 404
    assert not [path for path in api.app.openapi()["paths"] if "webhooks" in path]


def test_while_the_database_is_away_the_provider_is_asked_to_come_back(tmp_path: Path) -> None:
    nowhere = "postgresql://127.0.0.1:1/nothing"
    api = Api(nowhere, write_templates(tmp_path / "templates"), structure=STRUCTURE, public_url=PUBLIC)
    reply = post(api, f"/webhooks/twilio/{new_id()}/1", callback("delivered"))
    assert (reply.status, "retry-after" in reply.headers) == (503, True)
    api.close()


@pytest.mark.parametrize(
    ("form", "scopes"),
    [
        (inbound(" stop\n"), {"sender:shop"}),
        (inbound("STOPALL"), {"sender:shop"}),
        # Of a language that only Twilio's Advanced Opt-Out knows.
        (inbound("ARRET", OptOutType="STOP"), {"sender:shop"}),
        (inbound("STOP", To="+15550100177", MessagingServiceSid="MG" + "3" * 32), {"sender:clinic"}),
        (inbound("STOP", To="+15550100177"), {"global"}),
        (inbound("please stop this"), set()),
        (inbound("HELP"), set()),
        (inbound("STOP", From="whatsapp:+15550100123"), set()),
        (inbound("STOP", From=""), set()),
        ({"Body": "STOP"}, set()),
        ({"MessageSid": SID}, set()),
    ],
)
def test_a_keyword_suppresses_for_whom_it_was_written_to(api: Api, form: dict[str, Any], scopes: set[str]) -> None:
    reply = post(api, "/webhooks/twilio/inbound", dict(form))
    assert (reply.status, reply.headers["content-type"]) == (200, "text/xml; charset=utf-8")
    assert b"<Response/>" in reply.body
    assert {(one.scope, one.reason) for one in suppressed(api)} == {(scope, "opted_out") for scope in scopes}


def test_start_lifts_what_stop_did_and_nothing_else(api: Api) -> None:
    path = "/webhooks/twilio/inbound"
    manual: dict[str, Any] = {
        "channel": Channel.SMS,
        "address": NUMBER,
        "scope": "sender:shop",
        "source": "operator:ann",
    }
    api.services.suppressions.add(**manual, reason=SuppressionReason.MANUAL)
    post(api, path, inbound("STOP"))
    post(api, path, inbound("STOP"))
    assert [one.state for one in suppressed(api)] == ["active", "active"]
    assert post(api, path, inbound("start")).status == 200
    assert {(one.reason, one.state) for one in suppressed(api)} == {("opted_out", "lifted"), ("manual", "active")}


@pytest.mark.parametrize(
    ("code", "scope", "reason"),
    [("21610", "sender:clinic", "opted_out"), ("30005", "global", "invalid_recipient"), ("30003", None, None)],
)
def test_a_receipt_may_say_that_a_recipient_must_not_be_sent_to(
    api: Api, texts: Texts, code: str, scope: str | None, reason: str | None
) -> None:
    id_ = sent(texts, sender="clinic")
    for _ in range(2):
        post(api, f"/webhooks/twilio/{id_}/1", callback("undelivered", ErrorCode=code))
    expected = [] if scope is None else [(scope, reason, "webhook:text-a", id_)]
    assert [(one.scope, one.reason, one.source, one.notification_id) for one in suppressed(api)] == expected
    assert texts.status(id_) == Status.UNDELIVERED


def test_who_opts_out_of_a_message_from_before_another_hash_key_is_suppressed_under_todays(
    texts: Texts, database_url: str, tmp_path: Path
) -> None:
    id_ = sent(texts, sender="clinic")
    key = "another key of sixteen"
    templates = write_templates(tmp_path / "today")
    api = Api(database_url, templates, structure=STRUCTURE, public_url=PUBLIC, hash_key=key)
    post(api, f"/webhooks/twilio/{id_}/1", callback("undelivered", ErrorCode="21610"))
    assert [(one.scope, one.hash_key) for one in suppressed(api)] == [("sender:clinic", HashKey(key).fingerprint)]
    assert not api.services.suppressions.has_other_key()
    api.close()


@pytest.mark.parametrize("code", ["30005", "21610"])
def test_a_failure_that_comes_after_the_delivery_suppresses_nobody(api: Api, texts: Texts, code: str) -> None:
    id_ = sent(texts, sender="clinic")
    post(api, f"/webhooks/twilio/{id_}/1", callback("delivered"))
    post(api, f"/webhooks/twilio/{id_}/1", callback("undelivered", ErrorCode=code))
    assert (texts.status(id_), suppressed(api)) == (Status.DELIVERED, [])
    [claim] = texts.start(provider="vonage")
    path = f"/webhooks/vonage/{claim.id}/1/1"
    for fields in (receipt(claim.id), receipt(claim.id, "failed", **{"err-code": "9"})):
        assert api("POST", path, body=urlencode(fields).encode()).status == 204
    assert (texts.status(claim.id), suppressed(api)) == (Status.DELIVERED, [])


def receipt(id_: Any, word: str = "delivered", method: str = "sha256", **more: str) -> dict[str, str]:
    fields = {
        "api-key": "abcd1234",
        "client-ref": str(id_),
        "messageId": "0A0000001234567B",
        "msisdn": NUMBER.removeprefix("+"),
        "status": word,
        "err-code": "0",
        "nonce": "a&b=c",
        "timestamp": str(int(time.time())),
        **more,
    }
    return {**fields, "sig": sign(SECRET, method, fields).upper()}


def test_a_delivery_receipt_of_vonage_counts_as_a_form_and_as_json(api: Api, texts: Texts) -> None:
    [claim] = texts.start(provider="vonage")
    path = f"/webhooks/vonage/{claim.id}/1/1"
    json_headers = {"Content-Type": "application/json"}
    failed = receipt(claim.id, "failed", **{"err-code": "9"})
    assert api("POST", path, body=json.dumps(failed).encode(), headers=json_headers).status == 204
    assert texts.status(claim.id) == Status.UNDELIVERED
    assert [one.scope for one in suppressed(api)] == ["sender:shop"]
    assert api("POST", path, body=urlencode(receipt(claim.id)).encode()).status == 204
    assert texts.status(claim.id) == Status.DELIVERED


def test_a_receipt_of_vonage_that_is_forged_or_for_another_message_counts_for_nothing(
    api: Api, texts: Texts
) -> None:
    [claim, other] = texts.start(2, provider="vonage")
    path, good = f"/webhooks/vonage/{claim.id}/1/1", receipt(claim.id)
    for name in good:
        forged = {**good, name: good[name] + "0"}
        assert api("POST", path, body=urlencode(forged).encode()).status == 403, name
    assert api("POST", path, body=urlencode({**good, "extra": ""}).encode()).status == 403
    assert api("POST", path, body=urlencode(receipt(claim.id, method="md5hash")).encode()).status == 403
    # Taken from one notification's receipt and sent to the address of another's.
    moved = f"/webhooks/vonage/{other.id}/1/1"
    assert api("POST", moved, body=urlencode(good).encode()).status == 204
    assert {texts.status(claim.id), texts.status(other.id)} == {Status.SENDING}


def test_a_signed_receipt_of_vonage_counts_while_it_is_fresh(api: Api, texts: Texts) -> None:
    [claim] = texts.start(provider="vonage")
    path, now = f"/webhooks/vonage/{claim.id}/1/1", int(time.time())
    for stale in (
        str(now - 26 * 3600),
        str(now + 2 * 3600),
        "",
        "0",
        "-1",
        "1" * 50,
        "１７６４００００００",
        f"{now}.0",
    ):
        assert api("POST", path, body=urlencode(receipt(claim.id, timestamp=stale)).encode()).status == 403
    assert texts.status(claim.id) == Status.SENDING
    kept = receipt(claim.id, timestamp=str(now - 24 * 3600))
    assert api("POST", path, body=urlencode(kept).encode()).status == 204
    assert texts.status(claim.id) == Status.DELIVERED


@pytest.mark.parametrize("number", ["9" * 5000, "9" * 101, "x", "-1", "1.0", "１"])
def test_an_address_with_a_number_that_is_none_of_ours_is_not_found(api: Api, number: str) -> None:
    id_ = "01a20470-9331-73b2-88dc-ad24a063248d"
    for path in (f"twilio/{id_}/{number}", f"vonage/{id_}/{number}/1", f"vonage/{id_}/1/{number}"):
        assert api("POST", f"/webhooks/{quote(path)}", body=b"").status == 404


def test_a_signature_of_vonage_may_be_any_text(api: Api, texts: Texts) -> None:
    [claim] = texts.start(provider="vonage")
    path, headers = f"/webhooks/vonage/{claim.id}/1/1", {"Content-Type": "application/json"}
    good = receipt(claim.id)
    for field in good:
        body = json.dumps({**good, field: "\ud800"}).encode()
        assert api("POST", path, body=body, headers=headers).status == 403, field
    signed = receipt(claim.id, status="\ud800", network="\udfff")
    assert api("POST", path, body=json.dumps(signed).encode(), headers=headers).status == 204
    assert texts.status(claim.id) == Status.SENDING


def test_every_method_of_signing_makes_another_signature() -> None:
    fields = {"a": "1", "b": "x&y=z"}
    assert len({sign(SECRET, method, fields) for method in METHODS}) == len(METHODS)
    # As Vonage's guide writes it down: "&a=1&b=x_y_z" and the secret, in MD5.
    assert sign("secret", "md5hash", fields) == "d088c52d7310db7e614291e02965665f"


def test_no_address_is_in_the_record_of_suppressions(api: Api) -> None:
    post(api, "/webhooks/twilio/inbound", inbound("STOP"))
    with transaction(api.services.engine) as connection:
        rows = connection.execute(text("SELECT s::text FROM suppressions AS s")).scalars().all()
    assert len(rows) == 1
    assert NUMBER not in rows[0]
