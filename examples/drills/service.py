"""What both drills need: a whole service of its own on this machine, its programs one by one, and the counts.

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
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

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
#: A step that takes longer has failed. Seconds.
PATIENCE = 120.0

_ORDER = {
    "customer_name": "Ann",
    "order_id": "1",
    "carrier": "PX",
    "items": [],
    "tracking_url": "https://t.example.com/1",
}

_CALLS = "SELECT recipient, count(*) FROM notifications n JOIN attempts ON notification_id = n.id GROUP BY 1"


class Drill:
    """`python`: of the installation that programs and commands run from."""

    def __init__(self, world: LocalWorld, folder: Path, python: str) -> None:
        self.environment = {**os.environ, **world.environment}
        self.python = python
        self.running: dict[str, subprocess.Popen[bytes]] = {}
        self.published = 0
        #: Databases that programs worked on before this one, with what they recorded there.
        self.earlier: list[str] = []
        self._world = world
        self._folder = folder

    @property
    def database_url(self) -> str:
        return self.environment["NOTIFIER_DATABASE_URL"]

    def start(self, *names: str) -> None:
        for name in names:
            with (self._folder / f"{name}.log").open("ab") as log:
                command = [self.python, "-m", "notifier", *PROGRAMS[name]]
                self.running[name] = subprocess.Popen(
                    command, env=self.environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )

    def stop(self, *names: str) -> None:
        """As systemd and Kubernetes do. A program that does not end by itself, and well, is a failure."""
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

    def command(self, *arguments: str) -> str:
        """What an operator types."""
        done = subprocess.run(
            [self.python, "-m", "notifier", *arguments],
            env=self.environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        if done.returncode:
            raise SystemExit(f"notifier {' '.join(arguments)} failed: {done.stdout}{done.stderr}")
        return done.stdout

    def publish(self, count: int) -> None:
        """To as many people, one mail each. The server refuses every second one once."""
        with Client(self.environment["NOTIFIER_BROKER_URL"], producer="drill", timeout_seconds=20) as client:
            for _ in range(count):
                client.send(
                    "order_shipped",
                    f"{('early', 'late')[self.published % 2]}{self.published}@example.com",
                    context=_ORDER,
                )
                self.published += 1

    def ask(self, statement: str, url: str | None = None) -> dict[str, int]:
        """Two columns, a text and a number."""
        with psycopg.connect(url or self.database_url, connect_timeout=5) as connection:
            return {str(key): int(count) for key, count in connection.execute(statement).fetchall()}  # type: ignore[arg-type]

    def statuses(self) -> dict[str, int]:
        return self.ask("SELECT status, count(*) FROM notifications GROUP BY status")

    def arrived(self) -> Counter[str]:
        """Recipient → mails in the mailbox."""
        assert self._world.mail is not None
        return Counter(mail.rcpt_to[0] for mail in self._world.mail.messages)

    def report(self) -> int:
        """Print what was counted; 0 if nothing was lost and nothing was sent twice without a record of it."""
        arrived, calls = self.arrived(), Counter[str]()
        for url in (self.database_url, *self.earlier):
            calls += Counter(self.ask(_CALLS, url))
        lost = self.published - len(arrived)
        twice = sum(count > 1 for count in arrived.values())
        unrecorded = sum(count > calls[to] for to, count in arrived.items())
        print(f"published {self.published}, in the mailbox {len(arrived)}, of these twice {twice}")
        print(
            f"in the record: {', '.join(f'{count} {status}' for status, count in sorted(self.statuses().items()))}"
        )
        print(f"lost {lost}, sent more often than recorded {unrecorded}")
        return int(lost > 0 or unrecorded > 0)


def wait(what: str, is_done: Callable[[], bool]) -> None:
    """Until it is. Ends the drill if that takes too long."""
    ends_at = time.monotonic() + PATIENCE
    while not is_done():
        if time.monotonic() > ends_at:
            raise SystemExit(f"after {PATIENCE:g} s still not: {what}")
        time.sleep(0.2)


@contextmanager
def running_drill(python: str = sys.executable) -> Iterator[Drill]:
    """A new service, with its tables and without a running program; all is stopped and removed at the end."""
    for name in [name for name in os.environ if name.startswith("NOTIFIER_")]:
        del os.environ[name]
    with ExitStack() as stack:
        folder = make_temporary_folder()
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        os.environ["NOTIFIER_DATA_DIR"] = str(folder)
        rules = [Rule("late*", reply="451 4.3.0 try later", times=1)]
        world = stack.enter_context(local_world(load_settings(use_running=False), folder, mail_rules=rules))
        drill = Drill(world, folder, python)
        stack.callback(drill.kill_all)
        drill.command("db", "upgrade")
        yield drill
