"""What the embedded servers decide before any server runs. How they run: tests/integration/test_embedded.py."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from notifier.dev import machine
from notifier.dev.machine import (
    Account,
    can_hold_socket,
    free_port,
    is_free,
    kept_port,
    make_temporary_folder,
    run_as,
)
from notifier.dev.processes import FolderLock, ServerProcess, command_line, end_leftover, own
from notifier.domain.errors import ConfigurationError, ServiceUnavailable
from tests.waiting import patient, wait_until


def test_lock_has_one_owner_at_a_time(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path / "lock"), FolderLock(tmp_path / "lock")

    assert first.acquire()
    assert not second.acquire()
    assert second.owner() == str(os.getpid())

    first.release()
    assert second.acquire()
    second.release()


def test_a_released_lock_is_free_though_a_child_has_its_descriptor(tmp_path: Path) -> None:
    first, second = FolderLock(tmp_path / "lock"), FolderLock(tmp_path / "lock")
    assert first.acquire()
    descriptor = first._descriptor
    assert descriptor is not None
    with subprocess.Popen(["sleep", "60"], pass_fds=[descriptor]) as child:
        try:
            first.release()
            assert second.acquire()
        finally:
            child.kill()
    second.release()


def test_folder_in_use_is_an_error_that_names_the_owner_and_the_fix(tmp_path: Path) -> None:
    lock = FolderLock(tmp_path / "lock")
    lock.acquire()

    with pytest.raises(ConfigurationError, match=rf"in use by process {os.getpid()}.*NOTIFIER_DATA_DIR"):
        own(tmp_path, FolderLock(tmp_path / "lock"), "Valkey")

    lock.release()


def test_command_line_is_that_of_the_process_and_empty_without_one() -> None:
    assert Path(sys.executable).name.removesuffix(".exe") in command_line(os.getpid())
    assert command_line(0) == ""


def test_leftover_is_ended_only_if_the_marker_is_in_its_command() -> None:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)", "marked"]) as process:
        # The kernel sets the command line a moment after the program has begun.
        wait_until(lambda: "marked" in command_line(process.pid))
        end_leftover(process.pid, "another-marker", [(signal.SIGTERM, 5)])
        assert process.poll() is None

        end_leftover(process.pid, "marked", [(signal.SIGTERM, 5)])
        assert process.wait(patient(5)) == -signal.SIGTERM


def test_a_slow_machine_gets_more_time_for_the_start_of_a_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    command = [sys.executable, "-c", "import time; time.sleep(60)"]
    server = ServerProcess(
        "RabbitMQ", command, log=tmp_path / "log", stop_plan=[(signal.SIGTERM, 5)], cwd=tmp_path
    )
    server.start()
    try:
        with pytest.raises(ServiceUnavailable, match="RabbitMQ was not ready within"):
            server.wait_until(lambda: False, 0.01)
        # A minute in which a million programs wanted each processor.
        monkeypatch.setattr(os, "getloadavg", lambda: (1e6 * (os.cpu_count() or 1), 0.0, 0.0))
        looks = iter([False] * 10 + [True])
        server.wait_until(lambda: next(looks), 0.01)
    finally:
        server.stop()


def test_socket_does_not_fit_into_a_long_path(tmp_path: Path) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    short = make_temporary_folder()

    assert not can_hold_socket(long)
    assert can_hold_socket(short)
    assert list(short.iterdir()) == []

    short.rmdir()


def test_free_port_is_free() -> None:
    assert is_free(free_port())


def test_a_kept_port_stays_while_it_is_free(tmp_path: Path) -> None:
    file = tmp_path / "port"
    port = kept_port(file)
    assert kept_port(file) == port
    with socket.create_server(("127.0.0.1", port)):
        another = kept_port(file)
    assert another != port
    assert kept_port(file) == another
    file.write_text("99999")
    assert is_free(kept_port(file))


def test_a_free_port_is_none_that_an_outgoing_connection_may_get_meanwhile(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "range").write_text("10004\t60999\n")
    monkeypatch.setattr(machine, "_OUTGOING_PORTS", tmp_path / "range")
    monkeypatch.setattr(machine, "is_free", lambda port: port == 10_002)
    assert free_port() == 10_002

    (tmp_path / "range").write_text("1024\t65535\n")
    assert free_port() >= 1024, "none is left: one of the kernel's choice"


def test_running_as_an_account_keeps_no_group_of_ours() -> None:
    assert run_as(None) == {}
    assert run_as(Account("nobody", 65534, 65534)) == {"user": 65534, "group": 65534, "extra_groups": []}
