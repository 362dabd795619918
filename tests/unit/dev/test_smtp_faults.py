"""Which rule counts."""

from __future__ import annotations

from notifier.dev.smtp_faults import Faults, Rule


def test_the_first_rule_that_fits_counts() -> None:
    first, second = Rule("zoe@*", "450 first"), Rule("*", "450 second")
    faults = Faults([first, second])
    assert faults.find("rcpt", ["ZOE@example.com"]) is first
    assert faults.find("rcpt", ["eve@example.com"]) is second
    assert faults.find("mail", ["zoe@example.com"]) is None


def test_times_counts_for_each_address() -> None:
    rule = Rule("*", "451 later", times=1)
    faults = Faults([rule])
    assert faults.find("rcpt", ["a@example.com"]) is rule
    assert faults.find("rcpt", ["b@example.com"]) is rule
    assert faults.find("rcpt", ["a@example.com"]) is None


def test_an_added_rule_comes_first_and_keeps_the_counts_of_the_others() -> None:
    old, new = Rule("*", times=1), Rule("zoe@*")
    faults = Faults([old])
    faults.find("rcpt", ["eve@example.com"])
    faults.add(new)
    assert faults.find("rcpt", ["zoe@example.com"]) is new
    assert faults.find("rcpt", ["eve@example.com"]) is None
    faults.clear()
    assert faults.find("rcpt", ["zoe@example.com"]) is None
