"""Where a service of this user is found."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from notifier.config.running_service import SERVICE_FILE, RunningService, find_running_service
from notifier.dev.local import announced

SERVICE = RunningService("redis://:secret@127.0.0.1:1/0", "http://127.0.0.1:8080", "ntf_live_x")


def test_a_service_is_found_while_it_runs_and_only_by_its_owner(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NOTIFIER_DATA_DIR", str(tmp_path))
    assert find_running_service() is None
    with announced(tmp_path, {}, SERVICE):
        assert find_running_service() == SERVICE
        assert (tmp_path / SERVICE_FILE).stat().st_mode & 0o777 == 0o600
    assert find_running_service() is None


@pytest.mark.parametrize("content", ["", "[]", "{}", json.dumps({"broker_url": "amqp://x"})])
def test_a_file_that_is_not_whole_is_no_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    monkeypatch.setenv("NOTIFIER_DATA_DIR", str(tmp_path))
    (tmp_path / SERVICE_FILE).write_text(content)
    assert find_running_service() is None


def test_it_shows_no_secret() -> None:
    assert repr(SERVICE) == "RunningService(api_url='http://127.0.0.1:8080')"


def test_looking_for_it_loads_no_package() -> None:
    program = "import sys, notifier.config.running_service; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"pydantic", "pydantic_settings", "kombu"} & set(done.stdout.split())
