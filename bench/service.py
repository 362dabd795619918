"""notifier as it is measured: real processes, started as `notifier up` and production start them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any
from uuid import UUID

import amqp
import psycopg

from bench import mails
from bench.subjects import Ground, Task, freeze
from notifier.broker import topology
from notifier.dev.embedded.rabbitmq import amqp_connection
from notifier.dev.processes import ServerProcess
from notifier.domain.errors import ServiceUnavailable
from notifier.domain.message import new_id
from notifier.domain.statuses import Channel, Lane

#: One for each core of the machine for which the targets are set; `bench.scaling` measures 1, 2 and 4.
WORKERS = 2
#: NOTIFIER_WORKER_CALLS for a slow server; belongs with `max_connections` in notifier-slow.toml.
SLOW_CALLS = 200

#: Part of the service → how the names of its processes begin.
_PARTS: Mapping[str, tuple[str, ...]] = {
    "workers": ("worker", "beat"),
    "postgresql": ("(postgres)",),
    "intake": ("intake",),
    "mail_server": ("(mail server)",),
    "rabbitmq": ("(rabbitmq)",),
}
_READY = {"intake": b"intake.reading", "worker": b" ready.", "beat": b"beat.start"}
_READY_SECONDS = 60.0
_GRACE_SECONDS = 60.0
#: Maximum messages without the broker's confirmation.
_CONFIRM_WINDOW = 1000
_CONFIRM_SECONDS = 60.0


class Service:
    """The processes of the service, each with a log file below `folder`."""

    def __init__(self, environment: Mapping[str, str], folder: Path, workers: int = WORKERS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        programs: dict[str, Sequence[str]] = {"intake": ("intake",), "beat": ("beat",)}
        programs["worker-urgent"] = ("worker", "--lanes", "urgent", "--name", "urgent@%h")
        for number in range(1, workers + 1):
            name = f"normal-{number}@%h"
            programs[f"worker-normal-{number}"] = ("worker", "--lanes", "normal,bulk", "--name", name)
        inherited = {key: value for key, value in os.environ.items() if not key.startswith("NOTIFIER_")}
        self._logs = {name: folder / f"{name}.log" for name in programs}
        self._processes = {
            name: ServerProcess(
                name,
                [sys.executable, "-m", "notifier", *arguments],
                log=self._logs[name],
                stop_plan=[(signal.SIGTERM, _GRACE_SECONDS)],
                cwd=mails.HERE.parent,
                env={**inherited, **environment},
            )
            for name, arguments in programs.items()
        }

    def start(self) -> None:
        """Return when every program is ready for work.

        Raises:
            ServiceUnavailable: a program ended, or was not ready within a minute.
        """
        for name, process in self._processes.items():
            # Lines of an earlier program do not count.
            self._logs[name].unlink(missing_ok=True)
            process.start()
        for name, process in self._processes.items():
            word = _READY[name.partition("-")[0]]
            process.wait_until(partial(_says, self._logs[name], word), _READY_SECONDS)

    def stop(self) -> None:
        """End them. Messages left in the broker do not matter, so workers need not finish them."""
        for process in self._processes.values():
            if process.pid is not None and process.is_running():
                os.kill(process.pid, signal.SIGTERM)
        for process in self._processes.values():
            process.stop()

    def pids(self) -> dict[str, int]:
        """Program → process id."""
        return {name: process.pid for name, process in self._processes.items() if process.pid is not None}

    def check(self) -> None:
        """Raises `ServiceUnavailable` if a program ended by itself."""
        for name, process in self._processes.items():
            if not process.is_running():
                raise ServiceUnavailable(f"{name} ended by itself. {process.last_words()}")


class NotifierRun:
    """See `Run`."""

    def __init__(self, service: Service, database_url: str, broker_url: str, lane: Lane, channel: Channel) -> None:
        self._service = service
        self._broker_url = broker_url
        self._lane = lane
        self._channel = channel
        self._database = psycopg.connect(database_url, autocommit=True)
        self._first: UUID = new_id()

    def close(self) -> None:
        """Close the connection that counts."""
        self._database.close()

    def hold(self) -> None:
        """Freeze the intake, because nothing else takes messages."""
        freeze([self._service.pids()["intake"]], frozen=True)

    def fill(self, count: int) -> None:
        """Publish single JSON messages, persistent and confirmed."""
        self.mark()
        bodies = (body(self._channel, number) for number in range(count))
        publish(self._broker_url, topology.routing_key(self._channel, self._lane), bodies)

    def mark(self) -> None:
        """`recorded` counts what is made from now on."""
        self._first = new_id()
        # Ids within the same millisecond are in no order.
        time.sleep(0.002)

    @property
    def broker_url(self) -> str:
        """The URL of its virtual host."""
        return self._broker_url

    def release(self) -> None:
        """Let the intake go on."""
        freeze([self._service.pids()["intake"]], frozen=False)

    def recorded(self) -> int:
        """See `Run.recorded`."""
        self._service.check()
        found = self._database.execute(
            "SELECT count(*) FROM states WHERE id >= %s AND status = 'sent'", [self._first]
        ).fetchone()
        return int(found[0]) if found else 0

    def pids(self) -> Mapping[str, int]:
        """See `Run.pids`."""
        return self._service.pids()


class Notifier:
    """See `Subject`."""

    def __init__(
        self,
        *,
        name: str = "notifier",
        workers: int = WORKERS,
        lane: Lane = Lane.NORMAL,
        channel: Channel = Channel.EMAIL,
        database_url: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self._workers = workers
        self._lane = lane
        self._channel = channel
        #: A database to work in; None: a new one.
        self._database_url = database_url
        self._environment = environment or {}

    def absent(self, ground: Ground) -> str:
        """Never absent."""
        return ""

    @contextlib.contextmanager
    def running(self, ground: Ground, task: Task) -> Iterator[NotifierRun]:
        """See `Subject.running`."""
        with contextlib.ExitStack() as stack:
            broker_url = ground.rabbitmq.make_vhost()
            stack.callback(ground.rabbitmq.drop_vhost, broker_url)
            database_url = self._database_url
            if database_url is None:
                database_url = ground.databases.make()
                stack.callback(ground.databases.drop, database_url)
            settings = {**environment(database_url, broker_url, task), **self._environment}
            service = Service(settings, ground.folder / "notifier", self._workers)
            stack.callback(service.stop)
            service.start()
            run = NotifierRun(service, database_url, broker_url, self._lane, self._channel)
            stack.callback(run.close)
            # A frozen process cannot obey.
            stack.callback(run.release)
            yield run


def environment(database_url: str, broker_url: str, task: Task) -> dict[str, str]:
    """The settings: defaults, except addresses and, if requested, the sizes for a slow relay."""
    smtp_url = f"smtp://127.0.0.1:{task.smtp_port}?starttls=never"
    settings = {
        "NOTIFIER_DATABASE_URL": database_url,
        "NOTIFIER_BROKER_URL": broker_url,
        "NOTIFIER_TEMPLATES": str(mails.TEMPLATES),
        "NOTIFIER_CONFIG": str(mails.HERE / "notifier.toml"),
        "NOTIFIER_SMTP_URL": smtp_url,
        "NOTIFIER_LOG_FORMAT": "json",
    }
    if task.sized_for_slow_server:
        settings["NOTIFIER_CONFIG"] = str(mails.HERE / "notifier-slow.toml")
        settings["BENCH_SMTP_URL"] = smtp_url
        settings["NOTIFIER_WORKER_CALLS"] = str(SLOW_CALLS)
    return settings


def body(channel: Channel, number: int, *, label: str = "load") -> bytes:
    """One message of the contract."""
    message: dict[str, Any] = {"id": str(new_id()), "producer": "bench"}
    if channel is Channel.EMAIL:
        message |= {"to": mails.recipient(number, label=label), "template": mails.TEMPLATE}
        message["context"] = mails.context(number)
    else:
        message |= {"to": f"+1555{number % 10_000_000:07d}", "template": "code", "context": {"number": number}}
    return json.dumps(message, separators=(",", ":")).encode()


def publish(broker_url: str, routing_key: str, bodies: Iterator[bytes]) -> int:
    """Publish single messages, confirmed in windows. Returns how many."""
    with amqp_connection(broker_url) as connection:
        publisher = Publisher(connection)
        for count, one in enumerate(bodies, start=1):
            publisher.publish(routing_key, one)
            if count % _CONFIRM_WINDOW == 0:
                publisher.wait(_CONFIRM_WINDOW)
        publisher.wait(0)
        return publisher.published


class Publisher:
    """Publishes to the exchange `notify` on an open connection, as a producer in any language would."""

    def __init__(self, connection: amqp.Connection) -> None:
        self._connection = connection
        self._channel = connection.channel()
        self._channel.confirm_select()
        self._channel.events["basic_ack"].add(self._acknowledged)
        self.published = 0
        #: Delivery tags without a confirmation. Confirmations come in any order.
        self._open: set[int] = set()

    def publish(self, routing_key: str, one: bytes) -> None:
        """Send one message; `wait` waits for its confirmation."""
        message = amqp.Message(one, content_type="application/json", delivery_mode=2)
        self._channel.basic_publish(message, exchange=topology.NOTIFY.name, routing_key=routing_key)
        self.published += 1
        self._open.add(self.published)

    def wait(self, allowed: int, seconds: float = _CONFIRM_SECONDS) -> None:
        """Wait until at most `allowed` messages are unconfirmed."""
        ends_at = time.monotonic() + seconds
        while len(self._open) > allowed:
            self._connection.drain_events(timeout=max(0.001, ends_at - time.monotonic()))

    def take_confirmations(self) -> None:
        """Read the confirmations that have arrived, without waiting."""
        with contextlib.suppress(TimeoutError):
            while self._open:
                self._connection.drain_events(timeout=0)

    def _acknowledged(self, delivery_tag: int, multiple: bool) -> None:
        if multiple:
            self._open = {tag for tag in self._open if tag > delivery_tag}
        else:
            self._open.discard(delivery_tag)


def parts_of(by_process: Mapping[str, float]) -> dict[str, float]:
    """What each process used, summed by part of the service. Beat counts with the workers."""
    return {
        part: sum(spent for name, spent in by_process.items() if name.startswith(beginnings))
        for part, beginnings in _PARTS.items()
    }


def _says(log: Path, word: bytes) -> bool:
    return word in log.read_bytes()


def wait_for(condition: Callable[[], bool], seconds: float, *, pause: float = 0.05) -> bool:
    """Whether the condition became true in time."""
    ends_at = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > ends_at:
            return False
        time.sleep(pause)
    return True
