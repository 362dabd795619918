"""A forked program is as the real one to whoever started it: output, exit code, signals, variables, folder."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from notifier.dev.forking import ForkServer
from notifier.domain.errors import ServiceUnavailable
from tests.support import forking
from tests.waiting import patient, wait_until

Start = Callable[..., subprocess.Popen[Any]]

_PROGRAM = """
import os, sys, warnings
print(sys.argv[1:], os.getcwd(), sys.path[0], __name__, os.environ["COLOUR"], sys.stdin.read())
print(len(os.listdir("/proc/self/fd")), sys.stdout.isatty(), file=sys.stderr)
try:
    warnings.warn("loud")
except UserWarning:
    print("an error", file=sys.stderr)
sys.exit(7)
"""


@pytest.fixture(params=["real", "forked"])
def start(request: pytest.FixtureRequest) -> Start:
    if request.param == "real":
        return subprocess.Popen
    if sys.platform != "linux":
        pytest.skip("programs are forked on Linux only")
    return forking.fork


def test_output_exit_code_and_surroundings_are_the_same(start: Start, tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(_PROGRAM)
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with start(
        [sys.executable, "-W", "error", str(script), "a b"],
        env={**os.environ, "COLOUR": "blue"},
        cwd=tmp_path,
        text=True,
        **pipes,
    ) as process:
        out, errors = process.communicate("héllo", timeout=patient(30))
    assert out == f"['a b'] {tmp_path} {tmp_path} __main__ blue héllo\n"
    # Three streams, and the folder that is being listed.
    assert errors == "4 False\nan error\n"
    assert process.returncode == 7


def test_the_command_line_answers_the_same(start: Start) -> None:
    shown = []
    for arguments in (["--version"], ["no-such-command"]):
        with start(
            [sys.executable, "-m", "notifier", *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env={**os.environ, "COLUMNS": "80"},
        ) as process:
            shown.append((process.communicate(timeout=patient(30))[0].decode(), process.returncode))
    assert [code for _, code in shown] == [0, 2]
    assert "Usage: python -m notifier" in shown[1][0]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL, signal.SIGINT])
def test_a_signal_ends_it_and_is_told(start: Start, tmp_path: Path, number: signal.Signals) -> None:
    script = tmp_path / "program.py"
    script.write_text("import sys, time\nprint('begun', file=sys.stderr)\ntime.sleep(600)\n")
    with start(
        [sys.executable, str(script)], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        # At once, also from the fork of a fork, which the processes of a run have.
        assert process.stderr
        assert process.stderr.readline() == "begun\n"
        assert process.poll() is None
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(0.01)
        process.send_signal(number)
        assert process.wait(patient(30)) == -number
        # Not even for a moment: somebody else may have its id now.
        process.kill()
    assert not psutil.pid_exists(process.pid)


def test_nothing_forked_outlives_who_forked_it(tmp_path: Path) -> None:
    code = (
        "import sys, time; from tests.support.forking import fork; "
        "print(fork([sys.executable, sys.argv[1]]).pid, flush=True); time.sleep(600)"
    )
    script = tmp_path / "program.py"
    script.write_text("import time\ntime.sleep(600)\n")
    root = Path(__file__).parents[2]
    with subprocess.Popen(
        [sys.executable, "-c", code, str(script)], stdout=subprocess.PIPE, cwd=root, text=True
    ) as process:
        assert process.stdout
        forked = int(process.stdout.readline())
        assert psutil.pid_exists(forked)
        process.kill()
    wait_until(lambda: not psutil.pid_exists(forked))


@pytest.mark.skipif(sys.platform != "linux", reason="programs are forked on Linux only")
def test_a_program_that_may_outlive_who_forked_it_ends_in_order(tmp_path: Path) -> None:
    script = tmp_path / "program.py"
    script.write_text(
        "import pathlib, signal, sys, time\n"
        "def end(*_):\n    pathlib.Path(__file__).with_name('ended').touch()\n    sys.exit()\n"
        "signal.signal(signal.SIGTERM, end)\nprint('begun', flush=True)\ntime.sleep(600)\n"
    )
    server = ForkServer(imports=["json"], outlived=True)
    with server.launch([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "begun\n"
        server.close()
        wait_until((tmp_path / "ended").exists)
        wait_until(lambda: not psutil.pid_exists(process.pid))


@pytest.mark.skipif(sys.platform != "linux", reason="programs are forked on Linux only")
def test_what_cannot_be_imported_is_named() -> None:
    with pytest.raises(ServiceUnavailable, match=r"No module named 'notifier\.nowhere'"):
        ForkServer(imports=["notifier.nowhere"]).wait_until_ready()


@pytest.mark.skipif(sys.platform != "linux", reason="programs are forked on Linux only")
def test_who_shares_one_that_has_ended_is_told_where_the_reason_is(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(f"\0{tmp_path.name}.{os.getpid()}")
        listener.listen()
        shared = forking.SharedFork(str(listener.getsockname(), "utf-8"))
        listener.accept()[0].close()
        with pytest.raises(ServiceUnavailable, match="cannot be started: the first process of the run says why"):
            shared.launch([sys.executable, "-c", ""])
        shared.close()
