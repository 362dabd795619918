"""Where a service of this user is found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from notifier.config.running_service import SERVICE_FILE, RunningService, find_running_service
from notifier.dev.local import announced
from notifier.dev.machine import write_private

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


def written(broker_url: object, api_url: object = None) -> str:
    return json.dumps({"broker_url": broker_url, "api_url": api_url, "api_key": None})


@pytest.mark.parametrize(
    "content",
    ["", "[]", "{}", '{"broker_url": "amqp://x"}', written(5), written("amqp://x", ["http://x"]), "[" * 100_000],
    ids=["empty", "a list", "nothing", "not whole", "a number", "a list for a URL", "deep"],
)
def test_a_file_that_makes_no_sense_is_no_service(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, content: str
) -> None:
    monkeypatch.setenv("NOTIFIER_DATA_DIR", str(tmp_path))
    write_private(tmp_path / SERVICE_FILE, content)
    assert find_running_service() is None


def test_a_file_that_others_may_write_is_no_service(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("NOTIFIER_DATA_DIR", str(tmp_path))
    path = tmp_path / SERVICE_FILE
    with announced(tmp_path, {}, SERVICE):
        path.chmod(0o666)
        assert find_running_service() is None
        path.chmod(0o600)
        assert find_running_service() == SERVICE
        if os.geteuid() == 0:
            os.chown(path, 65534, 65534)
            assert find_running_service() is None
        path.rename(tmp_path / "elsewhere")
        path.symlink_to(tmp_path / "elsewhere")
        assert find_running_service() is None
        path.unlink()
        os.mkfifo(path)
        assert find_running_service() is None


def test_it_shows_no_secret() -> None:
    assert repr(SERVICE) == "RunningService(api_url='http://127.0.0.1:8080')"


def test_looking_for_it_loads_no_package() -> None:
    program = "import sys, notifier.config.running_service; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert not {"pydantic", "pydantic_settings", "kombu"} & set(done.stdout.split())
