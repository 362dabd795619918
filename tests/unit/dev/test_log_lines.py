"""The log of `notifier up` on a terminal."""

from __future__ import annotations

import pytest

from notifier.dev.log_lines import short


@pytest.mark.parametrize(
    ("line", "shown", "level"),
    [
        (
            "2026-11-30T10:16:28.285709Z [info     ] intake.reading [notifier] broker=redis program=intake",
            "10:16:28 intake  intake.reading broker=redis",
            "info",
        ),
        (
            "2026-11-30T10:16:28.285709Z [warning  ] traces.off [notifier] program=worker reason='no package'",
            "10:16:28 intake  warning: traces.off reason='no package'",
            "warning",
        ),
        ("ValueError: not ours", "         intake  ValueError: not ours", ""),
    ],
)
def test_a_line_keeps_what_differs(line: str, shown: str, level: str) -> None:
    assert short("intake", line) == (shown, level)
