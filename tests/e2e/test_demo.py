"""`notifier demo` as a user starts it: no setting, real servers, nothing left behind."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any

import pytest

from notifier.dev.machine import make_temporary_folder
from tests.profiles import full_only
from tests.support.up import processes_of
from tests.waiting import patient

NOTIFIER = [sys.executable, "-m", "notifier"]


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder that the embedded Postgres may use even if we are root."""
    made = make_temporary_folder()
    yield made
    shutil.rmtree(made)


def run(*arguments: str, data_dir: Path | None = None, code: int | None = 0) -> str:
    environment = {**os.environ, **({"NOTIFIER_DATA_DIR": str(data_dir)} if data_dir else {})}
    done = subprocess.run(
        [*NOTIFIER, *arguments], capture_output=True, text=True, timeout=patient(100), env=environment
    )
    assert code in (None, done.returncode), done.stderr
    return done.stdout


def test_the_demo_ends_as_it_should_and_its_mails_open(folder: Path) -> None:
    report = json.loads(run("demo", "--json", "--folder", str(folder / "kept")))
    assert report["ok"] is True
    assert (report["rejected"], report["duplicates"]) == (1, 1)
    by_status: dict[str, list[dict[str, Any]]] = {}
    for notification in report["notifications"]:
        by_status.setdefault(notification["status"], []).append(notification)
    assert {status: len(found) for status, found in by_status.items()} == {
        "sent": 16,
        "delivered": 6,
        "failed": 1,
    }
    assert by_status["failed"][0]["reason"] == "invalid_recipient"
    assert [n["attempts"] for n in by_status["sent"] if n["to"] == "busy@example.com"] == [2]
    mails = [
        message_from_bytes(path.read_bytes(), policy=policy.default)
        for path in sorted((folder / "kept" / "mail").glob("*.eml"))
    ]
    assert len(mails) == 16
    # They name people: nobody else on this machine reads them.
    for kept in (folder / "kept" / "mail", folder / "kept" / "logs"):
        assert kept.stat().st_mode & 0o777 == 0o700
        assert {path.stat().st_mode & 0o777 for path in kept.iterdir()} == {0o600}
    assert [defect for mail in mails for part in mail.walk() for defect in part.defects] == []
    subjects = "\n".join(str(mail["Subject"]) for mail in mails)
    assert any("\u4e00" <= character <= "\u9fff" for character in subjects)
    assert processes_of(folder) == []


@full_only
def test_a_server_that_dies_ends_the_demo_at_once_with_the_reason(folder: Path) -> None:
    command = [*NOTIFIER, "demo", "--folder", str(folder / "kept")]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True) as demo:
        assert demo.stderr is not None
        while "publishing" not in demo.stderr.readline():
            assert demo.poll() is None
        os.kill(int((folder / "kept" / "valkey" / "valkey.pid").read_text()), signal.SIGKILL)
        said = demo.stderr.read()
        assert demo.wait(timeout=patient(60)) == 1
    assert "error: Valkey ended (SIGKILL): " in said
    assert processes_of(folder) == []
