"""What goes on to the next provider, and by what a delivery is decided: pure."""

from __future__ import annotations

from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.delivery.failover import to_decide
from notifier.domain.destinations import destination_of
from notifier.domain.errors import Rejected, SendError, Unavailable
from notifier.domain.retry_policy import DEFAULT_RETRIES, Situation, decide
from notifier.domain.routing import Candidate, Standing, closes_circuit, held, is_fault, route
from notifier.domain.statuses import Channel, Reason, Status, Subject
from notifier.providers.mail.code_table import TABLE as SMTP
from notifier.providers.outcomes import Verdict
from notifier.providers.twilio.codes import TABLE as TWILIO
from notifier.providers.vonage.codes import TABLE as VONAGE

VERDICTS: list[Verdict] = [row.verdict for table in (SMTP, TWILIO, VONAGE) for row in table]
SENDERS = ("default", "news", "odd")


def error_of(verdict: Verdict) -> SendError:
    return verdict.error("no", code="550")


@given(st.lists(st.tuples(st.sampled_from(VERDICTS), st.sampled_from(SENDERS)), max_size=30), st.booleans())
def test_no_answer_about_somebody_else_changes_what_a_message_gets(
    answers: list[tuple[Verdict, str]], is_probe: bool
) -> None:
    """The rules, applied to any answers for others: the route of a message of `default` changes only by answers
    about account and provider, and by those about its own sender."""
    standings: dict[str, Standing] = {}
    holds: dict[str, Standing] = {}
    for verdict, sender in answers:
        error = error_of(verdict)
        if is_fault(error.outcome, error.subject, error.reason, error.code):
            standings["a"] = Standing("a", open_for_seconds=30.0, reason=error.reason)
        elif is_probe and closes_circuit(error.outcome, error.subject, error.reason, error.code):
            standings.pop("a", None)
        if error.subject is Subject.SENDER and error.reason is Reason.SENDER_REFUSED:
            holds[sender] = Standing("a", open_for_seconds=30.0, reason=error.reason)
    mine = held(standings.get("a", Standing("a")), holds.get("default"))
    found = route(("a",), {}, {"a": mine}, (0.5,))
    touching = [
        error
        for error, sender in ((error_of(verdict), sender) for verdict, sender in answers)
        if error.subject in (Subject.ACCOUNT, Subject.PROVIDER)
        or (error.subject is Subject.SENDER and sender == "default")
    ]
    if not touching:
        assert found.providers == ("a",)


@pytest.mark.parametrize("verdict", VERDICTS, ids=lambda verdict: f"{verdict.reason} {verdict.subject}")
def test_what_is_ours_to_mend_waits_and_what_is_not_fails(verdict: Verdict) -> None:
    policy = next(iter(DEFAULT_RETRIES.values()))
    decision = decide(error_of(verdict), policy, Situation(1, 0.0, None, 0.5))
    if verdict.subject in (Subject.SENDER, Subject.ACCOUNT):
        assert decision.status is Status.RETRYING
    if verdict.reason is Reason.DESTINATION_REFUSED:
        assert (decision.status, decision.reason) == (Status.FAILED, Reason.DESTINATION_REFUSED)


def test_a_refused_destination_waits_while_another_provider_may_serve_it() -> None:
    refused = Rejected("no", reason=Reason.DESTINATION_REFUSED, code="21408")
    assert to_decide(refused) is refused
    waits = to_decide(refused, has_hope=True)
    assert isinstance(waits, Unavailable)
    assert (waits.reason, waits.subject) == (Reason.DESTINATION_REFUSED, Subject.DESTINATION)
    gone = Rejected("no", reason=Reason.INVALID_RECIPIENT)
    assert to_decide(gone, has_hope=True) is gone


@pytest.mark.parametrize(
    ("channel", "address", "expected"),
    [
        (Channel.SMS, "+447700900123", "country code +44"),
        (Channel.SMS, "+18765550123", "country code +1 876"),
        (Channel.SMS, "+77015550123", "country code +7"),
        (Channel.SMS, "+35385555012", "country code +353"),
        (Channel.SMS, "+99655550123", "country code +996"),
        (Channel.SMS, "+85255550123", "country code +852"),
        (Channel.SMS, "+8613555501234", "country code +86"),
        (Channel.EMAIL, "bob@Example.org", "domain example.org"),
    ],
)
def test_a_destination_is_named_and_nobody_in_it(channel: Channel, address: str, expected: str) -> None:
    assert destination_of(channel, address) == expected


def test_a_message_has_its_last_chance_when_there_is_no_time_to_wait() -> None:
    id_ = uuid4()
    assert Candidate(id_, "default", 14.0, True).is_last_chance
    assert not Candidate(id_, "default", 16.0, True).is_last_chance
