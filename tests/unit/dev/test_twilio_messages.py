"""Twilio's message resource and callbacks."""

from __future__ import annotations

import re

from notifier.dev.twilio_messages import new_message, refusal

FORM = {"To": "+15550100123", "From": "+15550100100", "Body": "Hello"}


def test_a_form_that_is_complete_is_taken() -> None:
    assert refusal(FORM) is None
    message = new_message("AC1", FORM)
    assert re.fullmatch("SM[0-9a-f]{32}", message.sid)
    assert message.status == "queued"


def test_a_message_of_a_messaging_service_begins_as_accepted() -> None:
    message = new_message("AC1", {"To": FORM["To"], "MessagingServiceSid": "MG" + "0" * 32, "Body": "Hello"})
    assert (message.status, message.as_json()["from"]) == ("accepted", None)


def test_a_callback_leaves_out_what_is_not_known() -> None:
    form = new_message("AC1", FORM).moved_to("sent").as_callback()
    assert form["MessageStatus"] == form["SmsStatus"] == "sent"
    assert not {"ErrorCode", "MessagingServiceSid", "RawDlrDoneDate"} & set(form)


def test_a_delivered_message_keeps_the_time_at_which_it_was_sent() -> None:
    sent = new_message("AC1", FORM).moved_to("sent")
    delivered = sent.moved_to("delivered")
    assert delivered.sent_at == sent.sent_at
    assert re.fullmatch(r"\d{10}", delivered.as_callback()["RawDlrDoneDate"])
