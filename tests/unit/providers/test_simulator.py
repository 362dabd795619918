"""What the simulator answers, by recipient."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from notifier.domain.errors import OutcomeUnknown, Rejected, SendError, Unavailable
from notifier.domain.message import new_id
from notifier.domain.statuses import SIMULATOR, Reason, Status
from notifier.providers.base import Outgoing, Receipt, Reconciles, Report, Reports
from notifier.providers.simulator import NUMBERS, Fate, Simulator, fate_of

OUTGOING = Outgoing(new_id(), 1, "ann@example.com", "shop@example.com", "Hello\n")


def send(to: str, attempt: int = 1) -> Receipt | SendError:
    try:
        outgoing = replace(OUTGOING, to=to, attempt=attempt)
        return asyncio.run(Simulator().send(outgoing, deadline_seconds=1))
    except SendError as error:
        return error


def ask(id_: str) -> Report:
    return asyncio.run(Simulator().ask(id_, deadline_seconds=1))


@pytest.mark.parametrize(
    ("to", "fate"),
    [
        ("delivered@simulator.example", Fate.DELIVERED),
        ("Ann <Bounced+order-7@Simulator.example>", Fate.BOUNCED),
        ("opted-out@simulator.example", Fate.OPTED_OUT),
        ("nobody@simulator.example", Fate.DELIVERED),
        ("refused@example.com", Fate.DELIVERED),
        ("refused@simulator.example.com", Fate.DELIVERED),
        ("+15550100200", Fate.DELIVERED),
        ("+15550100203", Fate.REFUSED),
        ("+15550100299", Fate.DELIVERED),
    ],
)
def test_the_recipient_asks_for_what_becomes_of_it(to: str, fate: Fate) -> None:
    assert fate_of(to) == fate


def test_every_fate_has_a_number_that_belongs_to_nobody() -> None:
    assert set(NUMBERS.values()) == set(Fate)
    assert all(number.startswith("+155501") for number in NUMBERS)


@pytest.mark.parametrize(("fate", "error"), [(Fate.DEFERRED, Unavailable), (Fate.UNKNOWN, OutcomeUnknown)])
def test_what_does_not_work_at_first_works_the_second_time(fate: Fate, error: type[SendError]) -> None:
    assert isinstance(send(f"{fate}@simulator.example"), error)
    receipt = send(f"{fate}@simulator.example", 2)
    assert isinstance(receipt, Receipt)
    assert ask(receipt.provider_message_id).status is Status.DELIVERED


@pytest.mark.parametrize(
    ("fate", "reason"), [(Fate.REFUSED, Reason.INVALID_RECIPIENT), (Fate.OPTED_OUT, Reason.OPTED_OUT)]
)
def test_a_refusal_suppresses_nobody(fate: Fate, reason: Reason) -> None:
    error = send(f"{fate}@simulator.example", 3)
    assert isinstance(error, Rejected)
    assert (error.reason, error.suppress) == (reason, False)


@pytest.mark.parametrize(
    ("to", "reason"),
    [("bounced@simulator.example", Reason.HARD_BOUNCE), ("+15550100201", Reason.UNREACHABLE_RECIPIENT)],
)
def test_a_bounce_is_reported_later_and_suppresses_nobody(to: str, reason: Reason) -> None:
    receipt = send(to)
    assert isinstance(receipt, Receipt)
    report = ask(receipt.provider_message_id)
    assert (report.status, report.reason, report.suppress) == (Status.UNDELIVERED, reason, False)


def test_of_what_it_did_not_take_it_knows_nothing() -> None:
    assert ask("SM123").status is None


def test_it_can_be_asked_and_is_found_under_its_name_only() -> None:
    simulator = Simulator.from_options("another", {})
    assert simulator.name == SIMULATOR
    assert isinstance(simulator, Reports)
    # What became of an unknown outcome nobody can look up: the template's policy shows.
    assert not isinstance(simulator, Reconciles)
