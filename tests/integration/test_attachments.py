"""Files: uploaded within limits, named by mails, sent as they came, deleted when nobody needs them."""

from __future__ import annotations

import email
import email.policy
import hashlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from sqlalchemy import text

from notifier.delivery import Deliverer, attachments
from notifier.dev.smtp_server import MailServer, running_mail_server
from notifier.domain.message import Message, new_id
from notifier.domain.statuses import Channel, Lane, OnUnknown
from notifier.intake.batch import Received
from notifier.operations import Selection
from notifier.operations.api_keys import Scope
from notifier.store.attachments import use_attachments
from notifier.store.engine import transaction
from notifier.store.records import NewNotification
from notifier.store.search import Filter
from notifier.worker.runtime import DeliveryLoop
from tests.support.api import Api, Reply
from tests.support.templates import write_templates
from tests.unit.cli.commandline import CommandLine

PDF = b"%PDF-1.7\r\n.\r\n\x00\xff" * 100
NAMED = "attachment; filename*=UTF-8''Rechnung%20f%C3%BCr%20Zo%C3%A9.pdf"


@pytest.fixture
def mail() -> Iterator[MailServer]:
    with running_mail_server(MailServer()) as mail:
        yield mail


@pytest.fixture
def api(database_url: str, tmp_path: Path, mail: MailServer) -> Iterator[Api]:
    url = f"smtp://127.0.0.1:{mail.port}?starttls=never"
    api = Api(database_url, write_templates(tmp_path), smtp_url=url, attachment_max_bytes=4096)
    yield api
    api.close()


def upload(
    api: Api,
    content: bytes | list[bytes] = PDF,
    *,
    named: str | None = NAMED,
    kind: str | None = "application/pdf",
    key: str | None = None,
    **headers: str,
) -> Reply:
    given = {"content-disposition": named, "content-type": kind, **headers}
    sent = {name: value for name, value in given.items() if value is not None}
    return api("POST", "/v1/attachments", key=key or api.key(Scope.SEND), body=content, headers=sent)


def test_files_beyond_the_quota_are_refused_until_others_are_gone(database_url: str, tmp_path: Path) -> None:
    made = Api(database_url, write_templates(tmp_path), attachment_quota_bytes=10 * 1024 * 1024)
    key, other = made.key(Scope.SEND), made.key(Scope.SEND, producer="billing")
    part = 4 * 1024 * 1024

    def put(number: int, token: str = key) -> Reply:
        return upload(made, bytes([number]) * part, key=token)

    # Two at once find the same room: one of them gets it.
    assert put(0).status == 201
    with ThreadPoolExecutor(4) as pool:
        replies = list(pool.map(put, range(1, 5)))
    assert sorted(reply.status for reply in replies) == [201, 413, 413, 413]
    refused = next(reply for reply in replies if reply.status == 413)
    [error] = refused.json["errors"]
    assert (error["code"], error["problem"]) == (
        "attachment_quota",
        "the files of this producer take up 8388608 of 10485760 bytes",
    )
    assert put(0).status == 201
    assert put(9, other).status == 201
    execute(made, "UPDATE attachments SET uploaded_at = now() - interval '2 days' WHERE producer = 'shop'")
    assert made.services.attachments.forget_old(days=7) == 2
    assert put(9).status == 201
    assert [(use.producer, use.files) for use in made.services.attachments.storage()] == [
        ("billing", 1),
        ("shop", 1),
    ]
    made.close()


def test_many_small_files_count_as_what_their_rows_take(api: Api) -> None:
    for number in range(3):
        assert upload(api, bytes([number])).status == 201
    [use] = api.services.attachments.storage()
    assert (use.files, use.size) == (3, 3 * 4096)


def test_a_key_that_sends_no_mail_uploads_nothing(api: Api) -> None:
    reply = upload(api, key=api.key(Scope.SEND, channels=(Channel.SMS,)))
    assert (reply.status, codes(reply)) == (403, {("/channel", "channel_not_allowed")})


def send(api: Api, *ids: object, key: str | None = None, **fields: Any) -> Reply:
    body = {
        "idempotency_key": "k",
        "channel": "email",
        "to": "ann@example.com",
        "template": "hello",
        "context": {"name": "Ann"},
        "attachments": [str(value) for value in ids],
        **fields,
    }
    return api("POST", "/v1/notifications", key=key or api.key(Scope.SEND), json_body=body)


def codes(reply: Reply) -> set[tuple[str, str]]:
    return {(e.get("pointer") or e.get("parameter") or "", e["code"]) for e in reply.json["errors"]}


def execute(api: Api, statement: str) -> int:
    with transaction(api.services.engine) as connection:
        return connection.execute(text(statement)).rowcount


def deliver(api: Api, *ids: str) -> None:
    delivery = DeliveryLoop(api.services)
    try:
        delivery.deliverer.deliver([UUID(value) for value in ids])
    finally:
        delivery.stop()


def test_an_uploaded_file_has_an_id_and_is_kept_once(api: Api) -> None:
    first, second = upload(api), upload(api, [PDF[:700], PDF[700:]])
    assert first.status == 201
    assert first.json == {
        "id": first.json["id"],
        "name": "Rechnung für Zoé.pdf",
        "content_type": "application/pdf",
        "size": len(PDF),
        "sha256": hashlib.sha256(PDF).hexdigest(),
    }
    assert second.json == first.json
    others = (
        upload(api, named='attachment; filename="b.pdf"'),
        upload(api, key=api.key(Scope.SEND, producer="b")),
    )
    assert len({reply.json["id"] for reply in (first, *others)}) == 3


WRONG: list[tuple[dict[str, Any], int, set[tuple[str, str]]]] = [
    ({"kind": "application/x-msdownload"}, 415, {("Content-Type", "attachment_type")}),
    ({"kind": None}, 415, {("Content-Type", "attachment_type")}),
    ({"kind": "application/pdf\tx"}, 415, {("Content-Type", "attachment_type")}),
    ({"content": b""}, 422, {("", "attachment_empty")}),
    ({"content_encoding": "gzip"}, 415, {("Content-Encoding", "wrong_content_encoding")}),
    ({"named": None}, 422, {("content-disposition", "missing")}),
    ({"named": "attachment"}, 422, {("Content-Disposition", "bad_file_name")}),
    ({"named": 'attachment; filename="../x.pdf"'}, 422, {("Content-Disposition", "bad_file_name")}),
    ({"named": "attachment; filename*=utf-8''a%0D%0ABcc"}, 422, {("Content-Disposition", "bad_file_name")}),
    ({"named": f'attachment; filename="{"x" * 201}"'}, 422, {("Content-Disposition", "bad_file_name")}),
    (
        {"kind": "text/html", "named": "inline", "content": b""},
        415,
        {("Content-Type", "attachment_type"), ("Content-Disposition", "bad_file_name"), ("", "attachment_empty")},
    ),
    ({"content": b"x" * 4097}, 413, set()),
    ({"content": [b"x" * 3000, b"x" * 3000]}, 413, set()),
    ({"content": b"", "content_length": "4097"}, 413, set()),
]


def test_what_is_no_right_file_is_refused(api: Api) -> None:
    key = api.key(Scope.SEND)
    for given, status, expected in WRONG:
        fields = {name.replace("_", "-"): given[name] for name in given}
        reply = upload(api, fields.pop("content", PDF), key=key, **fields)
        assert (reply.status, codes(reply)) == (status, expected), given
    assert execute(api, "SELECT 1 FROM attachments") == 0


def test_a_name_in_plain_utf_8_is_read_as_what_it_is(api: Api) -> None:
    assert upload(api, named='attachment; filename="für Zoé.pdf"').json["name"] == "für Zoé.pdf"


@pytest.mark.parametrize(
    ("named", "name"),
    [
        ("attachment; filename=\"Pruefbericht.pdf\"; filename*=UTF-8''Pr%C3%BCfbericht.pdf", "Prüfbericht.pdf"),
        ("attachment; filename*=UTF-8''Pr%C3%BCfbericht.pdf; filename=\"Pruefbericht.pdf\"", "Prüfbericht.pdf"),
        ("attachment; FILENAME*=iso-8859-1'de'Pr%FCfbericht.pdf; filename=p.pdf", "Prüfbericht.pdf"),
        ("attachment; filename*0*=UTF-8''Pr%C3%BC; filename*1=fbericht.pdf; filename=p.pdf", "Prüfbericht.pdf"),
        # What cannot be read of it does not count.
        ("attachment; filename*=UTF-8''%ff.pdf; filename=p.pdf", "p.pdf"),
        ("attachment; filename*=utf-7''x.pdf; filename=p.pdf", "p.pdf"),
        ("attachment; filename*=x.pdf; filename=p.pdf", "p.pdf"),
    ],
)
def test_the_extended_file_name_wins_over_the_plain_one(api: Api, named: str, name: str) -> None:
    assert upload(api, named=named).json["name"] == name


def test_only_a_key_that_sends_uploads_and_the_other_routes_keep_their_limit(api: Api) -> None:
    assert upload(api, key=api.key(Scope.READ)).status == 403
    assert api("POST", "/v1/attachments", body=PDF).status == 401
    # The body of a message may be larger than a file here.
    assert send(api, context={"name": "x" * 8000}, attachments=None).status == 202


def test_a_mail_carries_its_files_as_they_came(api: Api, mail: MailServer) -> None:
    pdf, csv = (
        upload(api),
        upload(api, b"a;\xc3\xa9", named='attachment; filename="list.csv"', kind="TEXT/csv;charset=UTF-8"),
    )
    plain = send(api, idempotency_key="plain")
    with_files = [send(api, pdf.json["id"], csv.json["id"], idempotency_key=f"k{n}") for n in range(2)]
    assert [reply.status for reply in with_files] == [202, 202]
    deliver(api, *(reply.json["id"] for reply in (plain, *with_files)))
    found = [email.message_from_bytes(one.content, policy=email.policy.default) for one in mail.messages]
    assert sorted(one.get_content_type() for one in found) == ["multipart/alternative", *["multipart/mixed"] * 2]
    for one in found:
        if one.get_content_type() == "multipart/mixed":
            files = [(part.get_filename(), part.get_content()) for part in one.iter_attachments()]
            assert files == [("Rechnung für Zoé.pdf", PDF), ("list.csv", "a;é")]
            body = one.get_body(("plain",))
            assert body is not None
            assert body.get_content().startswith("Hello Ann")


def test_a_batch_of_large_mails_goes_in_portions(
    api: Api, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attachments, "PORTION_BYTES", 2 * len(PDF))
    loads: list[int] = []
    repository = api.services.attachments
    load = repository.load
    monkeypatch.setattr(type(repository), "load", lambda _, ids: loads.append(len(ids)) or load(ids))
    file = upload(api).json["id"]
    ids = [send(api, file, idempotency_key=f"k{n}").json["id"] for n in range(5)]
    deliver(api, *ids)
    assert mail.received == 5
    # The same file goes with all of them.
    assert loads == [1]


def test_mails_with_files_leave_threads_to_all_others(api: Api, mail: MailServer) -> None:
    large = send(api, upload(api).json["id"], idempotency_key="large").json["id"]
    small = send(api, idempotency_key="small").json["id"]
    delivery = DeliveryLoop(api.services)
    share = delivery.deliverer._for_files
    try:
        with ExitStack() as others:
            taken = 0
            while others.enter_context(share.turn()):
                taken += 1
            assert taken == api.services.settings.worker_threads // 2
            ids = [UUID(value) for value in (large, small)]
            assert delivery.deliverer.deliver(ids).sent == 1
            waiting = api.services.audit.story(ids[0])
            # Nobody's, and soon due again, without a line in its history.
            assert (waiting.notification.status, len(waiting.events)) == ("queued", 1)
            assert waiting.notification.due_at is not None
            # After the death of a worker it is claimed first.
            assert delivery.deliverer.deliver(ids, is_redelivered=True).sent == 0
            assert api.services.audit.story(ids[0]).notification.reason == "lease_expired"
        execute(api, "UPDATE states SET status = 'queued' WHERE status = 'retrying'")
        assert delivery.deliverer.deliver(ids).sent == 1
    finally:
        delivery.stop()
    assert mail.received == 2


def test_what_has_no_time_left_is_given_back_and_is_no_crash(
    api: Api, mail: MailServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    id_ = send(api, upload(api).json["id"]).json["id"]
    # As if the portions before it had taken the whole lease.
    monkeypatch.setattr(Deliverer, "_margin_seconds", property(lambda _: api.services.settings.lease_seconds))
    deliver(api, id_)
    found = api.services.audit.story(UUID(id_)).notification
    assert (found.status, found.reason, mail.received) == ("retrying", "lease_expired", 0)


def test_a_message_names_files_of_its_own_producer_only(api: Api) -> None:
    file = upload(api).json["id"]
    other = send(api, file, key=api.key(Scope.SEND, producer="bank"))
    assert (other.status, codes(other)) == (422, {("/attachments/0", "unknown_attachment")})
    assert codes(send(api, file, new_id())) == {("/attachments/1", "unknown_attachment")}
    assert codes(send(api, "x")) == {("/attachments/0", "bad_attachment_id")}
    assert codes(send(api, *[file] * 11)) == {("/attachments", "too_long")}
    sms: dict[str, Any] = {"channel": "sms", "to": "+15550100123", "template": "code", "context": {"code": "1"}}
    assert codes(send(api, file, **sms)) == {("/attachments", "attachments_not_here")}
    execute(api, "UPDATE attachments SET size = 6 * 1024 * 1024")
    assert codes(send(api, file, file)) == {("/attachments", "attachments_too_large")}
    assert api.services.audit.search(Filter()) == []
    # In a batch the others go.
    entries = [
        {"idempotency_key": "a", "attachments": [file]},
        {"idempotency_key": "b", "attachments": [str(new_id())]},
    ]
    batch = {
        "template": "hello",
        "defaults": {"channel": "email", "to": "ann@example.com", "context": {"name": "Ann"}},
        "batch": entries,
    }
    reply = api("POST", "/v1/notifications/batch", key=api.key(Scope.SEND), json_body=batch)
    assert (reply.json["accepted"], reply.json["refused"]) == (1, 1)


def test_files_of_test_keys_take_no_room_and_are_for_tests_alone(database_url: str, tmp_path: Path) -> None:
    api = Api(database_url, write_templates(tmp_path), attachment_quota_bytes=10 * 1024 * 1024)
    live, test = api.key(Scope.SEND), api.key(Scope.SEND, is_test=True)
    first, second, third = (bytes([number]) * 4 * 1024 * 1024 for number in range(3))
    assert upload(api, first, key=test).status == upload(api, second, key=test).status == 201
    assert upload(api, third, key=test).status == 413
    assert upload(api, first, key=live).status == upload(api, second, key=live).status == 201
    of_test, of_live = (upload(api, key=key).json["id"] for key in (test, live))
    assert of_test != of_live
    assert codes(send(api, of_test, key=live)) == {("/attachments/0", "unknown_attachment")}
    assert send(api, of_test, of_live, key=test).status == send(api, of_live, key=live).status == 202
    api.close()


def test_over_the_broker_it_is_the_same(api: Api) -> None:
    file = upload(api).json["id"]
    intake = api.services.intake(lambda *_: None)
    bodies = [
        b'{"producer": "shop", "idempotency_key": "%d", "to": "ann@example.com", "template": "hello",'
        b' "context": {"name": "Ann"}, "attachments": ["%s"]}' % (number, str(value).encode())
        for number, value in enumerate((file, new_id()))
    ]
    summary = intake.process([Received(body, Channel.EMAIL, Lane.NORMAL) for body in bodies])
    assert (summary.accepted, summary.rejected) == (1, 1)
    (rejected,) = api.services.audit.rejected()
    assert rejected.faults[0]["code"] == "unknown_attachment"


def test_a_file_lives_as_long_as_somebody_needs_it(api: Api) -> None:
    used, unused, scheduled, waiting = (
        upload(api, named=f'attachment; filename="{name}.pdf"').json["id"] for name in "abcd"
    )
    ids = [send(api, used).json["id"]]
    send(api, scheduled, idempotency_key="later", send_at="2027-06-01T00:00:00Z")
    send(api, waiting, idempotency_key="waits")
    execute(api, "UPDATE attachments SET uploaded_at = uploaded_at - interval '25 hours'")
    execute(api, "UPDATE attachments SET needed_until = needed_until - interval '8 days'")
    execute(api, "UPDATE attachments SET needed_until = now() + interval '99 days' WHERE name = 'c.pdf'")
    execute(api, f"UPDATE states SET status = 'delivered' WHERE id = '{ids[0]}'")
    repository = api.services.attachments
    assert repository.forget_old(days=30) == 1
    assert set(repository.sizes([UUID(one) for one in (used, unused, scheduled, waiting)])) == set(
        map(UUID, (used, scheduled, waiting))
    )
    assert repository.forget_old(days=7) == 1
    assert set(repository.sizes([UUID(one) for one in (used, scheduled, waiting)])) == {
        UUID(scheduled),
        UUID(waiting),
    }
    # A repetition of a message whose file is gone is answered as the first time.
    again = send(api, used)
    assert (again.status, again.headers["idempotency-replayed"]) == (202, "true")


def test_a_file_of_what_was_cancelled_goes_before_that_would_have_been_due(api: Api) -> None:
    cancelled, waits = upload(api, named='attachment; filename="a.pdf"'), upload(api)
    stopped = send(api, cancelled.json["id"], send_at="2027-06-01T00:00:00Z").json["id"]
    send(api, waits.json["id"], idempotency_key="waits", send_at="2027-06-01T00:00:00Z")
    repository = api.services.attachments
    execute(api, "UPDATE attachments SET uploaded_at = uploaded_at - interval '25 hours'")
    api.parts.operations.cancel(Selection((UUID(stopped),)), operator="ann")
    assert repository.forget_old(days=7) == 0, "it is kept for some days, as after any use"
    execute(api, "UPDATE attachments SET needed_until = needed_until - interval '8 days'")
    assert repository.forget_old(days=7) == 1
    assert [*repository.sizes([UUID(one.json["id"]) for one in (cancelled, waits)])] == [UUID(waits.json["id"])]


def test_a_file_that_is_just_being_named_is_not_deleted(api: Api) -> None:
    file = upload(api).json["id"]
    execute(api, "UPDATE attachments SET uploaded_at = uploaded_at - interval '25 hours'")
    message = Message(
        producer="shop", idempotency_key="k", to="ann@example.com", template="hello", attachments=[file]
    )
    new = NewNotification(message, Channel.EMAIL, Lane.NORMAL, "v1", OnUnknown.HOLD, 0)
    repository = api.services.attachments
    with transaction(api.services.engine) as connection:
        assert use_attachments(connection, [new]) == {}
        assert repository.forget_old(days=1) == 0
    assert repository.forget_old(days=1) == 0
    assert len(repository.sizes([UUID(file)])) == 1


def test_a_file_that_is_gone_ends_its_mail_and_says_so(api: Api, mail: MailServer, database_url: str) -> None:
    id_ = send(api, upload(api).json["id"]).json["id"]
    notifier = CommandLine({"database_url": database_url})
    assert "Rechnung für Zoé.pdf (application/pdf, " in notifier("show", id_).out
    execute(api, "DELETE FROM attachments")
    deliver(api, id_)
    found = api.services.audit.story(UUID(id_)).notification
    assert (found.status, found.reason, mail.received) == ("failed", "attachment_missing", 0)
    assert "(deleted)" in notifier("show", id_).out
    assert notifier("show", id_, "--json").json["attachments"][0]["name"] is None


def test_a_file_in_use_is_written_once_an_hour_only(api: Api) -> None:
    file = upload(api).json["id"]
    seen = []
    for number in range(2):
        send(api, file, idempotency_key=str(number))
        with transaction(api.services.engine) as connection:
            seen.append(connection.execute(text("SELECT needed_until FROM attachments")).scalar_one())
    assert seen[0] is not None
    assert seen[0] == seen[1]
