"""Checks that every program ends within its grace, whatever is unreachable, and with work in hand.

    python -m chaos.endings [--only PATTERN] [--at-once 8]

The programs × {broker, database, both away} × {gone, hanging} × {SIGTERM, SIGINT} × {at the start, idle, work in
hand}, and each once by SIGHUP. Gone: existing and new connections are closed. Hanging: the server accepts
connections but says nothing, like a server that was stopped in the middle of a statement. Gone midway: the program
has just asked for something and gets no answer. Each case has its own database, virtual host and proxies, so many
run at once.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import re
import shutil
import signal
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from threading import Lock

import psutil

from chaos.endings_work import PROGRAMS, Place, Program, hold_at_first_insert
from chaos.nursery import Nursery
from chaos.providers import SMS_LATENCY, RecordedFaults
from chaos.proxy import Link, Proxy, Strike, Tap
from notifier.dev.machine import make_temporary_folder
from notifier.dev.server_thread import running
from notifier.dev.twilio_faults import TwilioRule
from notifier.dev.twilio_server import TwilioServer
from notifier.runtime.shutdown import OVERDUE
from tests.provisioning.commands import run_in_order
from tests.provisioning.databases import Databases
from tests.provisioning.rabbitmq import AmqpServer
from tests.provisioning.services import RedisServer, Services
from tests.waiting import Deadline

#: The grace that programs are given in `NOTIFIER_GRACE_SECONDS`. With the first one, a program with nothing in
#: hand ends in order. Seconds.
GRACE_SECONDS, SHORT_GRACE_SECONDS = 25.0, 6.0
#: Extra time for a busy machine: to start, to deliver the signal, to end. Seconds.
_SLACK_SECONDS = 6.0
_READY_SECONDS = 60.0
#: How long Twilio takes to answer, so that a call is in hand in the meantime. Seconds.
CALL_SECONDS = 1.5


#: Celery's workers and Beat talk to the broker at least every two seconds.
_NOTICE_SECONDS = 3.5


#: Size of an AMQP heartbeat frame.
_SIGN_OF_LIFE_BYTES = 8


class Away(StrEnum):
    BROKER = "broker"
    DATABASE = "database"
    BOTH = "both"


class How(StrEnum):
    GONE = "gone"
    HANGING = "hanging"
    MIDWAY = "gone midway"


class Moment(StrEnum):
    START = "at the start"
    IDLE = "idle"
    BUSY = "work in hand"


@dataclass(frozen=True, slots=True)
class Case:
    program: str
    away: Away
    how: How
    moment: Moment
    number: signal.Signals
    #: How often the signal is sent.
    times: int = 1

    @property
    def name(self) -> str:
        """The name that `--only` matches."""
        often = " twice" if self.times > 1 else ""
        return f"{self.program}: {self.away} {self.how}, {self.moment}, {self.number.name}{often}"


@dataclass(slots=True)
class Ended:
    case: Case
    seconds: float = 0.0
    #: Exit code; negative: a signal killed it.
    code: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def line(self) -> str:
        mark = "✗" if self.problems else "✓"
        return "\n    ".join([f"{mark} {self.case.name}: {self.seconds:.1f} s, code {self.code}", *self.problems])


def short_form() -> list[Case]:
    """Each program, each thing that can be away, each signal and moment, and the combinations that once hung."""
    gone, hanging, both = How.GONE, How.HANGING, Away.BOTH
    term, interrupt, hang_up = signal.SIGTERM, signal.SIGINT, signal.SIGHUP
    broker, database, idle, busy, start = Away.BROKER, Away.DATABASE, Moment.IDLE, Moment.BUSY, Moment.START
    return [
        Case("worker on RabbitMQ", broker, How.MIDWAY, idle, term),
        Case("worker on RabbitMQ", broker, hanging, busy, interrupt),
        Case("worker on RabbitMQ", both, hanging, idle, term),
        Case("worker on RabbitMQ", both, gone, start, interrupt),
        Case("worker that waits to claim", database, gone, busy, term),
        Case("callbacks run", both, hanging, idle, hang_up),
        Case("callbacks run", broker, gone, start, interrupt),
        Case("worker on Redis", broker, gone, busy, interrupt, 2),
        Case("worker on Redis", both, gone, busy, term),
        Case("worker on Redis", both, hanging, idle, hang_up),
        Case("intake on RabbitMQ", broker, hanging, idle, term),
        Case("intake on RabbitMQ", both, hanging, idle, hang_up),
        Case("intake on RabbitMQ", database, hanging, busy, term),
        Case("intake on Redis", both, gone, busy, interrupt),
        Case("beat on RabbitMQ", broker, gone, idle, term),
        Case("beat on RabbitMQ", both, hanging, idle, hang_up),
        Case("beat on Redis", broker, hanging, start, interrupt),
        Case("relay on RabbitMQ", both, hanging, busy, term),
        Case("relay on Redis", broker, gone, busy, interrupt),
        Case("relay of Django", database, hanging, busy, term),
        Case("api", database, hanging, busy, term),
        Case("api", both, gone, start, interrupt),
        Case("api", both, hanging, idle, hang_up),
        Case("bounces", database, hanging, busy, interrupt),
        Case("bounces", database, gone, start, term),
        Case("suppressions import", database, hanging, busy, interrupt),
        Case("retry", database, hanging, busy, term),
        Case("rejected replay", database, hanging, busy, interrupt),
        Case("callbacks replay", database, hanging, busy, term),
    ]


def every_case() -> list[Case]:
    whole = itertools.product(PROGRAMS, Away, How, Moment, (signal.SIGTERM, signal.SIGINT))
    once = [Case(*one) for one in whole if _is_one(Case(*one))]
    twice = [Case(name, Away.BOTH, how, Moment.IDLE, signal.SIGINT, 2) for name in PROGRAMS for how in How]
    hung_up = [Case(name, Away.BOTH, How.HANGING, Moment.IDLE, signal.SIGHUP) for name in PROGRAMS]
    return once + [case for case in twice + hung_up if _is_one(case)]


def _is_one(case: Case) -> bool:
    program = PROGRAMS[case.program]
    if program.is_command:
        # It needs no broker, is never idle, and ends by itself if the database is gone when it starts.
        is_there = case.moment is Moment.BUSY or (case.how is How.HANGING and case.moment is Moment.START)
        return is_there and case.away is Away.DATABASE
    if program.only_waits:
        return (case.moment, case.away, case.how) == (Moment.BUSY, Away.DATABASE, How.GONE)
    if case.program == "up" and case.moment is Moment.START:
        return case.away is Away.BROKER  # it needs the database to begin, and says so
    return program.begin is not None or case.moment is not Moment.BUSY


class Endings:
    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        databases: Databases,
        rabbitmq: AmqpServer,
        redis: RedisServer,
        *,
        grace_seconds: float = GRACE_SECONDS,
    ) -> None:
        self._folder = folder
        self._databases, self._rabbitmq, self._redis = databases, rabbitmq, redis
        self._grace_seconds = grace_seconds
        self._lock = Lock()
        self._buried: set[int] = set()
        self._numbers = itertools.count(1)
        self._faults = RecordedFaults(SMS_LATENCY)
        self._faults.add(TwilioRule("*", delay_seconds=CALL_SECONDS))
        twilio = TwilioServer()
        twilio.faults = self._faults
        self._twilio = stack.enter_context(running(twilio))
        self._nursery = Nursery(
            {name: value for name, value in os.environ.items() if not name.startswith("NOTIFIER_")}
        )
        stack.callback(self._nursery.stop)

    def run(self, cases: Sequence[Case], *, at_once: int) -> Iterator[Ended]:
        """Run all cases. Yields them as they end."""
        with ThreadPoolExecutor(at_once) as pool:
            yield from pool.map(self._end, cases)

    def _end(self, case: Case) -> Ended:
        ended = Ended(case)
        try:
            with ExitStack() as stack:
                self._play(stack, case, ended)
        except Exception as error:
            ended.problems.append(f"the case itself failed: {error!r}")
        return ended

    def _play(self, stack: ExitStack, case: Case, ended: Ended) -> None:
        program, place = PROGRAMS[case.program], self._place(stack, PROGRAMS[case.program])
        if program.prepare:
            program.prepare(place)
        away = [link for name, link in place.links.items() if case.away in (name, Away.BOTH)]
        if case.moment is Moment.START:
            _take_away(away, case.how)
        elif program.is_command:
            hold_at_first_insert(place)
        place.environment["NOTIFIER_GRACE_SECONDS"] = str(self._grace_seconds)
        # The id of a process that was reaped may be reused.
        pid = self._nursery.start(place.log, program.arguments_of(place), place.environment)
        self._buried.discard(pid)
        stack.callback(self._end_by_force, pid)
        # Before the links are healed: a program that is still running then did not end by itself.
        self._wait_until_ready(pid, case, program, place)
        if case.moment is Moment.BUSY:
            assert program.begin
            program.begin(place)
        if case.moment is not Moment.START:
            _take_away(away, case.how)
        if case.moment is Moment.IDLE:
            # By now the program has noticed: it is in the middle of a try, or in the pause after one.
            time.sleep(_NOTICE_SECONDS)
        if case.how is How.MIDWAY:
            # A program that has not asked for anything finds it gone.
            _take_away(away, How.GONE)
        begun = time.monotonic()
        for _ in range(case.times):
            # Its process id cannot be reused before it is reaped.
            os.kill(pid, case.number)
            time.sleep(0.3)
        if case.moment is Moment.BUSY:
            # What is not away can be used, so a result that can be written is written.
            for link in place.links.values():
                if link not in away:
                    link.heal()
        limit = self._grace_seconds + program.extra_seconds + _SLACK_SECONDS
        has_ended = _wait(lambda: not _lives(pid), Deadline(limit))
        ended.seconds = time.monotonic() - begun
        if not has_ended:
            ended.problems.append(f"still there {limit:g} s after the signal: {_last_lines(place.log)}")
            return
        ended.code = self._bury(pid)
        allowed = program.codes(case.number) | ({OVERDUE} if self._may_be_overdue(case) else set())
        if ended.code not in allowed:
            ended.problems.append(f"exit code {ended.code}, not one of {allowed}: {_last_lines(place.log)}")
        if case.moment is Moment.BUSY and program.check:
            for link in place.links.values():
                link.heal()
            ended.problems += program.check(place, is_database_away=case.away is not Away.BROKER)

    def _may_be_overdue(self, case: Case) -> bool:
        """Whether the program may exceed its grace. A statement on a hanging database has no end, and results wait
        for a database that is away. Calls to a hanging broker have a time limit longer than the short grace, and
        Celery makes several such calls to Redis."""
        if case.away is Away.BROKER:
            is_slow = self._grace_seconds < GRACE_SECONDS or PROGRAMS[case.program].broker == "redis"
            return case.how is How.HANGING and is_slow
        has_results = case.moment is Moment.BUSY and not PROGRAMS[case.program].only_waits
        return case.how is How.HANGING or has_results

    def _wait_until_ready(self, pid: int, case: Case, program: Program, place: Place) -> None:
        def is_ready() -> bool:
            if case.moment is Moment.START and any(link.connections for link in place.links.values()):
                return True
            if not program.ready or program.is_command:
                return bool(place.database.connections)
            return program.ready in place.log.read_bytes() or not _lives(pid)

        if not _wait(is_ready, Deadline(_READY_SECONDS)):
            used = psutil.Process(pid).cpu_times()
            raise TimeoutError(
                f"not ready after {used.user + used.system:.1f} s of processor: {_last_lines(place.log)}"
            )
        if not _lives(pid):
            raise RuntimeError(f"it ended before it was told to: {_last_lines(place.log)}")

    def _bury(self, pid: int) -> int:
        self._buried.add(pid)
        return self._nursery.bury(pid)

    def _end_by_force(self, pid: int) -> None:
        if pid not in self._buried:
            os.kill(pid, signal.SIGKILL)
            self._bury(pid)

    def _place(self, stack: ExitStack, program: Program) -> Place:
        with self._lock:
            database_url = self._databases.make()
            stack.callback(self._drop, database_url)
            is_redis = program.broker == "redis"
            broker_url = self._redis.make_database() if is_redis else self._rabbitmq.make_vhost()
            number = next(self._numbers)
        folder = self._folder / f"{number}-{program.arguments[0]}"
        folder.mkdir()
        return Place(stack, folder, number, database_url, broker_url, self._twilio, self._faults)

    def _drop(self, database_url: str) -> None:
        with self._lock:
            self._databases.drop(database_url)


def _take_away(links: Sequence[Proxy], how: How) -> None:
    for link in links:
        match how:
            case How.GONE:
                link.refuse()
            case How.HANGING:
                link.hold()
            case How.MIDWAY:
                link.heal()
                link.tap = _refuse_at_question(link)


def _refuse_at_question(proxy: Proxy) -> Tap:
    def tap(_link: Link, from_client: bool, data: bytes) -> Strike | None:
        is_question = from_client and len(data) > _SIGN_OF_LIFE_BYTES
        return Strike(proxy.refuse, pass_on=False) if is_question else None

    return tap


def _lives(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


def _wait(condition: Callable[[], object], deadline: Deadline) -> bool:
    while not condition():
        if deadline.is_over():
            return False
        time.sleep(0.05)
    return True


def _last_lines(log: Path) -> str:
    return "\n      ".join(["", *log.read_text("utf-8", "replace").splitlines()[-6:]])


def main() -> int:
    """Returns 0 only if every program ended within its grace and with the right exit code, and nothing was
    lost."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos.endings", description="Every program ends within its grace."
    )
    parser.add_argument("--only", metavar="PATTERN", default="", help="only cases whose name fits")
    parser.add_argument("--at-once", type=int, default=8, help="so many programs run at once")
    parser.add_argument("--short", action="store_true", help="the cases of the test, with its short grace")
    parser.add_argument("--list", action="store_true", help="name the cases and end")
    options = parser.parse_args()
    cases = [
        case for case in (short_form if options.short else every_case)() if re.search(options.only, case.name)
    ]
    grace = SHORT_GRACE_SECONDS if options.short else GRACE_SECONDS
    if options.list:
        print("\n".join(case.name for case in cases))
        return 0
    return run_in_order(lambda: 0 if run(cases, at_once=options.at_once, grace_seconds=grace) else 1)


def run(cases: Sequence[Case], *, at_once: int, grace_seconds: float = GRACE_SECONDS) -> bool:
    """Run the cases on their own servers. Returns whether all were right."""
    services, folder = Services(lambda text: print(text, flush=True)), make_temporary_folder()
    wrong = []
    try:
        services.prepare(["postgres", "rabbitmq", "redis"])
        databases = Databases(services.postgres_url())
        with ExitStack() as stack:
            rabbitmq, redis = services.amqp_server(), services.redis_server()
            endings = Endings(stack, folder, databases, rabbitmq, redis, grace_seconds=grace_seconds)
            for ended in endings.run(cases, at_once=at_once):
                print(ended.line, flush=True)
                if ended.problems:
                    wrong.append(ended.case.name)
    finally:
        services.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({"cases": len(cases), "wrong": wrong}, indent=1))
    return not wrong


if __name__ == "__main__":
    sys.exit(main())
