"""What is counted has bounded labels, begins at 0, and costs little."""

from __future__ import annotations

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, Histogram, generate_latest

from notifier.delivery.attempt_counts import count_attempts
from notifier.delivery.delivery import Delivery
from notifier.domain.errors import OutcomeUnknown, SendError, Unavailable
from notifier.domain.message import new_id
from notifier.domain.statuses import SIMULATOR, Channel, Lane, Outcome, Reason
from notifier.providers.base import Receipt
from notifier.store.records import Started
from notifier.telemetry.batch_histogram import BatchHistogram
from notifier.telemetry.metrics import FAULTS, REGISTRY, prepare_providers
from tests.architecture.test_docs import fault_codes

NOTIFIER = Path(__file__).parents[3] / "notifier"
#: What a message passes on its way in.
CHECKS = (
    *(NOTIFIER / "domain").glob("*.py"),
    *(NOTIFIER / "intake").glob("*.py"),
    *(NOTIFIER / "rendering").glob("*.py"),
    *(NOTIFIER / "store").glob("a*.py"),
    NOTIFIER / "callbacks" / "policy.py",
)
LABELS = {"channel", "lane", "source", "provider", "outcome", "fault", "reason", "version", "le"}


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_every_fault_of_a_message_has_a_series() -> None:
    codes = {code for path in CHECKS for code in fault_codes(path)}
    assert set(FAULTS) == codes | {"invalid"}
    assert all(
        REGISTRY.get_sample_value("notifier_rejected_total", {"fault": code}) is not None for code in FAULTS
    )


def test_no_label_is_one_that_anybody_can_invent() -> None:
    ours = [sample for family in REGISTRY.collect() for sample in family.samples if family.name[:8] == "notifier"]
    assert len(ours) > 200
    assert {label for sample in ours for label in sample.labels} <= LABELS


def test_a_batch_is_counted_as_if_its_values_came_one_by_one() -> None:
    # Of numbers that are added up without rounding.
    values = [0.0625, 0.125, 0.1875, 0.75, 1.0, 30.0]
    expected, found = CollectorRegistry(), CollectorRegistry()
    one_by_one = Histogram("seconds", "Text.", ("lane",), buckets=(0.125, 1.0), registry=expected)
    at_once = BatchHistogram("seconds", "Text.", ("lane",), (0.125, 1.0), found)
    for number in values:
        one_by_one.labels("bulk").observe(number)
    one_by_one.labels("urgent")
    at_once.observe(("bulk",), values[:2])
    at_once.observe(("bulk",), values[2:])
    at_once.prepare("urgent")
    assert generate_latest(found) == generate_latest(expected)


def ended(answer: Receipt | SendError | None, provider: str = "counted") -> Delivery:
    claim: Any = SimpleNamespace(
        channel=Channel.SMS, lane=Lane.URGENT, age_seconds=3.0, read_at=time.monotonic() - 2.0
    )
    delivery = Delivery(claim, providers=(provider,))
    delivery.attempt = Started(new_id(), 1, 1, provider)
    delivery.answer, delivery.seconds = answer, 0.3
    return delivery


def test_attempts_are_counted_by_outcome_and_those_not_made_are_not() -> None:
    prepare_providers(["counted"])
    waited = {"channel": "sms", "lane": "urgent"}
    before = [value("notifier_accepted_to_sent_seconds_bucket", **waited, le=le) for le in ("2.5", "10.0")]
    not_called = Unavailable("not called", reason=Reason.LEASE_EXPIRED)

    broken: Any = "what a broken provider returned"

    count_attempts(
        [ended(Receipt("1")), ended(Receipt("2")), ended(OutcomeUnknown("?")), ended(broken), ended(not_called)]
    )
    # Of a test key: it would make alarms believe that sending goes well.
    count_attempts([ended(Receipt("3"), SIMULATOR)])

    counts = {one: value("notifier_attempts_total", provider="counted", outcome=one) for one in Outcome}
    assert counts == {Outcome.ACCEPTED: 2, Outcome.UNKNOWN: 2} | dict.fromkeys(
        ["rejected", "throttled", "unavailable"], 0
    )
    assert value("notifier_attempt_seconds_sum", provider="counted") == pytest.approx(1.2)
    # Three seconds old when it was claimed, two seconds ago.
    after = [value("notifier_accepted_to_sent_seconds_bucket", **waited, le=le) for le in ("2.5", "10.0")]
    assert [new - old for new, old in zip(after, before, strict=True)] == [0, 2]
