"""The service that `notifier up` of this user runs: where commands and producers find it without any setting.

Producers import this, so it imports nothing but the standard library.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, field
from pathlib import Path

#: In the data folder while `notifier up` runs there: where its servers are, for other commands of the same user.
RUNNING_FILE = "running.env"

#: Beside it: what a producer needs, a `RunningService` as JSON. Only its owner can read it.
SERVICE_FILE = "service.json"


@dataclass(frozen=True, slots=True)
class RunningService:
    """What a producer needs to use it."""

    #: Has a password.
    broker_url: str = field(repr=False)
    #: Such as http://127.0.0.1:8080; None: it has no HTTP API.
    api_url: str | None = None
    #: A key of the HTTP API that may do everything; None: the database is not ours to make keys for.
    api_key: str | None = field(default=None, repr=False)


def default_data_dir() -> Path:
    """Where the embedded services keep their data: /var/lib/notifier for root (Postgres drops its rights and
    cannot read root's home), otherwise the user's data folder."""
    if hasattr(os, "geteuid") and os.geteuid() == 0:
        return Path("/var/lib/notifier")
    base = os.environ.get("XDG_DATA_HOME") or "~/.local/share"
    return Path(base).expanduser() / "notifier"


def data_dir() -> Path:
    """`NOTIFIER_DATA_DIR`, or the default."""
    return Path(os.environ.get("NOTIFIER_DATA_DIR") or default_data_dir()).expanduser()


def find_running_service() -> RunningService | None:
    """The one in the data folder; None if there is none, or another user's. It may have been killed since."""
    try:
        found = json.loads((data_dir() / SERVICE_FILE).read_text("utf-8"))
        return RunningService(found["broker_url"], found["api_url"], found["api_key"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
