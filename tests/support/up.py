"""`notifier up` as a person starts it, and a terminal into which its lines were pasted."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import psutil

from tests.waiting import patient, wait_until

ROOT = Path(__file__).parents[2]


class Up:
    """`notifier up` on a folder. It is ready while the block lasts, and Ctrl-C ends it."""

    def __init__(self, folder: Path, *arguments: str, program: Path | None = None) -> None:
        """`program`: a folder from which to run it, instead of this checkout."""
        self._folder = folder
        self._command = [sys.executable, "-m", "notifier", "up", *arguments]
        self._cwd = program
        self._environment = dict(os.environ)
        # Scripts of this environment come first, as after `. .venv/bin/activate`.
        self._environment["PATH"] = f"{Path(sys.executable).parent}:{os.environ['PATH']}"

    def __enter__(self) -> Self:
        self._log = (self._folder / "up.log").open("wb")
        self._process = subprocess.Popen(
            self._command,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            env={**self._environment, "NOTIFIER_DATA_DIR": str(self._folder)},
            cwd=self._cwd,
        )
        wait_until(lambda: self._process.poll() is not None or "Ctrl-C stops" in self.output, timeout=60)
        assert "ready after" in self.output, self.output
        return self

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        code = self._process.wait(timeout=patient(60))
        self._log.close()
        assert code == 0, self.output

    @property
    def output(self) -> str:
        """Everything that it has printed."""
        return (self._folder / "up.log").read_text()

    @property
    def variables(self) -> dict[str, str]:
        """The variables in the lines to paste, as a shell reads them."""
        found = self.shell("env")
        return dict(line.split("=", 1) for line in found.splitlines() if line.startswith("NOTIFIER_"))

    @property
    def environment(self) -> dict[str, str]:
        """The environment of a terminal with those lines."""
        return {**self._environment, **self.variables}

    def shell(self, script: str, *, cwd: Path | None = None) -> str:
        """The output of a script in a terminal with those lines."""
        done = subprocess.run(
            ["/bin/sh", "-euc", self._pasted(script)],
            env=self._environment,
            cwd=cwd,
            capture_output=True,
            text=True,
            timeout=patient(100),
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    @contextmanager
    def terminal(self, script: str, *, cwd: Path) -> Iterator[None]:
        """Another terminal, in which a script runs while the block lasts."""
        command, quiet = ["/bin/sh", "-euc", self._pasted(script)], subprocess.DEVNULL
        with subprocess.Popen(
            command, env=self._environment, cwd=cwd, stdout=quiet, stderr=quiet, start_new_session=True
        ) as running:
            try:
                yield
                assert running.poll() is None, f"{script} ended with {running.poll()}"
            finally:
                os.killpg(running.pid, signal.SIGTERM)

    def _pasted(self, script: str) -> str:
        lines = [line.strip() for line in self.output.splitlines() if line.startswith("  export ")]
        return "\n".join([*lines, script])


def processes_of(folder: Path) -> list[psutil.Process]:
    """Processes that have this folder in their command line or environment."""
    found = []
    for process in psutil.process_iter():
        try:
            told = [*process.cmdline(), *process.environ().values()]
        except (psutil.AccessDenied, psutil.NoSuchProcess):
            continue
        if any(str(folder) in part for part in told):
            found.append(process)
    return found


def blocks(page: Path) -> list[str]:
    """The code blocks of a page, without their fences."""
    return re.findall(r"^```\w*\n(.*?)^```$", page.read_text(), re.DOTALL | re.MULTILINE)


def block(page: Path, word: str) -> str:
    """The only block that contains this word."""
    (found,) = (one for one in blocks(page) if word in one)
    return found
