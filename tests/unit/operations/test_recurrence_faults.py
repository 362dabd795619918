"""What is no plan is refused with a fix."""

from __future__ import annotations

import pytest

from notifier.operations.recurring import recurrence_faults


@pytest.mark.parametrize(
    ("cron", "zone", "codes"),
    [
        ("30 9 * * 1-5", "Europe/Berlin", []),
        ("0 0 L * *", "UTC", []),
        ("0 30 9 * * *", "UTC", ["bad_cron"]),
        ("61 9 * * *", "UTC", ["bad_cron"]),
        ("0 0 30 2 *", "UTC", ["bad_cron"]),
        ("daily", "Mars/Olympus", ["bad_cron", "unknown_zone"]),
        ("0 9 * * *", "../UTC", ["unknown_zone"]),
        ("0 9 * * *", "right/Europe/Berlin", ["unknown_zone"]),
        ("", "", ["bad_cron", "unknown_zone"]),
    ],
)
def test_what_is_no_plan_is_refused_with_a_fix(cron: str, zone: str, codes: list[str]) -> None:
    faults = recurrence_faults(cron, zone)
    assert [fault.code for fault in faults] == codes
    assert all(fault.fix for fault in faults)
