"""Which rule counts."""

from __future__ import annotations

from notifier.dev.faults import Faults
from notifier.dev.smtp_faults import Rule
from notifier.dev.twilio_faults import TwilioRule


def test_rules_count_for_each_number() -> None:
    rule = TwilioRule("+1555*", status=500, times=1)
    faults = Faults([rule])
    assert faults.find("+15550100123") is rule
    assert faults.find("+15550100123") is None
    assert faults.find("+15550100124") is rule
    assert faults.find("+44555") is None


def test_the_first_rule_that_fits_counts() -> None:
    first, second = Rule("zoe@*", "450 first"), Rule("*", "450 second")
    faults = Faults([first, second])
    assert faults.find("ZOE@example.com", stage="rcpt") is first
    assert faults.find("eve@example.com", stage="rcpt") is second
    assert faults.find("zoe@example.com", stage="mail") is None


def test_times_counts_for_each_address() -> None:
    rule = Rule("*", "451 later", times=1)
    faults = Faults([rule])
    assert faults.find("a@example.com", stage="rcpt") is rule
    assert faults.find("b@example.com", stage="rcpt") is rule
    assert faults.find("a@example.com", stage="rcpt") is None


def test_an_added_rule_comes_first_and_keeps_the_counts_of_the_others() -> None:
    old, new = Rule("*", times=1), Rule("zoe@*")
    faults = Faults([old])
    faults.find("eve@example.com", stage="rcpt")
    faults.add(new)
    assert faults.find("zoe@example.com", stage="rcpt") is new
    assert faults.find("eve@example.com", stage="rcpt") is None
    faults.clear()
    assert faults.find("zoe@example.com", stage="rcpt") is None
