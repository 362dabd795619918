"""What every drill needs: a whole service of its own on this machine, control over each program, and the counts.

Its PostgreSQL, Valkey and mail server are those of `notifier demo`. Nothing leaves this machine, and no other
installation is touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread

import psycopg

from notifier import Client
from notifier.config.settings import load_settings
from notifier.dev.local import LocalWorld, local_world
from notifier.dev.machine import make_temporary_folder
from notifier.dev.smtp_faults import Rule

PROGRAMS = {
    "intake": ["intake"],
    "beat": ["beat"],
    "worker-urgent": ["worker", "--lanes", "urgent"],
    "worker": ["worker", "--no-callbacks", "--lanes", "normal,bulk"],
}
#: A drill starts it with `NOTIFIER_API_PORT`.
API = {"api": ["api"]}
#: A step that takes longer has failed, even on a busy machine. Seconds.
PATIENCE = 600.0
#: For programs of a drill that interrupts calls: the calls are looked up after this, not after two minutes.
SHORT_LEASE = {"NOTIFIER_LEASE_SECONDS": "30", "NOTIFIER_CALL_DEADLINE_SECONDS": "10"}
#: Pause between two publications of the load, five messages each. Seconds.
_PAUSE = 0.2
#: The load waits while this many mails are on their way, so that a busy machine need not work for minutes
#: afterwards.
_BACKLOG = 200

_ORDER = {
    "customer_name": "Ann",
    "order_id": "1",
    "carrier": "PX",
    "items": [],
    "tracking_url": "https://t.example.com/1",
}

_CALLS = "SELECT recipient, count(*) FROM notifications n JOIN attempts ON notification_id = n.id GROUP BY 1"


@dataclass(frozen=True, slots=True)
class Counts:
    """What a drill counted. `lost`: neither in the mailbox nor still on its way."""

    published: int
    arrived: int
    twice: int
    lost: int
    #: Mails that arrived more often than the record has calls.
    unrecorded: int
    #: How many of these the drill is meant to show.
    shown: int = 0

    @property
    def is_good(self) -> bool:
        return not self.lost and self.unrecorded == self.shown


class Drill:
    """A running drill. `python`: that of the installation whose programs and commands are used."""

    def __init__(self, world: LocalWorld, folder: Path, python: str) -> None:
        self.environment = {**os.environ, **world.environment}
        self.python = python
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.published = 0
        #: Databases on which programs worked before this one, with what they recorded there.
        self.earlier: list[str] = []
        self._world = world
        self._folder = folder

        #: Where the drill itself reads the record, if that is not where the programs do.
        self.record_url: str | None = None

    @property
    def database_url(self) -> str:
        return self.environment["NOTIFIER_DATABASE_URL"]

    def start(self, *names: str) -> None:
        for name in names:
            with (self._folder / f"{name}.log").open("ab") as log:
                command = [self.python, "-m", "notifier", *{**PROGRAMS, **API}[name]]
                self.running[name] = subprocess.Popen(
                    command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )

    def stop(self, *names: str) -> None:
        """Stop programs as systemd and Kubernetes do. It is a failure if a program does not end in order by
        itself."""
        stopped = {name: self.running.pop(name) for name in names}
        for process in stopped.values():
            process.terminate()
        for name, process in stopped.items():
            if process.wait(PATIENCE):
                raise SystemExit(f"{name} ended with exit code {process.returncode}")

    def kill_all(self) -> None:
        for process in self.running.values():
            process.kill()
            process.wait()

    def command(self, *arguments: str, may_fail: bool = False) -> str:
        """Run a command as an operator would. Returns its output."""
        done = subprocess.run(
            [self.python, "-m", "notifier", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        if done.returncode and not may_fail:
            raise SystemExit(f"notifier {' '.join(arguments)} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def log(self, name: str) -> str:
        """The log of a program."""
        return (self._folder / f"{name}.log").read_text("utf-8", errors="replace")

    def publish(self, count: int) -> None:
        """Publish one mail each to this many people. The server refuses every second mail once."""
        first, self.published = self.published, self.published + count
        self._publish(range(first, self.published))

    def publish_again(self, first: int) -> None:
        """Publish again from this message on, with the same keys, as a producer does with its outbox."""
        self._publish(range(first, self.published))

    def _publish(self, numbers: range) -> None:
        with Client(self.environment["NOTIFIER_BROKER_URL"], producer="drill", timeout_seconds=20) as client:
            for number in numbers:
                to = f"{('early', 'late')[number % 2]}{number}@example.com"
                client.send("order_shipped", to, context=_ORDER, idempotency_key=f"order-{number}")

    def ask(self, statement: str, url: str | None = None) -> dict[str, int]:
        """The result of a statement with two columns, a text and a number."""
        with psycopg.connect(url or self.record_url or self.database_url, connect_timeout=5) as connection:
            return {str(key): int(count) for key, count in connection.execute(statement).fetchall()}  # type: ignore[arg-type]

    def statuses(self) -> dict[str, int]:
        return self.ask("SELECT status, count(*) FROM notifications GROUP BY status")

    def arrived(self) -> Counter[str]:
        """Recipient → number of mails in the mailbox."""
        assert self._world.mail is not None
        return Counter(mail.rcpt_to[0] for mail in self._world.mail.messages)

    @contextmanager
    def load(self) -> Iterator[None]:
        """Messages keep coming while the block lasts. Fails if the broker did not accept one."""
        stop, failed = Event(), list[Exception]()

        def publish() -> None:
            try:
                while not stop.wait(_PAUSE):
                    if self.published - len(self.arrived()) < _BACKLOG:
                        self.publish(5)
            except Exception as error:
                failed.append(error)

        load = Thread(target=publish)
        load.start()
        try:
            yield
        finally:
            stop.set()
            load.join()
        if failed:
            raise SystemExit(f"the load stopped: {failed[0]}")

    def wait_for_more(self, what: str, count: int = 20) -> None:
        """Wait until this many more mails have arrived."""
        before = len(self.arrived())
        wait(what, lambda: len(self.arrived()) >= before + count)

    def decide(self) -> None:
        """Decide about held notifications as an operator would: what is in the relay's log is sent, the rest is
        released."""
        ids = self.ask(
            "SELECT id::text || ' ' || recipient, 0 FROM notifications "
            "WHERE status = 'unknown' AND reason = 'restored'"
        )
        arrived = self.arrived()
        has = [key.split()[0] for key in ids if key.split()[1] in arrived]
        if has:
            self.command("resolve", *has, "--sent", "--why", "in the relay's log")
        if len(has) < len(ids):
            self.command("db", "after-restore", "--release", "--all", "--why", "not in the relay's log", "--yes")

    def count(self, shown: int = 0) -> Counts:
        """Count, and print the counts. `shown`: mails that this drill is meant to send without a record."""
        arrived, calls = self.arrived(), Counter[str]()
        for url in (self.record_url or self.database_url, *self.earlier):
            calls += Counter(self.ask(_CALLS, url))
        counts = Counts(
            published=self.published,
            arrived=len(arrived),
            twice=sum(count > 1 for count in arrived.values()),
            lost=self.published - len(arrived),
            unrecorded=sum(count > calls[to] for to, count in arrived.items()),
            shown=shown,
        )
        record = ", ".join(f"{count} {status}" for status, count in sorted(self.statuses().items()))
        say(f"published {counts.published}, in the mailbox {counts.arrived}, of these twice {counts.twice}")
        say(f"in the record: {record}")
        say(f"lost {counts.lost}, sent more often than recorded {counts.unrecorded}")
        return counts


def say(text: str) -> None:
    print(text, flush=True)


def wait(what: str, is_done: Callable[[], bool]) -> None:
    """Wait until it is done. Ends the drill if that takes too long."""
    ends_at = time.monotonic() + PATIENCE
    while not is_done():
        if time.monotonic() > ends_at:
            raise SystemExit(f"after {PATIENCE:g} s still not: {what}")
        time.sleep(0.2)


@contextmanager
def running_drill(
    python: str = sys.executable, folder: Path | None = None, environment: Mapping[str, str] | None = None
) -> Iterator[Drill]:
    """A new service with its tables and no running program. At the end everything is stopped and removed.

    `environment`: `NOTIFIER_*` variables for its programs, for example for an existing database.
    """
    for name in [name for name in os.environ if name.startswith("NOTIFIER_")]:
        del os.environ[name]
    with ExitStack() as stack:
        folder = folder or stack.enter_context(temporary_folder())
        os.environ |= {
            "NOTIFIER_DATA_DIR": str(folder),
            "NOTIFIER_CONFIG": str(Path(__file__).with_name("notifier.toml")),
            **(environment or {}),
        }
        rules = [Rule("late*", reply="451 4.3.0 try later", times=1)]
        world = stack.enter_context(local_world(load_settings(use_running=False), folder, mail_rules=rules))
        drill = Drill(world, folder, python)
        stack.callback(drill.kill_all)
        drill.command("db", "upgrade")
        yield drill


@contextmanager
def temporary_folder() -> Iterator[Path]:
    folder = make_temporary_folder()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
