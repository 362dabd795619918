"""Finds the service that this user's `notifier up` runs, so that commands and producers need no settings.

Producers import this, so it imports only the standard library.
"""

from __future__ import annotations

import json
import os
import stat
from dataclasses import dataclass, field
from pathlib import Path

#: A file in the data folder while `notifier up` runs there: where its servers are, for other commands of the same
#: user.
RUNNING_FILE = "running.env"

#: Beside it, what a producer needs: a `RunningService` as JSON. Only its owner can read it.
SERVICE_FILE = "service.json"


@dataclass(frozen=True, slots=True)
class RunningService:
    """What a producer needs to use the running service."""

    #: Contains a password.
    broker_url: str = field(repr=False)
    #: Such as http://127.0.0.1:8080; None: it has no HTTP API.
    api_url: str | None = None
    #: An API key with every scope; None: the database is not ours, so no key is made.
    api_key: str | None = field(default=None, repr=False)


def default_data_dir() -> Path:
    """Where the embedded services keep their data: /var/lib/notifier for root (Postgres drops its privileges and
    cannot read root's home), otherwise the user's data folder."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/notifier")
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "notifier"


def data_dir() -> Path:
    """`NOTIFIER_DATA_DIR`, or the default."""
    return Path(os.environ.get("NOTIFIER_DATA_DIR") or default_data_dir()).expanduser()


def is_own_file(file: int | Path) -> bool:
    """Whether this path or descriptor is a regular file of this user, not a link, that nobody else can write.

    A file that others wrote could direct secrets to their servers.
    """
    try:
        found = os.fstat(file) if isinstance(file, int) else file.lstat()
    except OSError:
        return False
    if not stat.S_ISREG(found.st_mode):
        return False
    # Windows has neither these users nor these modes.
    return not hasattr(os, "geteuid") or (found.st_uid == os.geteuid() and not found.st_mode & 0o022)


def find_running_service() -> RunningService | None:
    """The running service according to the data folder. None if there is none, it is another user's, or the file
    makes no sense. The service may have been killed since."""
    try:
        # If it is a pipe, do not wait for the other end.
        with open(data_dir() / SERVICE_FILE, encoding="utf-8", opener=_open_at_once) as file:
            if not is_own_file(file.fileno()):
                return None
            found = json.load(file)
        parts = found["broker_url"], found["api_url"], found["api_key"]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    broker_url, *others = parts
    if not isinstance(broker_url, str) or not all(part is None or isinstance(part, str) for part in others):
        return None
    return RunningService(*parts)


def _open_at_once(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0))
