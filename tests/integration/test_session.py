"""Whatever the end of a run of tests: no process and no folder of ours is left, and the run says who left what."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from notifier.dev.processes import command_line
from tests.provisioning.session import MARK
from tests.waiting import patient, wait_until

ROOT = Path(__file__).parents[2]

#: A run that starts a program in a session of its own, in an environment from scratch if told so, and a folder.
_RUN = """
import os, subprocess, sys, tempfile
from tests.provisioning.session import Session
session = Session(lambda text: print(text, flush=True))
environment = {"PATH": os.environ["PATH"]} if "bare" in sys.argv else None
program = subprocess.Popen(["sleep", "600"], start_new_session=True, env=environment, cwd=tempfile.mkdtemp())
print("begun", session.folder, program.pid, session._warden.pid, flush=True)
sys.stdin.read()
"""

_LEAVES_A_PROCESS = """
import subprocess, tempfile
def test_that_leaves_something():
    subprocess.Popen(["sleep", "601"], start_new_session=True)
    tempfile.mkdtemp(prefix="forgotten-")
"""


class Run:
    """`_RUN` as a process, which may be killed."""

    def __init__(self, *arguments: str) -> None:
        # Not as a part of the session that this test runs in: it would find what it looks for.
        environment = {name: value for name, value in os.environ.items() if name not in (MARK, "TMPDIR")}
        self.process = subprocess.Popen(
            [sys.executable, "-c", _RUN, *arguments],
            cwd=ROOT,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self.process.stdout is not None
        self.said = [self.process.stdout.readline()]
        while not self.said[-1].startswith("begun"):
            self.said.append(self.process.stdout.readline())
        _, folder, *pids = self.said.pop().split()
        self.folder = Path(folder)
        self.program, self.warden = map(int, pids)

    def end(self) -> None:
        # Not `communicate`: the program has our pipe, too.
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout):
            assert pipe is not None
            pipe.close()


@pytest.mark.parametrize("environment", ["inherited", "bare"])
def test_a_killed_run_leaves_nothing(environment: str) -> None:
    run = Run(environment)
    wait_until(lambda: command_line(run.program))

    run.end()

    wait_until(lambda: not command_line(run.program), 20)
    wait_until(lambda: not run.folder.exists(), 20)


def test_what_a_run_left_that_was_killed_with_its_warden_is_ended_by_the_next() -> None:
    said: list[str] = []
    # Another run may begin on this machine just then, and end it before ours does.
    for _ in range(5):
        run = Run()
        os.kill(run.warden, signal.SIGKILL)
        run.end()

        following = Run()

        following.end()
        assert not command_line(run.program)
        assert not run.folder.exists()
        said = following.said
        if said:
            break
    assert [f"process {run.program}: sleep 600" in line for line in said] == [True]


def test_a_run_of_tests_fails_that_leaves_a_process_or_a_folder(tmp_path: Path) -> None:
    (tmp_path / "test_leaving.py").write_text(_LEAVES_A_PROCESS)
    options = ["-p", "tests.conftest", "-p", "no:cacheprovider", "-n", "0", "-c", str(ROOT / "pyproject.toml")]
    options += ["--rootdir", str(tmp_path), "-W", "ignore::ResourceWarning"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=patient(60),
    )

    assert done.returncode == 1, done.stdout
    assert "1 passed" in done.stdout
    assert "sleep 601, started by test_leaving.py::test_that_leaves_something (call)" in done.stdout
    assert "forgotten-" in done.stdout
    commands = [process.info["cmdline"] for process in psutil.process_iter(["cmdline"])]
    assert ["sleep", "601"] not in commands
