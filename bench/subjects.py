"""The interface of everything that is measured, for the service and all its peers.

Every measurement works the same way. Processes start and send a few mails, so that nothing is cold. Then whatever
takes work is frozen, a backlog is put in front of it, and it is released at the same moment as the clock starts.
The clock stops when the last mail of the backlog is accepted by the mail server and recorded in PostgreSQL.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import psutil

from bench.postfix import Absent, Postfix
from bench.servers import Postgres
from tests.provisioning.databases import Databases
from tests.provisioning.rabbitmq import PrivateRabbitmq


@dataclass(frozen=True, slots=True)
class Ground:
    """The servers that all subjects share."""

    folder: Path
    postgres: Postgres
    rabbitmq: PrivateRabbitmq
    #: With the service's schema; `make_empty` is for the peers.
    databases: Databases
    postfix: Postfix | Absent


@dataclass(frozen=True, slots=True)
class Task:
    """What a subject has to do."""

    smtp_port: int
    #: How long the server takes for each mail.
    delay_seconds: float = 0.0
    #: Give it as many connections as it needs for a server that takes 100 ms for each mail.
    sized_for_slow_server: bool = False


class Run(Protocol):
    """A subject whose processes are running."""

    def hold(self) -> None:
        """From here on it takes no work."""

    def fill(self, count: int) -> None:
        """Give it a backlog of this many mails. `recorded` counts these from now on."""

    def release(self) -> None:
        """Let it take work."""

    def recorded(self) -> int:
        """Mails of the last backlog that its own database calls sent."""

    def pids(self) -> Mapping[str, int]:
        """Name → process id of its processes; their children count with them."""


class Subject(Protocol):
    """The service, or one of its peers."""

    name: str

    def absent(self, ground: Ground) -> str:
        """Why it cannot be measured here; "" if it can."""

    def running(self, ground: Ground, task: Task) -> AbstractContextManager[Run]:
        """Start it with its own database and virtual host; end it with the block."""


def freeze(pids: Iterable[int], *, frozen: bool) -> None:
    """Send SIGSTOP or SIGCONT to these processes and their children."""
    number = signal.SIGSTOP if frozen else signal.SIGCONT
    for pid in pids:
        with contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError):
            family = [pid, *(child.pid for child in psutil.Process(pid).children(recursive=True))]
            for member in family:
                os.kill(member, number)
