"""Every row of every table of codes: what the answer is about, and what may follow from it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from notifier.domain.routing import is_fault
from notifier.domain.statuses import Outcome, Reason, Subject
from notifier.providers import outcomes
from notifier.providers.mail import code_table
from notifier.providers.outcomes import Verdict
from notifier.providers.twilio import codes as twilio_codes
from notifier.providers.vonage import codes as vonage_codes

#: What an answer about it may give as the reason.
REASONS = {
    Subject.RECIPIENT: {
        Reason.INVALID_RECIPIENT,
        Reason.UNREACHABLE_RECIPIENT,
        Reason.OPTED_OUT,
        Reason.PROVIDER_REJECTED,
        Reason.PROVIDER_UNAVAILABLE,
    },
    Subject.DESTINATION: {Reason.DESTINATION_REFUSED, Reason.PROVIDER_UNAVAILABLE},
    Subject.CONTENT: {Reason.CONTENT_REFUSED, Reason.PROVIDER_REJECTED},
    Subject.SENDER: {Reason.SENDER_REFUSED, Reason.PROVIDER_THROTTLED},
    Subject.ACCOUNT: {Reason.PROVIDER_ACCOUNT, Reason.PROVIDER_THROTTLED},
    Subject.PROVIDER: {Reason.PROVIDER_UNAVAILABLE, Reason.PROVIDER_THROTTLED, Reason.OUTCOME_UNKNOWN},
}
#: Codes that people meet, by what they are about.
TWILIO = {
    Subject.RECIPIENT: "21211 21219 21265 21266 21604 21608 21610 21614 21635 30003 30005 30006 30008 30036 63003 "
    "63014",
    Subject.DESTINATION: "21408 21612 30017 30450",
    Subject.CONTENT: "21602 21617 21619 30004 30007 30019 30038 30110",
    Subject.SENDER: "21212 21267 21601 21603 21606 21611 21659 21660 21661 21701 21703 21704 21705 30018 30022 "
    "30023 30024 30027 30032 30033 30034 30035 63007",
    Subject.ACCOUNT: "20003 20005 20006 20008 20403 20404 21609 30001 30002 30037 63038",
    Subject.PROVIDER: "14107 20429 20500 63018",
}
VONAGE = {
    Subject.RECIPIENT: (3, 6, 7, 22, 29, 33),
    Subject.DESTINATION: (6,),
    Subject.CONTENT: (2, 3, 12, 16),
    Subject.SENDER: (2, 3, 15),
    Subject.ACCOUNT: (4, 8, 9, 11, 14, 19, 23, 32),
    Subject.PROVIDER: (1, 5, 10, 13),
}


TABLES: dict[str, dict[str, Verdict]] = {
    "smtp": {f"{row.code} {row.meaning}": row.verdict for row in code_table.TABLE},
    "twilio": {str(row.code): row.verdict for row in twilio_codes.TABLE},
    "vonage": {f"{row.code} {row.meaning}": row.verdict for row in vonage_codes.TABLE},
    "receipts of vonage": {str(row.code): row.verdict for row in vonage_codes.RECEIPTS},
    "outcomes": {name: value for name, value in vars(outcomes).items() if isinstance(value, Verdict)},
}
#: A thousand rows: a test for each would take longer to collect than to run.
each_table = pytest.mark.parametrize("table", TABLES)


@each_table
def test_the_reason_fits_the_subject(table: str) -> None:
    for name, found in TABLES[table].items():
        if found == outcomes.REFUSED_HERE:
            # Nobody knows yet whether the account or the destination is meant, so it waits and touches no circuit.
            assert (found.reason, found.is_doubtful) == (Reason.PROVIDER_ACCOUNT, True), name
        elif found == twilio_codes.SENDER_NOT_REGISTERED:
            # Our account's fault, which stops one of its senders: told as such, and no circuit is touched.
            assert (found.reason, found.subject) == (Reason.PROVIDER_ACCOUNT, Subject.SENDER), name
        else:
            assert found.reason in REASONS[found.subject], name


@each_table
def test_only_an_answer_about_the_recipient_suppresses(table: str) -> None:
    for name, found in TABLES[table].items():
        if found.suppress:
            assert (found.subject, found.outcome) == (Subject.RECIPIENT, Outcome.REJECTED), name
            assert found.reason in (Reason.INVALID_RECIPIENT, Reason.OPTED_OUT), name


@each_table
def test_only_account_and_provider_touch_the_circuit(table: str) -> None:
    for name, found in TABLES[table].items():
        for code in ("", "421", found.reason):
            touches = is_fault(found.outcome, found.subject, found.reason, code)
            assert not touches or found.subject in (Subject.ACCOUNT, Subject.PROVIDER), name
        if found.subject is Subject.ACCOUNT and found.reason is Reason.PROVIDER_ACCOUNT:
            assert is_fault(found.outcome, found.subject, found.reason, "20003"), name


@each_table
def test_what_is_our_own_fault_fails_no_message(table: str) -> None:
    for name, found in TABLES[table].items():
        if found.subject in (Subject.SENDER, Subject.ACCOUNT):
            assert found.outcome in (Outcome.UNAVAILABLE, Outcome.THROTTLED), name


@each_table
def test_a_destination_that_is_refused_fails_its_message_alone(table: str) -> None:
    for name, found in TABLES[table].items():
        if found.reason is Reason.DESTINATION_REFUSED:
            assert (found.outcome, found.suppress) == (Outcome.REJECTED, False), name


@each_table
def test_the_error_carries_the_subject(table: str) -> None:
    for name, found in TABLES[table].items():
        assert replace(found).error("no").subject is found.subject, name


def test_every_code_of_twilio_is_about_what_it_should() -> None:
    found = {row.code: row.verdict.subject for row in twilio_codes.TABLE}
    assert found == {int(code): subject for subject, codes in TWILIO.items() for code in codes.split()}


def test_every_status_of_vonage_is_about_what_it_should() -> None:
    found = {(row.code, row.verdict.subject) for row in vonage_codes.TABLE}
    assert found == {(code, subject) for subject, codes in VONAGE.items() for code in codes}
