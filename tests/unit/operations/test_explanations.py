"""Every cause has its words."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from notifier.domain.statuses import Channel, Lane
from notifier.operations.explanations import late_in_words
from notifier.store.stuck import Cause, Late


def late(cause: Cause) -> Late:
    oldest = datetime(2026, 3, 5, tzinfo=UTC)
    return Late(cause=cause, channel=Channel.SMS, lane=Lane.BULK, count=1, oldest=oldest, detail=None, ids=())


@pytest.mark.parametrize("cause", Cause)
def test_each_cause_has_a_why_and_a_fix(cause: Cause) -> None:
    why, fix = late_in_words(late(cause))
    assert why
    assert fix
    assert "{" not in fix


def test_a_task_that_nobody_took_names_its_lane() -> None:
    _, fix = late_in_words(late(Cause.NOT_TAKEN))
    assert fix.endswith("notifier worker --lanes bulk")
