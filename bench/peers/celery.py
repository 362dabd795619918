"""Both Celery peers as subjects: their workers, their table, their backlog."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import amqp
import psycopg
from celery import Celery

from bench import mails
from bench.service import wait_for
from bench.subjects import Ground, Task, freeze
from notifier.dev.embedded.rabbitmq import amqp_connection
from notifier.dev.processes import ServerProcess
from notifier.domain.errors import ServiceUnavailable

_START_SECONDS = 60.0
_CREATE = "import {module} as tasks; tasks.Mail.metadata.create_all(tasks.engine)"


@dataclass(frozen=True, slots=True)
class Tuning:
    """Arguments of `celery worker`, and the number of workers."""

    workers: int
    pool: str
    concurrency: int


class CeleryRun:
    """See `bench.subjects.Run`."""

    def __init__(
        self, name: str, processes: Mapping[str, ServerProcess], database: psycopg.Connection, broker_url: str
    ) -> None:
        self._name = name
        self._processes = processes
        self._database = database
        self._broker_url = broker_url
        self._first = 0

    def hold(self) -> None:
        """Freeze the workers."""
        freeze(self.pids().values(), frozen=True)

    def fill(self, count: int) -> None:
        """Queue one persistent task for each mail."""
        found = self._database.execute("SELECT coalesce(max(id), 0) FROM mails").fetchone()
        self._first = int(found[0]) if found else 0
        app = Celery(self._name, broker=self._broker_url, set_as_current=False)
        with app.connection_for_write() as connection, app.amqp.Producer(connection) as producer:
            for number in range(count):
                arguments = [mails.recipient(number), mails.TEMPLATE, mails.context(number)]
                app.send_task("send_mail", arguments, queue=self._name, producer=producer, ignore_result=True)

    def release(self) -> None:
        """Let the workers go on."""
        freeze(self.pids().values(), frozen=False)

    def recorded(self) -> int:
        """See `Run.recorded`."""
        for name, process in self._processes.items():
            if not process.is_running():
                raise ServiceUnavailable(f"{name} ended by itself. {process.last_words()}")
        found = self._database.execute(
            "SELECT count(*) FROM mails WHERE id > %s AND status = 'sent'", [self._first]
        ).fetchone()
        return int(found[0]) if found else 0

    def pids(self) -> Mapping[str, int]:
        """See `Run.pids`."""
        return {name: process.pid for name, process in self._processes.items() if process.pid is not None}


class CeleryPeer:
    """See `bench.subjects.Subject`."""

    def __init__(self, name: str, tuning: Tuning, slow: Tuning) -> None:
        self.name = name
        self._module = f"bench.peers.{name}.tasks"
        self._tuning = tuning
        self._slow = slow

    def absent(self, ground: Ground) -> str:
        """Never absent: the service itself uses Celery."""
        return ""

    @contextlib.contextmanager
    def running(self, ground: Ground, task: Task) -> Iterator[CeleryRun]:
        """See `Subject.running`."""
        tuning = self._slow if task.sized_for_slow_server else self._tuning
        with contextlib.ExitStack() as stack:
            broker_url = ground.rabbitmq.make_vhost()
            stack.callback(ground.rabbitmq.drop_vhost, broker_url)
            database_url = ground.databases.make_empty()
            stack.callback(ground.databases.drop, database_url)
            environment = dict(os.environ) | {
                "BENCH_BROKER_URL": broker_url,
                "BENCH_DATABASE_URL": database_url.replace("postgresql://", "postgresql+psycopg://", 1),
                "BENCH_SMTP_PORT": str(task.smtp_port),
                "BENCH_THREADS": str(tuning.concurrency),
            }
            create = [sys.executable, "-c", _CREATE.format(module=self._module)]
            subprocess.run(create, env=environment, cwd=mails.HERE.parent, check=True, timeout=_START_SECONDS)
            processes = self._start(stack, ground.folder / self.name, tuning, environment)
            database = stack.enter_context(psycopg.connect(database_url, autocommit=True))
            run = CeleryRun(self.name, processes, database, broker_url)
            stack.callback(run.release)
            yield run

    def _start(
        self, stack: contextlib.ExitStack, folder: Path, tuning: Tuning, environment: Mapping[str, str]
    ) -> dict[str, ServerProcess]:
        folder.mkdir(exist_ok=True)
        processes = {}
        for number in range(1, tuning.workers + 1):
            name = f"worker-{number}"
            log = folder / f"{name}.log"
            log.unlink(missing_ok=True)
            process = ServerProcess(
                name,
                self._command(name, tuning),
                log=log,
                stop_plan=[(signal.SIGTERM, 40.0)],
                cwd=mails.HERE.parent,
                env=environment,
            )
            stack.callback(process.stop)
            process.start()
            processes[name] = process
        broker_url = environment["BENCH_BROKER_URL"]
        if not wait_for(lambda: self._consumers(broker_url) >= tuning.workers, _START_SECONDS):
            raise ServiceUnavailable(f"{self.name} did not start. {next(iter(processes.values())).last_words()}")
        return processes

    def _consumers(self, broker_url: str) -> int:
        """The number of workers that read the queue; at this log level they do not log when they are ready."""
        with amqp_connection(broker_url) as connection:
            try:
                return int(connection.channel().queue_declare(self.name, passive=True).consumer_count)
            except amqp.NotFound:
                return 0

    def _command(self, name: str, tuning: Tuning) -> Sequence[str]:
        return [
            *(sys.executable, "-m", "celery", "-A", self._module, "worker"),
            *("--hostname", f"{name}@%h", "--pool", tuning.pool, "--concurrency", str(tuning.concurrency)),
            *("--loglevel", "warning", "--without-gossip", "--without-mingle"),
        ]
