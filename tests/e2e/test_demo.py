"""`notifier demo` and `notifier up` as a user starts them: no setting, real servers, nothing left behind."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from email import message_from_bytes, policy
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import psutil
import pytest

from notifier.dev.machine import make_temporary_folder
from tests.waiting import patient, wait_until

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


def processes_of(folder: Path) -> list[psutil.Process]:
    """Whoever works in this folder or was told of it."""
    found = []
    for process in psutil.process_iter():
        try:
            told = [*process.cmdline(), *process.environ().values()]
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
        if any(str(folder) in part for part in told):
            found.append(process)
    return found


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


def test_up_runs_the_service_keeps_its_data_and_stops_on_ctrl_c(folder: Path) -> None:
    with up(folder):
        sent = run("send", "login_code", "+15550100123", "--context", "code=042137", "--context",
                   "valid_minutes=10", "--wait", "30", "--json", data_dir=folder)  # fmt: skip
        assert json.loads(sent)
        # The local Twilio reports to the API.
        wait_until(lambda: statuses(folder) == ["delivered"], timeout=30)
        # A machine that is too busy to answer one check in time answers it a moment later.
        wait_until(lambda: faults_of(folder) == [], timeout=60)
        key = sign_in(folder)
    assert processes_of(folder) == []
    with up(folder):
        assert statuses(folder) == ["delivered"]
        assert console_of(folder)[1] == key
    assert processes_of(folder) == []


def faults_of(folder: Path) -> list[str]:
    """What the doctor finds wrong."""
    found = json.loads(run("doctor", "--json", data_dir=folder, code=None))
    return [check["name"] for check in found if check["ok"] is False]


def statuses(folder: Path) -> list[str]:
    found = json.loads(run("search", "--recipient", "+15550100123", "--json", data_dir=folder))
    return [row["status"] for row in found]


def console_of(folder: Path) -> tuple[str, str]:
    """Where it is, and the key for it, as `up` says."""
    wait_until(lambda: "running: " in (folder / "up.log").read_text(), timeout=60)
    found = re.search(r"(http://\S+)/, in the browser; sign in with (\S+)", (folder / "up.log").read_text())
    assert found is not None
    return found[1], found[2]


def sign_in(folder: Path) -> str:
    """Open the console in the way that `up` names. Returns the key."""
    url, key = console_of(folder)
    opener = urllib.request.build_opener(urllib.request.HTTPCookieProcessor())
    wait_until(lambda: _answers(f"{url}/sign-in"), timeout=60)
    with opener.open(f"{url}/sign-in", urlencode({"key": key}).encode()) as page:
        assert "Waiting by lane" in page.read().decode()
    return key


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url) as page:
            return bool(page.status == 200)
    except OSError:
        return False


class up:  # noqa: N801 - reads like the command
    """`notifier up` on a folder, stopped by Ctrl-C at the end."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> None:
        environment = {**os.environ, "NOTIFIER_DATA_DIR": str(self._folder)}
        self._log = (self._folder / "up.log").open("wb")
        self._process = subprocess.Popen(
            [*NOTIFIER, "up"], stdout=self._log, stderr=subprocess.STDOUT, env=environment
        )
        wait_until((self._folder / "running.env").exists, timeout=60)

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        code = self._process.wait(timeout=patient(60))
        self._log.close()
        assert code == 0, (self._folder / "up.log").read_text()
