"""What the embedded RabbitMQ says where there is none. How it runs: tests/integration/test_services.py."""

from __future__ import annotations

from pathlib import Path

import pytest

from notifier.dev.embedded import EmbeddedRabbitmq
from notifier.domain.errors import MissingPackage


def test_a_rabbitmq_that_is_not_installed_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Without Erlang there is none.
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPackage, match="apt-get install rabbitmq-server"):
        EmbeddedRabbitmq(tmp_path).start()
