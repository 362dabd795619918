"""What a server needs from the machine: a user to run as, a folder it can reach, a socket, a free port, time."""

from __future__ import annotations

import contextlib
import os
import pwd
import random
import socket
import stat
import subprocess
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from notifier.domain.errors import ConfigurationError

#: Lower ports are for well-known services of others.
_FIRST_PORT = 10_000
#: How many ports are tried before the kernel is asked for one.
_PORTS_TRIED = 100
#: Linux: the first and the last port that an outgoing connection may get.
_OUTGOING_PORTS = Path("/proc/sys/net/ipv4/ip_local_port_range")
#: Processor time of one measurement: long enough to be interrupted if others want the processor as well.
_SPIN_SECONDS = 0.05


@dataclass(frozen=True, slots=True)
class Account:
    """The system user that a server runs as when we are root."""

    name: str
    uid: int
    gid: int


def server_account() -> Account | None:
    """If we are root: `postgres`, or otherwise `nobody`, because PostgreSQL refuses to run as root. None: stay who
    we are."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            found = pwd.getpwnam(name)
        except KeyError:
            continue
        return Account(name, found.pw_uid, found.pw_gid)
    return Account("nobody", 65534, 65534)


def run_as(account: Account | None) -> dict[str, Any]:
    """Arguments for `subprocess` that give up root's rights and all of its groups."""
    if account is None:
        return {}
    return {"user": account.uid, "group": account.gid, "extra_groups": []}


def launcher(account: Account | None) -> Callable[..., subprocess.Popen[bytes]]:

    def launch(command: Sequence[str], **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, **options, **run_as(account))

    return launch


def server_environment() -> dict[str, str]:
    """An environment without our variables, because PG* variables and locales would change what a server does."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"}


def run_quietly(command: Sequence[str | Path], account: Account | None) -> subprocess.CompletedProcess[str]:
    """Run a short program to its end, and keep its output."""
    return subprocess.run(
        [str(part) for part in command],
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        cwd="/",
        env=server_environment(),
        **run_as(account),
    )


def can(account: Account | None, access: Literal["-w", "-x"], path: Path) -> bool:
    """Whether the server's user may write (`-w`) or execute (`-x`) this. The system is asked; nothing is
    computed."""
    return run_quietly(["/bin/sh", "-c", 'test "$1" "$2"', "can", access, path], account).returncode == 0


def give(folder: Path, account: Account | None) -> None:
    """Make a folder that only the server's user (and root, who may be us) can enter."""
    folder.mkdir(mode=0o700, exist_ok=True)
    if account:
        os.chown(folder, account.uid, account.gid)


def make_private(folder: Path) -> None:
    """Make a folder that only this user can enter, because mails and logs contain people's addresses. An existing
    folder is changed accordingly."""
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)


def make_data_folder(folder: Path) -> None:
    """Make the folder for everything that `notifier up` keeps. Whatever the umask, nobody else can write there.

    Others may pass through it, because root's PostgreSQL runs as another user; what is inside is private.

    Raises:
        ConfigurationError: it cannot be made or written, or is a file; or it belongs to another user, or others
            can write there. They could have placed links that make us write to files of their choice.
    """
    try:
        if not folder.exists():
            folder.mkdir(parents=True, exist_ok=True)
            folder.chmod(0o755)
        found = folder.stat()
    except OSError as error:
        raise _no_data_folder(folder, f"cannot be made ({error.strerror})") from None
    if not stat.S_ISDIR(found.st_mode):
        raise _no_data_folder(folder, "is a file")
    if found.st_uid != os.geteuid():
        problem, fix = "belongs to another user", "start this as that user"
    elif found.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        problem, fix = (
            "can be written by other users",
            f"chmod go-w {folder}, once you have seen what is in it",
        )
    elif not os.access(folder, os.W_OK | os.X_OK):
        raise _no_data_folder(folder, "cannot be written")
    else:
        return
    raise _no_data_folder(folder, problem, f"{fix}, or ")


def _no_data_folder(folder: Path, problem: str, fix: str = "") -> ConfigurationError:
    return ConfigurationError(
        f"the data folder {folder} {problem}: {fix}set NOTIFIER_DATA_DIR to another folder",
        setting="NOTIFIER_DATA_DIR",
    )


def private_opener(path: str, flags: int) -> int:
    """For `open(…, opener=…)`: whatever the umask, only this user can read the file. An existing file is changed
    accordingly; a symbolic link is an OSError."""
    descriptor = os.open(path, flags | os.O_NOFOLLOW, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def write_private(path: Path, content: str) -> None:
    """Put a complete new file there that only this user can read. An existing file is replaced, never written
    to."""
    unfinished = path.with_name(f"{path.name}.part")
    unfinished.unlink(missing_ok=True)
    with open(unfinished, "x", encoding="utf-8", opener=private_opener) as file:
        file.write(content)
    unfinished.replace(path)


def can_hold_socket(folder: Path) -> bool:
    """Whether a Unix socket fits there: paths are limited to about 100 characters, and some file systems have no
    sockets."""
    trial = folder / ".s.PGSQL.trial"
    with socket.socket(socket.AF_UNIX) as unix:
        try:
            unix.bind(str(trial))
        except OSError:
            return False
    trial.unlink()
    return True


def free_port() -> int:
    """A port on 127.0.0.1 on which nobody listens now, and that no outgoing connection is given later.

    A port that the kernel chooses is from the range that it also uses for outgoing connections. Before a server
    that takes seconds to start listens on it, another connection may have taken it.
    """
    ports = range(_FIRST_PORT, _first_outgoing_port())
    # Not the generator that tests and load runs seed, because two of them would choose the same ports.
    for port in random.SystemRandom().sample(ports, k=min(_PORTS_TRIED, len(ports))):
        if is_free(port):
            return port
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _first_outgoing_port() -> int:
    """The first port of the range for outgoing connections: 49152 (RFC 6335) on systems that do not say."""
    try:
        return int(_OUTGOING_PORTS.read_text("ascii").split()[0])
    except (OSError, ValueError, IndexError):
        return 49_152


def kept_port(file: Path) -> int:
    """The port in the file, if it is free; otherwise a free one, which is then written to the file. So URLs that
    people have copied stay valid over restarts."""
    with contextlib.suppress(OSError, ValueError):
        port = int(file.read_text("ascii"))
        if 0 < port < 1 << 16 and is_free(port):
            return port
    port = free_port()
    write_private(file, f"{port}\n")
    return port


def is_free(port: int) -> bool:
    with socket.socket() as listener:
        # As the servers do: connections of the last run that linger in TIME_WAIT do not matter.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def make_temporary_folder(parent: Path | None = None) -> Path:
    """A folder for the data of a throw-away service; the caller removes it.

    The server's user may pass through but not list it. `tempfile` alone would lock that user out if we are root.
    """
    folder = Path(tempfile.mkdtemp(prefix="notifier-", dir=parent))
    if os.geteuid() == 0:
        folder.chmod(0o711)
    return folder


def slowness() -> float:
    """How many times longer our work takes now than on an idle machine, at least 1. Measures for 50 ms or more.

    The larger of two numbers: how many processes wanted each processor in the last minute, and how long a piece of
    work takes compared with its processor time, which also shows a priority, a quota and a busy host.
    """
    return max(1.0, os.getloadavg()[0] / _processors(), _spin())


def _spin() -> float:
    began, ends_at = time.monotonic(), time.thread_time() + _SPIN_SECONDS
    while time.thread_time() < ends_at:
        pass
    return (time.monotonic() - began) / _SPIN_SECONDS


def _processors() -> int:
    """The number of processors that we may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
