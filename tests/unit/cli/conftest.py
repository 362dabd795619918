"""The command line for unit tests."""

from __future__ import annotations

import pytest

from tests.unit.cli.commandline import CommandLine


@pytest.fixture
def notifier() -> CommandLine:
    """Call it with arguments; `notifier.sent` is what it published."""
    return CommandLine()
