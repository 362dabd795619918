"""Three worker processes under one limit: what the database hands out, and what the provider sees of it.

A call that has missed its turn takes a new one, so what is promised of turns holds for calls, too: the limit, and
its 5 %. A server that notes when they come may itself be kept waiting by its machine; how long is measured, and no
more than that is allowed on top.
"""

from __future__ import annotations

import math
import os
import signal
import sys
import time
from bisect import bisect_left
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg

from notifier import Client
from notifier.delivery.rate_limiter import SLACK
from notifier.dev.faults import Faults
from notifier.dev.processes import ServerProcess
from notifier.dev.twilio_faults import TwilioRule
from notifier.dev.twilio_server import TwilioServer, running_twilio_server
from tests.support import forking
from tests.waiting import Stalls, slowness, wait_until

ROOT = Path(__file__).parents[2]
LIMIT, MESSAGES = 50, 250
#: The limit and its 5 %.
AT_MOST = 52
WORKERS = ("worker-1", "worker-2", "worker-3")
PROGRAMS = {"intake": ["intake"], "beat": ["beat"]} | {
    name: ["worker", "--name", f"{name}@%h"] for name in WORKERS
}

CONFIG = f"""
default_sender = "shop"
[senders.shop]
sms = "+15550100100"
[[providers]]
name = "twilio"
kind = "twilio"
account_sid = "${{NOTIFIER_TWILIO_ACCOUNT_SID}}"
auth_token = "${{NOTIFIER_TWILIO_AUTH_TOKEN}}"
rate_per_second = {LIMIT}
"""

# Every move of the slot that the turns come from. Nothing in the programs knows of it.
RECORD_MOVES = """
CREATE TABLE moves (number serial, free_from timestamptz, free_again timestamptz, moved_at timestamptz);
CREATE FUNCTION record_move() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  INSERT INTO moves (free_from, free_again, moved_at) VALUES (OLD.next_at, NEW.next_at, clock_timestamp());
  RETURN NULL;
END $$;
CREATE TRIGGER record_move AFTER UPDATE ON rate_slots FOR EACH ROW EXECUTE FUNCTION record_move();
"""
MOVES = """
SELECT extract(epoch FROM greatest(free_from, moved_at))::float8, extract(epoch FROM free_again)::float8
FROM moves ORDER BY number
"""


class Arrivals(Faults[TwilioRule]):
    """Does nothing wrong, and notes when each request came."""

    def __init__(self) -> None:
        super().__init__(())
        self.times: list[float] = []

    def find(self, *recipients: str, stage: str | None = None) -> TwilioRule | None:
        self.times.append(time.time())
        return super().find(*recipients, stage=stage)


@dataclass(frozen=True)
class Run:
    """What came of it. Times in seconds of the machine's clock, in order."""

    turns: Sequence[float]
    arrivals: Sequence[float]
    #: Of the messages that the provider took.
    numbers: Sequence[str]
    #: Outcome → attempts in the record.
    attempts: Mapping[str, int]
    #: The longest that the measuring process itself was not run: what came meanwhile seems to have come at once.
    stall: float
    #: Of the machine: 1 where nobody waits for a processor.
    slowness: float


def busiest_second(times: Sequence[float]) -> int:
    """The most in any window of a second: it begins with one of them."""
    return max(bisect_left(times, begin + 1) - index for index, begin in enumerate(times))


@contextmanager
def running_programs(environment: Mapping[str, str], folder: Path) -> Iterator[None]:
    processes = [
        ServerProcess(
            name,
            [sys.executable, "-m", "notifier", *arguments],
            log=folder / f"{name}.log",
            stop_plan=[(signal.SIGTERM, 30.0)],
            cwd=ROOT,
            env={**os.environ, **environment},
            launch=forking.launch,
        )
        for name, arguments in PROGRAMS.items()
    ]
    try:
        for process in processes:
            process.start()
        # Before the first message: each of them is to have its share.
        wait_until(lambda: all(b" ready." in (folder / f"{name}.log").read_bytes() for name in WORKERS), 60)
        yield
        assert all(process.is_running() for process in processes)
    finally:
        with ThreadPoolExecutor(len(processes)) as pool:
            list(pool.map(ServerProcess.stop, processes))


def turns(connection: psycopg.Connection) -> list[float]:
    """The moments that were handed out.

    A slot in use moves on from where it was, an idle one from the moment at which it was read. That is a little
    before it moved, so what is left of a turn is a whole one.
    """
    each = 1 / (LIMIT * SLACK)
    found: list[float] = []
    for begin, end in connection.execute(MOVES):
        count = math.ceil(round((end - begin) / each, 3))
        found += [end - number * each for number in range(count, 0, -1)]
    return found


def send_all(database_url: str, broker_url: str, folder: Path) -> Run:
    arrivals = Arrivals()
    server = TwilioServer()
    server.faults = arrivals
    (folder / "notifier.toml").write_text(CONFIG)
    with psycopg.connect(database_url, autocommit=True) as connection, running_twilio_server(server) as twilio:
        connection.execute(RECORD_MOVES)
        environment = {
            "NOTIFIER_DATABASE_URL": database_url,
            "NOTIFIER_BROKER_URL": broker_url,
            "NOTIFIER_TWILIO_ACCOUNT_SID": twilio.account_sid,
            "NOTIFIER_TWILIO_AUTH_TOKEN": twilio.auth_token,
            "NOTIFIER_TWILIO_API_BASE": twilio.url,
            "NOTIFIER_CONFIG": str(folder / "notifier.toml"),
            "NOTIFIER_TEMPLATES": str(ROOT / "templates"),
            "NOTIFIER_DATA_DIR": str(folder),
        }

        def count_sent() -> int:
            (count,) = connection.execute(
                "SELECT count(*) FROM notifications WHERE status = 'sent'"
            ).fetchone() or (0,)
            return int(count)

        with running_programs(environment, folder):
            entries = [{"to": f"+1555010{number:04d}"} for number in range(MESSAGES)]
            context = {"code": "042137", "valid_minutes": 10}
            with Stalls() as stalls:
                with Client(broker_url, producer="shop", timeout_seconds=30) as client:
                    client.send_many(entries, channel="sms", lane="normal", template="login_code", context=context)
                wait_until(lambda: count_sent() == MESSAGES, 60, every=0.2)
        numbers = [sms.to for sms in twilio.messages]
        attempts = connection.execute("SELECT outcome, count(*) FROM attempts GROUP BY 1").fetchall()
        return Run(turns(connection), sorted(arrivals.times), numbers, dict(attempts), stalls.longest, slowness())


def test_three_worker_processes_keep_to_fifty_a_second(database_url: str, amqp_url: str, tmp_path: Path) -> None:
    run = send_all(database_url, amqp_url, tmp_path)
    # Everything was delivered, once, and at the first try: the limit has failed nothing.
    assert len(run.arrivals) == len(run.numbers) == len(set(run.numbers)) == MESSAGES
    assert run.attempts == {"accepted": MESSAGES}

    assert len(run.turns) >= MESSAGES * 0.95
    assert busiest_second(run.turns) <= LIMIT
    # Each of the others may have been kept waiting, too, while it had its turn.
    assert busiest_second(run.arrivals) <= AT_MOST * run.slowness + LIMIT * run.stall
