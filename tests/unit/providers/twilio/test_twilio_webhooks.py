"""What Twilio says by itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from notifier.domain.statuses import Reason, Status
from notifier.providers.twilio.webhooks import Form, Wish, read_callback, read_form, read_wish, report_of

SID = "SM" + "0" * 32


def callback(word: str, **more: str) -> Form:
    return Form({"MessageSid": SID, "MessageStatus": word, **more})


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("accepted", Status.SENT),
        ("queued", Status.SENT),
        ("sending", Status.SENT),
        ("sent", Status.SENT),
        ("delivered", Status.DELIVERED),
        ("read", Status.DELIVERED),
        ("undelivered", Status.UNDELIVERED),
        ("failed", Status.UNDELIVERED),
        ("canceled", Status.UNDELIVERED),
        ("partially_delivered", None),
        ("DELIVERED", None),
    ],
)
def test_a_word_means_a_status_or_nothing(word: str, status: Status | None) -> None:
    report = read_callback(callback(word))
    assert report is not None
    assert (report.status, report.provider_message_id) == (status, SID)


@pytest.mark.parametrize(
    ("code", "reason", "suppress", "words"),
    [
        (None, Reason.PROVIDER_REJECTED, False, "undelivered"),
        ("", Reason.PROVIDER_REJECTED, False, "undelivered"),
        ("0", Reason.PROVIDER_REJECTED, False, "undelivered"),
        ("ü٣", Reason.PROVIDER_REJECTED, False, "undelivered"),
        ("99999", Reason.PROVIDER_REJECTED, False, "undelivered (code 99999)"),
        ("30007", Reason.CONTENT_REFUSED, False, "undelivered: filtered by the carrier (code 30007)"),
        ("21610", Reason.OPTED_OUT, True, "undelivered: recipient has opted out (STOP) (code 21610)"),
    ],
)
def test_a_code_says_why_it_did_not_arrive(code: str | None, reason: Reason, suppress: bool, words: str) -> None:
    report = report_of(SID, "undelivered", code)
    assert (report.reason, report.suppress, report.words) == (reason, suppress, words)


def test_a_code_of_what_arrived_says_nothing() -> None:
    report = report_of(SID, "delivered", "30003")
    assert (report.reason, report.words) == (None, "delivered")


@pytest.mark.parametrize(
    "form",
    [
        Form(),
        Form({"MessageSid": SID}),
        Form({"MessageStatus": "sent"}),
        Form({"MessageSid": "../../x", "MessageStatus": "sent"}),
        Form({"MessageSid": "S" * 100, "MessageStatus": "sent"}),
    ],
)
def test_a_form_without_a_message_or_a_status_is_no_report(form: Form) -> None:
    assert read_callback(form) is None


def test_the_older_names_of_fields_are_known() -> None:
    report = read_callback(Form({"SmsSid": SID, "SmsStatus": "sent"}))
    assert report is not None
    assert report.status is Status.SENT


def test_the_carriers_time_is_taken_if_it_can_be_true() -> None:
    now = datetime.now(UTC).replace(second=0, microsecond=0)
    times = [(f"{now:%y%m%d%H%M}", now), ("2001010000", None), ("9999999999", None), ("", None), ("x", None)]
    times.append((f"{now + timedelta(days=9):%y%m%d%H%M}", None))
    for text, expected in times:
        report = read_callback(callback("delivered", RawDlrDoneDate=text))
        assert report is not None
        assert report.occurred_at == expected


@pytest.mark.parametrize(
    ("fields", "wish"),
    [
        ({"Body": "STOP"}, Wish.STOP),
        ({"Body": "\tstop\n"}, Wish.STOP),
        ({"Body": "Unsubscribe"}, Wish.STOP),
        ({"Body": "start"}, Wish.START),
        ({"Body": "yes"}, Wish.START),
        ({"Body": "info"}, Wish.HELP),
        ({"Body": "stop it"}, None),
        ({"Body": "STOP."}, None),
        ({"Body": ""}, None),
        ({}, None),
        ({"Body": "ARRET", "OptOutType": "STOP"}, Wish.STOP),
        ({"Body": "STOP", "OptOutType": "START"}, Wish.START),
        ({"Body": "STOP", "OptOutType": "SOMETHING"}, Wish.STOP),
    ],
)
def test_a_keyword_is_a_wish_if_it_stands_alone(fields: dict[str, str], wish: Wish | None) -> None:
    assert read_wish(Form(fields)) is wish


def test_a_form_keeps_empty_and_repeated_fields() -> None:
    form = read_form(b"A=&B=1&B=2&C=%2B1+x")
    assert form is not None
    assert list(form.items()) == [("A", ""), ("B", "1"), ("B", "2"), ("C", "+1 x")]


@pytest.mark.parametrize("body", [b"\xff", b"a=1&" * 500])
def test_what_is_no_form_is_refused(body: bytes) -> None:
    assert read_form(body) is None
