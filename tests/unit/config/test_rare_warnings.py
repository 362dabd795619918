"""What strangers cause again and again is one line in a while."""

from __future__ import annotations

import pytest
from structlog.testing import CapturingLogger

from notifier.config.rare_warnings import MOST_LINES, PAUSE_SECONDS, RareWarning


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def logger() -> CapturingLogger:
    return CapturingLogger()


@pytest.fixture
def warn(logger: CapturingLogger, now: list[float]) -> RareWarning:
    return RareWarning("webhook.refused", logger=logger, clock=lambda: now[0])


def test_many_at_once_are_one_line_and_the_next_says_how_many(
    warn: RareWarning, logger: CapturingLogger, now: list[float]
) -> None:
    for _ in range(500):
        warn(provider="twilio")
    warn(provider="vonage")
    now[0] = PAUSE_SECONDS
    warn(provider="twilio")
    warn(provider="twilio")
    assert [(call.kwargs["provider"], call.kwargs["count"]) for call in logger.calls] == [
        ("twilio", 1),
        ("vonage", 1),
        ("twilio", 500),
    ]


def test_who_makes_up_a_field_each_time_gets_no_more_lines(
    warn: RareWarning, logger: CapturingLogger, now: list[float]
) -> None:
    for number in range(10 * MOST_LINES):
        warn(reason=f"made_up_{number}")
    now[0] = PAUSE_SECONDS
    warn(reason="real")
    assert len(logger.calls) == MOST_LINES + 1
    assert logger.calls[-1].kwargs["reason"] == "real"
