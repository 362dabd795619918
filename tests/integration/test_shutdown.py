"""What hangs does not keep a program; and two signals in a row do not hurry it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from notifier.runtime.shutdown import OVERDUE, SIGNALS
from tests.waiting import patient, wait_until

# A lock that nobody releases stands for whatever a library waits for.
_HANGS = """
import threading
from notifier.runtime.shutdown import stop_on_signals
stop = stop_on_signals(0.3)
lock = threading.Lock()
lock.acquire()

def in_hand():
    print("ready", flush=True)
    lock.acquire()

threading.Thread(target=in_hand).start()
stop.wait()
"""

_TAKES_A_MOMENT = """
import time
from notifier.runtime.shutdown import stop_on_signals
stop = stop_on_signals(20)
print("ready", flush=True)
stop.wait()
print("stopping", flush=True)
time.sleep(0.2)
print("written", flush=True)
"""

_COMMAND = """
import sys, threading
from notifier.runtime.shutdown import Stopped, interrupt_on_signals
interrupt_on_signals(20)
try:
    print("ready", flush=True)
    threading.Event().wait()
except Stopped as stopped:
    sys.exit(stopped.exit_code)
"""

_OWNER = """
import signal, sys, time
from pathlib import Path
from notifier.dev.processes import ServerProcess
deaf = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print(1, flush=True); time.sleep(600)"
log = Path(sys.argv[1])
plan = [(signal.SIGTERM, 1)]
server = ServerProcess("deaf", [sys.executable, "-c", deaf], log=log, stop_plan=plan, cwd=Path.cwd())
server.start()
server.wait_until(lambda: log.read_text(), 20)
print("ready", server.pid, flush=True)
time.sleep(600)
"""


def start(program: str) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "ready\n"
    return process


@pytest.mark.parametrize("number", SIGNALS)
def test_a_program_that_hangs_ends_by_itself_and_says_what_it_was_at(number: signal.Signals) -> None:
    # Imported by a name of ours, so that its threads count as ours.
    program = f"import types, sys; m = types.ModuleType('notifier.hanging'); exec({_HANGS!r}, m.__dict__)"
    with start(program) as process:
        process.send_signal(number)
        _, errors = process.communicate(timeout=patient(20))
    assert process.returncode == OVERDUE
    assert "not ended 0.3 s after the signal" in errors
    assert "in notifier.hanging.in_hand, line" in errors


def test_a_second_signal_leaves_the_work_in_hand_alone() -> None:
    with start(_TAKES_A_MOMENT) as process:
        process.send_signal(signal.SIGINT)
        assert process.stdout is not None
        assert process.stdout.readline() == "stopping\n"
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=patient(20))
    assert (process.returncode, rest) == (0, "written\n")


def test_what_nohup_started_outlives_its_terminal() -> None:
    nohup = "import signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
    with start(nohup + _TAKES_A_MOMENT) as process:
        process.send_signal(signal.SIGHUP)
        process.send_signal(signal.SIGTERM)
        rest, _ = process.communicate(timeout=patient(20))
    assert (process.returncode, rest) == (0, "stopping\nwritten\n")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130), (signal.SIGHUP, 129)])
def test_a_command_ends_as_a_shell_says_of_one_that_a_signal_ended(number: signal.Signals, code: int) -> None:
    with start(_COMMAND) as process:
        process.send_signal(number)
        process.communicate(timeout=patient(20))
    assert process.returncode == code


def test_a_program_that_does_not_obey_is_killed_when_its_owner_was(tmp_path: Path) -> None:
    owner = subprocess.Popen(
        [sys.executable, "-c", _OWNER, str(tmp_path / "log")], stdout=subprocess.PIPE, text=True
    )
    assert owner.stdout is not None
    word, pid = owner.stdout.readline().split()
    assert word == "ready"
    orphan = psutil.Process(int(pid))
    owner.kill()
    owner.communicate()
    wait_until(lambda: not orphan.is_running() or orphan.status() == psutil.STATUS_ZOMBIE, timeout=20)
