"""The story of a notification in words."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import UUID

import pytest

from notifier.cli.timeline import print_story, story_as_json
from notifier.domain.labels import (
    DUE,
    OUTCOMES,
    PROOFS,
    REASONS,
    STATUSES,
    SUPPRESSIONS,
    reason_in_words,
    status_in_words,
)
from notifier.domain.producers import ProducerProof
from notifier.domain.statuses import FINAL_STATUSES, Outcome, Reason, Status, SuppressionReason
from notifier.operations.timeline import timeline
from notifier.store.search import AttemptView, EventView, NotificationView, Story

START = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)


def at(milliseconds: int) -> datetime:
    return START + timedelta(milliseconds=milliseconds)


def event(number: int, milliseconds: int, status: str | None, kind: str = "status", **more: object) -> EventView:
    fields = {"occurred_at": None, "reason": None, "attempt": None, "detail": None, **more}
    return EventView(id=number, recorded_at=at(milliseconds), kind=kind, status=status, **fields)  # type: ignore[arg-type]


def failed_story() -> Story:
    notification = NotificationView(
        id=UUID("01a20470-9331-73b2-88dc-ad24a063248d"),
        producer="shop",
        idempotency_key="order-7",
        channel="sms",
        lane="normal",
        recipient="+15550100199",
        template="code",
        template_version="abc",
        locale="fr",
        sender=None,
        reference="A-7",
        metadata={"shop": "7"},
        send_at=None,
        expires_at=None,
        on_unknown="hold",
        status="failed",
        reason="invalid_recipient",
        detail="no such\nnumber",
        due_at=None,
        attempt_count=1,
        provider=None,
        provider_message_id=None,
        accepted_at=at(0),
        updated_at=at(40),
        sent_at=None,
        is_test=False,
        proof="broker_user",
        sent_by="user:shop-app",
        trace_id="0af7651916cd43dd8448eb211c80319c",
    )
    attempt = AttemptView(
        number=1,
        provider="twilio",
        started_at=at(12),
        finished_at=at(40),
        outcome="rejected",
        reason="invalid_recipient",
        code="21211",
        detail="invalid 'To' number",
        provider_message_id=None,
    )
    events = (
        event(1, 0, "queued", "accepted"),
        event(2, 12, "sending"),
        event(3, 40, "failed", reason="invalid_recipient", attempt=1, detail="invalid 'To' number"),
        event(4, 5000, None, "duplicate", detail="the producer sent it again"),
    )
    return Story(notification, (attempt,), events)


def test_events_and_attempts_are_one_story() -> None:
    assert [(step.at, step.text) for step in timeline(failed_story())] == [
        (at(0), "accepted, queued: waits for a worker"),
        (at(12), "sending: a worker has it in hand"),
        (at(12), "attempt 1: calling twilio"),
        (
            at(40),
            "attempt 1: twilio refused it for good, after 0.028 s: there is no such mailbox or number "
            "(invalid_recipient) — 21211 invalid 'To' number",
        ),
        (at(40), "failed"),
        (at(5000), "duplicate, nothing was sent for it — the producer sent it again"),
    ]


def test_a_call_without_an_answer_is_told_as_that() -> None:
    story = failed_story()
    attempt = AttemptView(1, "smtp", at(12), None, None, None, None, None, None)
    texts = [step.text for step in timeline(Story(story.notification, (attempt,), story.events[:2]))]
    assert texts[-1] == "attempt 1: calling smtp; no answer is recorded"


def test_sender_and_version_are_told_where_they_change() -> None:
    story = failed_story()
    sent = [("accepted", "+15550100100"), ("accepted", "+15550100100"), ("edited", "MG1"), (None, None)]
    attempts = tuple(
        replace(story.attempts[0], number=number, template_version=version, sender_address=sender)
        for number, (version, sender) in enumerate(sent, start=1)
    )
    steps = timeline(replace(story, attempts=attempts, accepted_version="accepted"))
    assert [step.text.removeprefix("attempt ") for step in steps if "calling" in step.text] == [
        "1: calling twilio from +15550100100",
        "2: calling twilio",
        "3: calling twilio from MG1, with version edited of the template",
        "4: calling twilio",
    ]


def test_the_story_is_printed_with_header_and_times(capsys: pytest.CaptureFixture[str]) -> None:
    print_story(failed_story())
    shown = capsys.readouterr().out
    assert shown.startswith("01a20470-9331-73b2-88dc-ad24a063248d  failed: given up\n")
    assert "reason      there is no such mailbox or number (invalid_recipient)" in shown
    assert "detail      no such\\nnumber" in shown
    assert "to          +15550100199" in shown
    assert "producer    shop, proven by its broker user" in shown
    assert "sent by     user shop-app" in shown
    assert "+0.012 s  2026-11-22 09:30:00.012  sending" in shown
    assert "+5.000 s" in shown


def test_what_is_due_is_said_and_of_what_was_sent_that_it_is_not_sent_again(
    capsys: pytest.CaptureFixture[str],
) -> None:
    story = failed_story()
    for status, words in (
        ("retrying", "it is tried again"),
        ("sent", "the provider is asked whether it arrived"),
    ):
        print_story(replace(story, notification=replace(story.notification, status=status, due_at=at(0))))
        assert f"next due    2026-11-22 09:30:00: {words}" in capsys.readouterr().out
    assert set(DUE) == set(Status) - FINAL_STATUSES


def test_what_a_provider_reports_is_told_in_its_own_words_with_its_own_time() -> None:
    story = failed_story()
    reports = (
        event(91, 9000, "delivered", "provider", attempt=1, detail="delivered", occurred_at=at(8000)),
        event(
            92, 9500, None, "no_receipt", detail="no receipt came, and its provider cannot be asked: it stays sent"
        ),
    )
    steps = timeline(replace(story, events=(*story.events, *reports)))[-2:]
    assert steps[0].text == ("the provider reports — delivered (the provider's time: 2026-11-22 09:30:08)")
    assert steps[0].status == "delivered"
    assert steps[1].text.startswith("no provider report is expected any longer — no receipt came")


def test_the_story_as_data_has_all_of_it() -> None:
    data = story_as_json(failed_story())
    assert data["status"] == "failed"
    assert data["attempts"] == failed_story().attempts
    assert "context" not in data


def test_a_producer_of_before_there_was_a_proof_has_nothing_behind_its_name(
    capsys: pytest.CaptureFixture[str],
) -> None:
    story = failed_story()
    print_story(replace(story, notification=replace(story.notification, proof=None)))
    assert "producer    shop\n" in capsys.readouterr().out


def test_every_word_of_the_record_is_explained() -> None:
    assert set(PROOFS) == set(ProducerProof)
    assert set(STATUSES) == set(Status)
    assert set(REASONS) == set(Reason)
    assert set(SUPPRESSIONS) == set(SuppressionReason)
    assert set(OUTCOMES) == set(Outcome)


def test_a_word_of_a_later_version_stays_as_it_is() -> None:
    assert status_in_words("paused") == "paused"
    assert reason_in_words("moon_phase") == "moon_phase"
    assert reason_in_words(None) == ""
