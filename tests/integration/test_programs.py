"""The programs of `notifier up`: when they are ready, and what `--reload` says of a change that is wrong."""

from __future__ import annotations

import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from threading import Event

import pytest

from notifier.config.settings import bundled, load_settings
from notifier.dev.forking import ProgramLauncher
from notifier.dev.programs import Programs
from notifier.dev.reload import Reloader
from notifier.dev.twilio_server import running_twilio_server
from tests.waiting import wait_until

TEMPLATES = Path(__file__).parents[1] / "unit" / "cli" / "templates"
#: Where nobody listens: a program waits for them.
NOWHERE = {
    "NOTIFIER_DATABASE_URL": "postgresql://127.0.0.1:9/none",
    "NOTIFIER_BROKER_URL": "redis://127.0.0.1:9/0",
}


@pytest.fixture
def templates(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    folder = tmp_path / "templates"
    shutil.copytree(TEMPLATES, folder)
    monkeypatch.setenv("NOTIFIER_TEMPLATES", str(folder))
    monkeypatch.setenv("NOTIFIER_CONFIG", str(bundled("notifier.toml")))
    return folder


@pytest.fixture
def programs(tmp_path: Path) -> Iterator[Programs]:
    with Programs(NOWHERE, tmp_path / "logs", programs={"intake": ("intake",)}, grace_seconds=1) as running:
        yield running


def test_the_api_is_ready_once_it_answers(programs: Programs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        assert not programs.is_ready(silent.getsockname()[1])
    with running_twilio_server() as server:
        assert programs.is_ready(server.port)


def test_programs_that_end_because_all_is_to_end_have_not_died(programs: Programs) -> None:
    stop, died = Event(), list[str]()

    def end() -> None:
        programs.stop()
        stop.set()

    programs.watch(stop, lambda name, _: died.append(name), end)
    assert died == []


def test_a_broken_template_is_named_and_the_programs_are_said_to_go_on_only_if_they_do(
    templates: Path, programs: Programs
) -> None:
    said: list[str] = []
    complaints: list[str] = []
    stop = Event()
    # Before the change, which does not touch it.
    (templates / "email" / "hello" / "body.txt").write_text("{{ old")
    with ProgramLauncher() as launcher:
        reloader = Reloader(
            load_settings(use_running=False), programs, launcher, stop, said.append, complaints.append
        )

        body = templates / "sms" / "code" / "body.txt"
        right = body.read_text()

        def complaint(saved: str = "{{ bad") -> str:
            """What it says next of what is saved until the folder is watched."""
            complaints.clear()
            wait_until(lambda: (body.write_text(saved), reloader.check(), complaints)[-1], timeout=30)
            return complaints[0]

        pid = programs.pids["intake"]
        broken = complaint()
        assert broken.startswith("the programs go on as they were, because this is wrong: templates\n")
        assert "sms/code/body.txt:1: error: " in broken
        assert "email/hello" not in broken
        assert programs.pids["intake"] == pid
        # As after a start that failed, or while one is under way.
        programs.stop()
        assert complaint().startswith("nothing is started anew, because this is wrong: templates\n")
        old = complaint(right)
        assert old.startswith("these templates were broken before, and still are:\nemail/hello/body.txt:1: ")
        assert "sms/code" not in old
        assert programs.running == {"intake": True}
        stop.set()
