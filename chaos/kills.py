"""A thousand kills of working workers: with the policy `hold`, no message reaches its provider twice.

    python -m chaos.kills [--kills 1000] [--seed N]

Four workers at a time deliver text messages under a steady load. Each is the program `notifier worker` on RabbitMQ
and PostgreSQL; an intake and a Beat run beside them. Once it is ready, a worker works for a random time and is
killed with SIGKILL: half of the workers at that moment, the others when they next reach one of the marked points
of a provider call (`chaos.taps`). Another worker takes its place at once. Nobody touches the record in the
meantime: notifications of dead workers come back when their lease ends, by the sweep, as in production.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import secrets
import shutil
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from threading import Event, Lock, Thread
from typing import Any

import psycopg

from chaos.fleet import ports_of
from chaos.load import Load, Mix
from chaos.nursery import Nursery
from chaos.providers import SMS_LATENCY, RecordedFaults
from chaos.proxy import Link, Proxy, Strike, to_port
from chaos.reconcile import Books, reconcile
from chaos.taps import Point, is_at, is_passed_on
from notifier.dev.machine import make_temporary_folder
from notifier.dev.processes import ServerProcess
from notifier.dev.server_thread import running
from notifier.dev.twilio_server import ACCOUNT_SID, AUTH_TOKEN, TwilioServer
from tests.provisioning.databases import Databases
from tests.provisioning.services import MissingService, Services

_HERE = Path(__file__).parent
_LABEL = "kills"
_AT_RANDOM = "at random"
#: Workers at a time.
WORKERS = 4
#: Maximum time for which a worker works before it is killed. A call takes 0.08 s. Seconds.
_LIFE_SECONDS = 0.8
#: A worker that reaches no marked point within this is killed where it is. Seconds.
_POINT_SECONDS = 3.0
#: More than such short-lived workers can deliver, so that each finds work. The load pauses while this many wait.
_MIX, _WAITING = Mix(mail=0, sms=1, rate=60), 60
#: Concurrent tasks in one worker: few, so that a dying worker does not hold all the work.
_THREADS = 2
#: Time from the last kill until everything is at rest: a lease, a late answer and a look-up, three times over.
#: Seconds.
_REST_SECONDS = 300.0
_READY_SECONDS = 30.0
#: What runs beside the workers, and what it logs when it is ready.
_BESIDE = {"intake": b"intake.reading", "beat": b"beat.start"}

#: Accepted, and never taken by a worker. Those that came back from a dead worker may have no task for a while.
_NEW = "SELECT count(*) FROM notifications WHERE status = 'queued' AND reason IS NULL"
_TO_LOOK_UP = "SELECT count(*) FROM notifications WHERE status = 'unknown' AND due_at IS NOT NULL"


@dataclass(eq=False, slots=True)
class _Life:
    pid: int
    #: The point at which it will be killed; None: not at a marked point, or not yet.
    point: Point | None = None
    #: Provider calls that it began, and how many of them have no answer yet.
    begun: int = 0
    under_way: int = 0
    #: Where it was killed.
    ended: str = ""
    is_dead: Event = field(default_factory=Event)
    _lock: Lock = field(default_factory=Lock)

    def kill(self, where: str) -> None:
        """Send SIGKILL; the first call counts."""
        with self._lock:
            if not self.ended:
                self.ended = where
                os.kill(self.pid, signal.SIGKILL)
                self.is_dead.set()


class _Watch:
    """A tap for the link to the provider: counts each worker's calls, and kills at marked points."""

    def __init__(self) -> None:
        self._lives: dict[int, _Life] = {}
        self._found: dict[Link, _Life] = {}

    def add(self, life: _Life) -> None:
        self._lives[life.pid] = life

    def remove(self, life: _Life) -> None:
        del self._lives[life.pid]

    def __call__(self, link: Link, from_client: bool, data: bytes) -> Strike | None:
        life = self._found.get(link) or self._find(link)
        if life is None:
            return None
        if is_at(Point.BEFORE_CALL, from_client, data):
            life.begun += 1
            life.under_way += 1
        elif is_at(Point.AFTER_ANSWER, from_client, data):
            life.under_way -= 1
        point = life.point
        if point is None or not is_at(point, from_client, data):
            return None
        return Strike(lambda: life.kill(point), pass_on=is_passed_on(point))

    def _find(self, link: Link) -> _Life | None:
        for life in list(self._lives.values()):
            if link.client_port in ports_of(life.pid):
                self._found[link] = life
                return life
        return None


class _Tally:
    def __init__(self, wanted: int) -> None:
        self._wanted = wanted
        self._lock = Lock()
        self._begun = 0
        #: Where → number of kills.
        self.kills: Counter[str] = Counter()
        #: Kills of workers that had begun a call, and of those with a call in progress.
        self.after_a_call = self.during_a_call = 0
        #: Last log lines of workers that ended before they were killed.
        self.crashes: list[str] = []

    def begin(self) -> bool:
        with self._lock:
            self._begun += 1
            return self._begun <= self._wanted

    def stop(self) -> None:
        self._wanted = 0

    def add(self, life: _Life) -> None:
        with self._lock:
            self.kills[life.ended] += 1
            self.after_a_call += life.begun > 0
            self.during_a_call += life.under_way > 0


class Kills:
    """Workers that come and go on one service."""

    mix = _MIX

    def __init__(self, stack: ExitStack, folder: Path, seed: int) -> None:
        self._folder, self._seed = folder, seed
        services = Services(_say)
        stack.callback(services.stop)
        databases = Databases(services.postgres_url())
        stack.callback(databases.close)
        self._database_url = databases.make()
        stack.callback(databases.drop, self._database_url)
        self._broker_url = services.amqp_server().make_vhost()
        self._twilio = TwilioServer()
        self._faults = self._twilio.faults = RecordedFaults(SMS_LATENCY)
        twilio = stack.enter_context(running(self._twilio))
        link = stack.enter_context(running(Proxy(to_port(lambda: twilio.port))))
        self._watch = link.tap = _Watch()
        environment = self._environment(link.port)
        self._nursery = Nursery(environment)
        stack.callback(self._nursery.stop)
        for name, ready in _BESIDE.items():
            self._start(stack, name, ready, environment)

    def _start(self, stack: ExitStack, name: str, ready: bytes, environment: dict[str, str]) -> None:
        process = ServerProcess(
            name,
            [sys.executable, "-m", "notifier", name],
            log=self._log(name),
            stop_plan=[(signal.SIGTERM, 20.0)],
            cwd=_HERE.parent,
            env=environment,
        )
        stack.callback(process.stop)
        process.start()
        process.wait_until(lambda: ready in self._log(name).read_bytes(), _READY_SECONDS)

    def _environment(self, twilio_port: int) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("NOTIFIER_")},
            "NOTIFIER_DATABASE_URL": self._database_url,
            "NOTIFIER_BROKER_URL": self._broker_url,
            "NOTIFIER_TWILIO_ACCOUNT_SID": ACCOUNT_SID,
            "NOTIFIER_TWILIO_AUTH_TOKEN": AUTH_TOKEN,
            "NOTIFIER_TWILIO_API_BASE": f"http://127.0.0.1:{twilio_port}",
            "NOTIFIER_CONFIG": str(_HERE / "notifier.toml"),
            "NOTIFIER_TEMPLATES": str(_HERE / "templates"),
            "NOTIFIER_DATA_DIR": str(self._folder),
            "NOTIFIER_WORKER_THREADS": str(_THREADS),
            "NOTIFIER_LEASE_SECONDS": "20",
            "NOTIFIER_CALL_DEADLINE_SECONDS": "5",
        }

    def run(self, wanted: int) -> dict[str, Any]:
        """Kill this many workers. Returns what the books say in the end."""
        begun = time.monotonic()
        tally = _Tally(wanted)
        load = Load(self._broker_url, _LABEL, self.mix, self._seed)
        load.start()
        try:
            self._kill_all(tally, load)
        finally:
            load.stop()
            load.join()
        kill_seconds = time.monotonic() - begun
        _say(f"{sum(tally.kills.values())} kills in {kill_seconds:.0f} s; waiting for rest")
        with self._living("last"):
            left = self._rest(load)
        result = self._result(load, tally)
        return result | {"left": left, "kill_seconds": round(kill_seconds), "seconds": _since(begun)}

    def _kill_all(self, tally: _Tally, load: Load) -> None:
        slots = [Thread(target=self._kill_on, args=(f"slot-{n}", tally)) for n in range(WORKERS)]
        for slot in slots:
            slot.start()
        try:
            while any(slot.is_alive() for slot in slots):
                load.is_held = self._scalar(_NEW) > _WAITING
                time.sleep(0.2)
        finally:
            # So that no worker outlives this, even after Ctrl-C.
            tally.stop()
            for slot in slots:
                slot.join()

    def _kill_on(self, name: str, tally: _Tally) -> None:
        """Run and kill one worker after the other."""
        rng = Random(f"{self._seed}-{name}")
        while tally.begin():
            with self._living(name) as life:
                if not self._wait_until_ready(name, life):
                    tally.crashes.append(self._log(name).read_text("utf-8", "replace")[-500:])
                    continue
                is_marked = rng.random() < 0.5
                life.is_dead.wait(rng.uniform(0, _LIFE_SECONDS))
                if is_marked:
                    life.point = rng.choice(list(Point))
                    life.is_dead.wait(_POINT_SECONDS)
                life.kill(_AT_RANDOM)
            tally.add(life)
            done = sum(tally.kills.values())
            if done % 100 == 0:
                _say(f"{done} kills, {tally.after_a_call} after a call had begun")

    @contextmanager
    def _living(self, name: str) -> Iterator[_Life]:
        arguments = ("worker", "--channels", "sms", "--lanes", "urgent", "--name", f"{name}@%h")
        life = _Life(self._nursery.start(self._log(name), arguments))
        self._watch.add(life)
        try:
            yield life
        finally:
            life.kill("unasked")
            self._watch.remove(life)
            self._nursery.bury(life.pid)

    def _log(self, name: str) -> Path:
        return self._folder / f"{name}.log"

    def _wait_until_ready(self, name: str, life: _Life) -> bool:
        ends_at = time.monotonic() + _READY_SECONDS
        while time.monotonic() < ends_at:
            if b" ready." in self._log(name).read_bytes():
                return True
            time.sleep(0.01)
        return False

    def _rest(self, load: Load) -> int:
        """Wait until every message has ended, or is held after its look-up. Returns how many have not."""
        books, confirmed = (
            Books(self._database_url),
            [message.id for message in load.messages if message.confirmed],
        )
        ends_at = time.monotonic() + _REST_SECONDS
        while True:
            left = books.unsettled(_LABEL, confirmed, may_be_gone=False)
            left += self._scalar(_TO_LOOK_UP)
            if not left or time.monotonic() > ends_at:
                return left
            time.sleep(0.5)

    def _result(self, load: Load, tally: _Tally) -> dict[str, Any]:
        books = Books(self._database_url)
        calls = self._faults.calls
        taken = Counter(sms.to for sms in self._twilio.messages)
        rows = books.rows(_LABEL)
        found = reconcile(load.messages, rows, books.rejected(), calls, taken, {}, may_be_gone=False)
        unknown = [row for row in rows.values() if row.status == "unknown"]
        return {
            "kills": sum(tally.kills.values()),
            "where": dict(sorted(tally.kills.items())),
            "after_a_call_began": tally.after_a_call,
            "with_a_call_under_way": tally.during_a_call,
            "claims_left_by_the_dead": self._scalar("SELECT coalesce(sum(crash_count), 0) FROM notifications"),
            "seed": self._seed,
            "messages": found.messages,
            "lost": found.lost,
            "statuses": found.statuses,
            "provider_calls": found.provider_calls,
            "most_calls_of_one_message": max(calls.values(), default=0),
            "unknowns": found.unknowns,
            "held": len(unknown),
            "called_without_attempt": found.unrecorded_calls,
            "sent_without_call": sum(
                rows[message.id].status == "sent" and not taken[message.to]
                for message in load.messages
                if message.id in rows
            ),
            "unlawful": found.unlawful,
            "crashes": tally.crashes,
        }

    def _scalar(self, query: str) -> int:
        with psycopg.connect(self._database_url) as connection:
            row = connection.execute(query.encode()).fetchone()
        return int(row[0]) if row else 0


def main() -> int:
    """Returns 0 only if no message had two calls, every call has its attempt, and nothing was lost."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos.kills", description="Kill workers at work; no held message may go out twice."
    )
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000), help="repeats a run's choices")
    parser.add_argument("--output", type=Path, metavar="FILE", default=_HERE / "kills.json")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.disable(logging.WARNING)
    folder = make_temporary_folder()
    try:
        with ExitStack() as stack:
            result = Kills(stack, folder, arguments.seed).run(arguments.kills)
    except MissingService as missing:
        _say(str(missing))
        return 2
    except KeyboardInterrupt:
        _say("stopped")
        return 130
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    text = json.dumps(result, indent=1)
    arguments.output.write_text(text + "\n", "utf-8")
    print(text)
    wrong = ("lost", "left", "called_without_attempt", "sent_without_call", "unlawful", "crashes")
    return int(result["most_calls_of_one_message"] != 1 or any(result[name] for name in wrong))


def _since(begun: float) -> int:
    return round(time.monotonic() - begun)


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
