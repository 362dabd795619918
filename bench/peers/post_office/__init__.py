"""django-post_office 3.12 as a subject: a table as the queue, and a command that empties it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import psutil
import psycopg

from bench import mails
from bench.servers import ended
from bench.subjects import Ground, Task
from notifier.domain.errors import ServiceUnavailable

_SENT = 0  # post_office.models.STATUS.sent
_START_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Tuning:
    """Number of threads, and of mails in one round. Both tunings have two processes."""

    processes: int
    threads: int
    batch: int


class PostOfficeRun:
    """See `bench.subjects.Run`."""

    def __init__(
        self, process: subprocess.Popen[str], database: psycopg.Connection, tuning: Tuning, log: Path
    ) -> None:
        self._process = process
        self._database = database
        self._tuning = tuning
        self._log = log
        self._first = 0
        self._sends = False

    def hold(self) -> None:
        """Does nothing: between two runs of its command no mail is taken."""
        if self._sends:
            self._sends = False
            self.read("done")

    def fill(self, count: int) -> None:
        """Queue this many mails."""
        found = self._database.execute("SELECT coalesce(max(id), 0) FROM post_office_email").fetchone()
        self._first = int(found[0]) if found else 0
        self._say(f"fill {count}")
        self.read("done")

    def release(self) -> None:
        """Run its command."""
        self._sends = True
        self._say(f"send {self._tuning.processes}")

    def recorded(self) -> int:
        """See `Run.recorded`."""
        if self._process.poll() is not None:
            raise ServiceUnavailable(f"post_office ended by itself: {self._log.read_text()[-500:]}")
        found = self._database.execute(
            "SELECT count(*) FROM post_office_email WHERE id > %s AND status = %s", [self._first, _SENT]
        ).fetchone()
        return int(found[0]) if found else 0

    def pids(self) -> Mapping[str, int]:
        """See `Run.pids`."""
        return {"send_queued_mail": self._process.pid}

    def _say(self, text: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{text}\n")
        self._process.stdin.flush()

    def read(self, word: str) -> None:
        """Wait for the answer."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith(word):
                return
        raise ServiceUnavailable(f"post_office ended by itself: {self._log.read_text()[-500:]}")


class PostOffice:
    """See `bench.subjects.Subject`."""

    name = "post_office"

    def __init__(self, tuning: Tuning, slow: Tuning) -> None:
        self._tuning = tuning
        self._slow = slow

    def absent(self, ground: Ground) -> str:
        """See `Subject.absent`."""
        missing = [name for name in ("django", "post_office") if importlib.util.find_spec(name) is None]
        return f"not installed: {', '.join(missing)} (requirements/bench.txt)" if missing else ""

    @contextlib.contextmanager
    def running(self, ground: Ground, task: Task) -> Iterator[PostOfficeRun]:
        """See `Subject.running`."""
        tuning = self._slow if task.sized_for_slow_server else self._tuning
        with contextlib.ExitStack() as stack:
            database_url = ground.databases.make_empty()
            stack.callback(ground.databases.drop, database_url)
            folder = ground.folder / self.name
            folder.mkdir(exist_ok=True)
            log = folder / "run.log"
            process = subprocess.Popen(
                [sys.executable, "-m", "bench.peers.post_office.run"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stack.enter_context(log.open("w")),
                text=True,
                cwd=mails.HERE.parent,
                env=_environment(database_url, task, tuning, folder),
                start_new_session=True,
            )
            stack.callback(_end, process)
            database = stack.enter_context(psycopg.connect(database_url, autocommit=True))
            run = PostOfficeRun(process, database, tuning, log)
            run.read("ready")
            yield run


def _environment(database_url: str, task: Task, tuning: Tuning, folder: Path) -> dict[str, str]:
    parts = urlsplit(database_url)
    (host,) = parse_qs(parts.query)["host"]
    return dict(os.environ) | {
        "BENCH_DATABASE": parts.path[1:],
        "BENCH_USER": parts.username or "",
        "BENCH_HOST": host,
        "BENCH_SMTP_PORT": str(task.smtp_port),
        "BENCH_THREADS": str(tuning.threads),
        "BENCH_BATCH": str(tuning.batch),
        "BENCH_LOCK": str(folder / "lock"),
    }


def _end(process: subprocess.Popen[str]) -> None:
    """End it with the processes that it has forked, if it was in the middle of a round."""
    with contextlib.suppress(psutil.NoSuchProcess):
        for child in psutil.Process(process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
    for pipe in (process.stdin, process.stdout):
        if pipe:
            with contextlib.suppress(BrokenPipeError):
                pipe.close()
    ended(process)
