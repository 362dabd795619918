"""One run of tests, chaos or bench, and everything that it starts and writes: found, named and ended.

| the run ends            | who looks                                                                     |
|-------------------------|-------------------------------------------------------------------------------|
| by itself, by Ctrl-C    | `Session.close`: says what is left, and who calls it fails the run            |
| by kill -9, by SIGTERM  | the warden: a process of ours that waits for our end, and cleans up           |
| so, and its warden too  | the next session on this machine                                              |

A process is ours if it carries our mark in its environment, as all children do that are not given an environment
from scratch; if it descends from us; or if it has no terminal and works in our folder, or has it in its command:
servers. Temporary files are ours because `TMPDIR` is our folder, for all children, too.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

from notifier.dev.machine import make_temporary_folder
from notifier.dev.processes import FolderLock
from tests.waiting import Deadline

#: In the environment of everything that a session starts: its name; one inside another adds its own.
#: Not NOTIFIER_…: who starts a program without the settings of the shell takes those away.
MARK = "SESSION_OF_NOTIFIER_TESTS"

_IN_USE = "tests-in-use.lock"
_ROOT = Path(__file__).parents[2]
#: What is about to end by itself, such as the guard of a server, may take so long.
_MOMENT_SECONDS = 2.0
#: From asking to forcing.
_GRACE_SECONDS = 10.0
_POLL_SECONDS = 0.05
_WARDEN = ["-m", "tests.provisioning.session"]
_TRACKER = "multiprocessing.resource_tracker"


class Session:
    """Begins when it is made; `close` ends it."""

    def __init__(
        self, say: Callable[[str], None] = print, *, in_memory: bool = False, others: Sequence[Path] = ()
    ) -> None:
        """`in_memory`: temporary files need not survive a crash of the machine. `others`: further folders that
        only our processes work in; whoever made them removes them."""
        is_outermost = MARK not in os.environ
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # A shell's background job ignores Ctrl-C, and so would every program that we start and interrupt.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        parent = Path(tempfile.gettempdir())
        if is_outermost:
            parent = (_memory() if in_memory else None) or parent
            _end_the_dead(say)
        self.folder, self._lock = _make_folder(parent)
        self._others = others
        self._before = {name: os.environ.get(name) for name in (MARK, "TMPDIR")}
        os.environ[MARK] = ":".join(filter(None, (self._before[MARK], self.folder.name)))
        self._use_as_temporary(str(self.folder))
        self._warden: subprocess.Popen[bytes] | None = subprocess.Popen(
            [sys.executable, *_WARDEN, str(self.folder), *map(str, others)],
            stdin=subprocess.PIPE,
            cwd=_ROOT,
            # A Ctrl-C in the terminal is for us.
            start_new_session=True,
        )

    def close(self) -> list[str]:
        """Remove and end everything. Returns what was left by those who should have done so. Safe to repeat."""
        if self._warden is None:
            return []
        found = _what_stays(self._processes)
        left = [_named(process) for process in found]
        end(self._processes)
        left += [f"{path}" for path in sorted(self.folder.iterdir()) if path.name != _IN_USE]
        for name, value in self._before.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        self._use_as_temporary(self._before["TMPDIR"])
        shutil.rmtree(self.folder, ignore_errors=True)
        self._lock.release()
        _dismiss(self._warden)
        self._warden = None
        return left

    def _processes(self) -> list[psutil.Process]:
        ours = {process.pid: process for process in processes_of([self.folder, *self._others])}
        ours |= {process.pid: process for process in psutil.Process().children(recursive=True)}
        return [process for process in ours.values() if _is_at_work(process)]

    @staticmethod
    def _use_as_temporary(folder: str | None) -> None:
        if folder is not None:
            os.environ["TMPDIR"] = folder
        tempfile.tempdir = None


def processes_of(folders: Sequence[Path]) -> list[psutil.Process]:
    """What belongs to the session whose folder comes first, but for the one who asks and those who started it."""
    excepted = {os.getpid(), *(parent.pid for parent in psutil.Process().parents())}
    name, places = folders[0].name, [str(folder) for folder in folders]
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError), process.oneshot():
            if process.pid not in excepted and (_has_mark(process, name) or _serves_in(process, places)):
                found.append(process)
    return found


def end(find: Callable[[], list[psutil.Process]]) -> None:
    """Ask whatever is found to end, then force it; also what it starts meanwhile."""
    asked: set[int] = set()
    begun = time.monotonic()
    while time.monotonic() - begun < 3 * _GRACE_SECONDS and (found := find()):
        is_forced = time.monotonic() - begun > _GRACE_SECONDS
        for process in found:
            with contextlib.suppress(psutil.NoSuchProcess):
                if is_forced:
                    process.kill()
                elif process.pid not in asked:
                    process.terminate()
            asked.add(process.pid)
        time.sleep(_POLL_SECONDS)


def _what_stays(find: Callable[[], list[psutil.Process]]) -> list[psutil.Process]:
    """What is still there when everything has had a moment to end by itself."""
    deadline = Deadline(_MOMENT_SECONDS)
    while found := find():
        if deadline.is_over():
            return found
        time.sleep(_POLL_SECONDS)
    return []


def _named(process: psutil.Process) -> str:
    """Its id and command, and the test that started it: pytest says that in the environment."""
    command = starter = ""
    with contextlib.suppress(psutil.Error):
        command = " ".join(process.cmdline()) or process.name()
        starter = process.environ().get("PYTEST_CURRENT_TEST", "")
    return f"process {process.pid}: {command[:300]}" + (f", started by {starter}" if starter else "")


def _has_mark(process: psutil.Process, name: str) -> bool:
    try:
        return name in process.environ().get(MARK, "").split(":")
    except psutil.Error:
        # Of another user, or ending.
        return False


def _serves_in(process: psutil.Process, places: Sequence[str]) -> bool:
    """Somebody who looks at our files has a terminal."""
    words = [*process.cmdline(), process.cwd() or ""]
    return any(place in word for place in places for word in words) and process.terminal() is None


def _is_at_work(process: psutil.Process) -> bool:
    """Not dead, and none of those that end with whom they serve: a warden, Python's own of `multiprocessing`."""
    try:
        command = process.cmdline()
        serves = command[1:3] == _WARDEN or any(_TRACKER in word for word in command)
        return process.status() != psutil.STATUS_ZOMBIE and not serves
    except psutil.Error:
        return False


def _make_folder(parent: Path) -> tuple[Path, FolderLock]:
    folder = make_temporary_folder(parent)
    # Locked before it has the name that others look for: none of them can be faster.
    lock = FolderLock(folder / "starting")
    lock.acquire()
    (folder / "starting").rename(folder / _IN_USE)
    return folder, lock


def _end_the_dead(say: Callable[[str], None]) -> None:
    """What sessions left that were killed together with their wardens."""
    parents = {Path(tempfile.gettempdir()), Path("/dev/shm")}
    for lock_file in (found for parent in parents for found in parent.glob(f"notifier-*/{_IN_USE}")):
        folder, lock = lock_file.parent, FolderLock(lock_file)
        # Its owner may be removing it at this moment.
        with contextlib.suppress(FileNotFoundError):
            if os.access(lock_file, os.W_OK) and lock.acquire():
                for process in processes_of([folder]):
                    say(f"left by a run that was killed: {_named(process)}")
                end(lambda folder=folder: processes_of([folder]))  # type: ignore[misc]
                shutil.rmtree(folder, ignore_errors=True)
                lock.release()


def _memory() -> Path | None:
    """A database is hundreds of files: on a disk a copy takes a fifth of a second, in memory a hundredth.

    None, for the disk, where there is no such folder or, as in most containers, only a small one.
    """
    folder = Path("/dev/shm")
    if not os.access(folder, os.W_OK) or shutil.disk_usage(folder).free < 2 * 1024**3:
        return None
    return folder


def _dismiss(warden: subprocess.Popen[bytes]) -> None:
    assert warden.stdin is not None
    warden.kill()
    warden.wait()
    warden.stdin.close()


def _watch(folders: Sequence[Path]) -> None:
    """The warden: the pipe from the session closes with it, however it ends."""
    sys.stdin.buffer.read()
    end(lambda: processes_of(folders))
    shutil.rmtree(folders[0], ignore_errors=True)


if __name__ == "__main__":
    # Only SIGKILL ends it before its time.
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)
    _watch([Path(folder) for folder in sys.argv[1:]])
