"""What the embedded RabbitMQ says where there is none. How it runs: tests/integration/test_services.py."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from notifier.dev.embedded import EmbeddedRabbitmq, rabbitmq
from notifier.dev.embedded.binaries import find_rabbitmq
from notifier.domain.errors import MissingPackage


def test_a_rabbitmq_that_is_not_installed_is_named_with_its_command(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    # Without Erlang there is none. PATH stays: threads of this process start servers meanwhile.
    monkeypatch.setattr(rabbitmq, "find_rabbitmq", partial(find_rabbitmq, str(tmp_path)))
    with pytest.raises(MissingPackage, match="apt-get install rabbitmq-server"):
        EmbeddedRabbitmq(tmp_path).start()
