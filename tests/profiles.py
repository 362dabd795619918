"""How much the tests try: `quick` as a rule, `full` in `.ci/run`."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

PROFILE = "NOTIFIER_TEST_PROFILE"

# No deadline for an example: how long it takes depends on what else the machine does. The gate tries the same
# examples each time, so that it says something about the change; `make test` tries others each time.
settings.register_profile("quick", max_examples=25, deadline=None, derandomize=False)
settings.register_profile("full", max_examples=300, deadline=None, derandomize=True)


def is_full() -> bool:
    """Whether everything is to be tried, however long it takes."""
    return os.environ.get(PROFILE, "quick") == "full"


#: Of a test that takes long and tells little that others do not.
full_only = pytest.mark.skipif(not is_full(), reason=f"in the full profile alone: {PROFILE}=full")


def brokers() -> list[str]:
    """For `broker_url` of a test that starts all programs: one is enough unless everything is to be tried."""
    return ["rabbitmq", "redis"] if is_full() else ["rabbitmq"]


def use_profile() -> None:
    """Let hypothesis try so many examples of each."""
    settings.load_profile(os.environ.get(PROFILE, "quick"))
