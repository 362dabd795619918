"""What a client makes of answers that are not those of a notifier, or of none of its requests."""

from __future__ import annotations

import json
from typing import Any
from uuid import UUID

import pytest

from notifier import (
    ConfigurationError,
    InvalidMessage,
    NotifierError,
    NotReady,
    PublishFailed,
    PublishRefused,
    ServiceUnavailable,
)
from notifier.client.conversations import ApiReply, ApiRequest, Asked, ask_status, publish, publish_batch, wait_for
from notifier.client.service_requests import list_notifications, upload_file

ID = "01a2047b-fb2a-7da5-858e-3be3814fe3b1"
HTML = b"<html><h1>Welcome</h1></html>"
GOOD_ERROR = {"pointer": "/batch/1/to", "code": "missing", "problem": "is missing", "fix": "Add it"}


def said(conversation: Any, reply: ApiReply) -> Any:
    """What comes of a conversation whose every request gets this reply."""
    next(conversation)
    try:
        while True:
            conversation.send(reply)
    except StopIteration as end:
        return end.value


def refused(status: int, errors: Any, detail: str = "it is not valid") -> ApiReply:
    body = json.dumps({"detail": detail, "errors": errors}).encode()
    return ApiReply(status, body, media_type="application/problem+json")


@pytest.mark.parametrize(
    "body", [b"", HTML, b"[]", b'{"id":5}', b'{"entries":[]}', b'{"entries":[{}]}', b'{"entries":[5]}', b"\xff"]
)
@pytest.mark.parametrize("status", [200, 202])
def test_a_message_whose_answer_cannot_be_read_may_have_been_accepted(status: int, body: bytes) -> None:
    for conversation in (publish(b"{}"), publish_batch([b"{}"], 0)):
        with pytest.raises(PublishFailed, match=r"not known: .* publish again with the same") as failed:
            said(conversation, ApiReply(status, body))
        assert not isinstance(failed.value, PublishRefused)


def test_a_batch_has_an_answer_for_each_entry() -> None:
    entries = [{"id": ID}, {"status": 422, "errors": [{**GOOD_ERROR, "pointer": "/to"}]}]
    reply = ApiReply(202, json.dumps({"entries": entries}).encode())
    accepted, faults = said(publish_batch([b"{}", b"{}"], 7), reply)
    assert (accepted, [fault.field for fault in faults]) == (UUID(ID), ["8.to"])
    for count in (1, 3):
        with pytest.raises(PublishFailed):
            said(publish_batch([b"{}"] * count, 0), reply)


@pytest.mark.parametrize("errors", [["x"], [{}], [{"code": 5}], 5, {}])
def test_a_refusal_that_cannot_be_read_is_that_of_a_wrong_address(errors: Any) -> None:
    with pytest.raises(PublishRefused, match="HTTP 422; correct the address of its API; until"):
        said(publish(b"{}"), refused(422, errors))


def test_what_is_too_large_for_a_proxy_is_no_wrong_address() -> None:
    for conversation in (publish(b"{}"), publish_batch([b"{}"], 0)):
        with pytest.raises(PublishRefused, match=r"\(HTTP 413\): send less at once") as large:
            said(conversation, ApiReply(413, HTML, media_type="text/html"))
        assert "address" not in str(large.value)
    with pytest.raises(ConfigurationError, match=r"HTTP 413.* send a smaller one"):
        said(upload_file("a.txt", b"a", "text/plain"), ApiReply(413, HTML, media_type="text/html"))


def test_a_refusal_names_the_entry_that_is_meant() -> None:
    for pointer, field in (("/batch/1/to", "8.to"), ("/batch/x", "batch.x"), ("/batch", "batch")):
        with pytest.raises(InvalidMessage) as invalid:
            said(publish_batch([b"{}"], 7), refused(422, [{**GOOD_ERROR, "pointer": pointer}]))
        assert [fault.field for fault in invalid.value.faults] == [field]


def test_only_a_notifier_says_that_a_notification_is_not_in_the_record() -> None:
    asked = Asked.by(ID)
    assert said(ask_status(asked), refused(404, [], "no notification has the id")) is None
    for other in (
        ApiReply(404, HTML, media_type="text/html"),
        ApiReply(404, b'{"detail":"no","errors":[]}', media_type="application/json"),
        ApiReply(404, b'{"detail":"no"}', media_type="application/problem+json"),
        refused(404, [], "Not Found"),
    ):
        for conversation in (ask_status(asked), wait_for(asked, 60)):
            with pytest.raises(ConfigurationError, match="correct its address") as wrong:
                said(conversation, other)
            assert wrong.value.setting == "NOTIFIER_API_URL"


@pytest.mark.parametrize("body", [b"", HTML, b"[]", b'{"id":5}', b'{"items":5,"next":null}'])
def test_what_is_no_answer_to_a_file_or_a_search_is_a_wrong_address(body: bytes) -> None:
    for conversation in (upload_file("a.txt", b"a", "text/plain"), list_notifications("ann@example.com")):
        with pytest.raises(NotifierError, match="correct its address"):
            said(conversation, ApiReply(200, body))


@pytest.mark.parametrize("timeout", ["3", b"3", True, [], float("nan"), float("inf"), 1e300, 10**400])
def test_a_time_to_wait_that_is_none_is_said_before_anybody_is_asked(timeout: Any) -> None:
    with pytest.raises((TypeError, ValueError), match="timeout is a number of seconds"):
        next(wait_for(Asked.by(ID), timeout))


def test_a_time_that_is_over_is_one_look() -> None:
    with pytest.raises(NotReady):
        said(wait_for(Asked.by(ID), -1), refused(404, [], "no notification has the id"))


def test_a_message_is_sent_again_unless_its_time_is_over() -> None:
    gone = publish(b"{}")
    assert next(gone) == gone.send(ApiReply(problem="no answer"))
    for conversation, reply in ((gone, ApiReply(problem="no answer")), (publish(b"{}"), ApiReply(is_late=True))):
        if conversation is not gone:
            next(conversation)
        with pytest.raises(PublishFailed, match="publish again with the same"):
            conversation.send(reply)


def test_a_crowd_of_its_own_is_no_silent_service_to_who_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr("notifier.client.conversations.time.monotonic", lambda: now[0])
    crowded = ApiReply(problem="too many other requests", is_late=True, is_crowded=True)
    for heard, error, match in (
        (None, NotReady, "not known after 9 s: .*; too many other requests"),
        (refused(404, [], "no notification has the id"), NotReady, "not in the record after 9 s"),
        (ApiReply(problem="no answer"), ServiceUnavailable, "did not give its status: no answer; ask again"),
    ):
        conversation = wait_for(Asked.by(ID), 9)
        step = next(conversation)
        assert isinstance(step, ApiRequest)
        assert step.patience_seconds == step.unheld().patience_seconds == 9
        if heard is not None:
            conversation.send(heard)
            now[0] += 4
            step = conversation.send(ApiReply())
            assert isinstance(step, ApiRequest)
            assert step.patience_seconds == 5
        now[0] += 9
        with pytest.raises(error, match=match):
            conversation.send(crowded)
