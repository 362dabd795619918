"""Which rule of a local SMS server holds for a number."""

from __future__ import annotations

from notifier.dev.number_faults import NumberFaults
from notifier.dev.twilio_faults import TwilioRule


def test_rules_count_for_each_number() -> None:
    rule = TwilioRule("+1555*", status=500, times=1)
    faults = NumberFaults([rule])
    assert faults.find("+15550100123") is rule
    assert faults.find("+15550100123") is None
    assert faults.find("+15550100124") is rule
    assert faults.find("+44555") is None
