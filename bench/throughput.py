"""Mails per second: all subjects take turns, in alternating order, for several rounds."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.postfix import Absent
from bench.servers import Postgres
from bench.sinks import Sink, smtp_sink, timed_sink
from bench.subjects import Ground, Run, Subject, Task
from bench.usage import Usage, sampling

#: Estimates for what has not been measured yet; mails per second. Later rounds use measured rates.
GUESSES: Mapping[str, float] = {
    "notifier": 1500,
    "celery_naive": 150,
    "celery_tuned": 500,
    "post_office": 500,
    "smtp_source": 15000,
}
#: If leaving out one round moves the median by more than this, another round is needed.
HOLDS_TO = 0.1
#: Maximum rounds, as a multiple of the rounds asked for.
_MOST_TIMES = 3
_WARM_UP_SECONDS = 0.5
_WARM_UP_PATIENCE = 60.0
_LEAST = 40
#: A backlog is abandoned if it takes this many times longer than it should.
_PATIENCE = 3.0
_EXTRA_SECONDS = 10.0
_POLL_SECONDS = 0.01

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One measurement of one subject."""

    rate: float
    mails: int
    seconds: float
    #: Whether the whole backlog was sent and recorded in time; if not, the rate is that of the finished part.
    is_whole: bool
    usage: Mapping[str, Usage]
    #: What PostgreSQL wrote during it: bytes of its log, and transactions. None if it was not measured.
    written: tuple[float, float] | None = None
    #: Connections to PostgreSQL at the end.
    connections: int | None = None


@dataclass(slots=True)
class Rates:
    """All rounds of one subject."""

    measurements: list[Measurement] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Mails per second."""
        return [one.rate for one in self.measurements]

    @property
    def rate(self) -> float:
        """The median."""
        return median(self.rates)

    @property
    def usage(self) -> Mapping[str, Usage]:
        """The usage in the last round."""
        return self.measurements[-1].usage

    @property
    def holds_to(self) -> float:
        """How far the median moves if one round is left out: 0.1 is a tenth. Infinite with only one round."""
        rates = self.rates
        if len(rates) < 2:
            return math.inf
        medians = [median(rates[:left_out] + rates[left_out + 1 :]) for left_out in range(len(rates))]
        return max(medians) / min(medians) - 1 if min(medians) else math.inf

    def cpu_us(self) -> dict[str, float]:
        """Microseconds of processor time for one mail, by process: medians of the complete rounds."""
        whole = [one for one in self.measurements if one.is_whole and one.mails]
        names = {name for one in whole for name in one.usage}
        return {
            name: median(1e6 * one.usage[name].cpu_seconds / one.mails for one in whole if name in one.usage)
            for name in sorted(names)
        }

    def written(self) -> tuple[float, float] | None:
        """Bytes of PostgreSQL's log, and writing transactions, for one mail: medians."""
        found = [
            (one.written[0] / one.mails, one.written[1] / one.mails)
            for one in self.measurements
            if one.is_whole and one.mails and one.written
        ]
        return (median(size for size, _ in found), median(count for _, count in found)) if found else None

    def as_json(self) -> dict[str, object]:
        """The values beside the median."""
        return {
            "rates": [round(rate, 1) for rate in self.rates],
            "least": round(min(self.rates), 1),
            "most": round(max(self.rates), 1),
            "median_holds_to": None if len(self.rates) < 2 else round(self.holds_to, 3),
            "mails": [one.mails for one in self.measurements],
            "whole": all(one.is_whole for one in self.measurements),
            "processes": {name: usage.as_json() for name, usage in self.usage.items()},
        }


def measure_rounds(
    ground: Ground,
    subjects: Sequence[Subject],
    *,
    rounds: int,
    seconds: float,
    delay_seconds: float = 0.0,
    sized: bool = False,
    guesses: Mapping[str, float] = GUESSES,
    say: Say,
) -> dict[str, Rates]:
    """All subjects in turns, for about `seconds` each."""

    def measure_one(subject: Subject, so_far: Rates) -> Measurement:
        guess = so_far.rate if so_far.measurements else guesses[subject.name]
        return measure(ground, subject, rate=guess, seconds=seconds, delay_seconds=delay_seconds, sized=sized)

    return take_turns(subjects, rounds, measure_one, say)


def take_turns(
    subjects: Sequence[Subject], rounds: int, measure_one: Callable[[Subject, Rates], Measurement], say: Say
) -> dict[str, Rates]:
    """All subjects `rounds` times. The last in a round begins the next.

    A subject whose median does not hold to a tenth by then gets more rounds, until it does, or has had three times
    as many.
    """
    found: dict[str, Rates] = {subject.name: Rates() for subject in subjects}
    for number in range(rounds * (_MOST_TIMES if rounds > 1 else 1)):
        for subject in _who_is_next(subjects, found, number, rounds):
            one = measure_one(subject, found[subject.name])
            found[subject.name].measurements.append(one)
            note = "" if one.is_whole else " (not all of them in time)"
            of = f"{one.mails} in {one.seconds:.1f} s{note}"
            say(f"  round {number + 1}: {subject.name:<13} {one.rate:>8.0f}/s, {of}")
    return found


def _who_is_next(
    subjects: Sequence[Subject], found: Mapping[str, Rates], number: int, rounds: int
) -> list[Subject]:
    """The subjects in this round, in its order."""
    chosen = [one for one in subjects if number < rounds or found[one.name].holds_to > HOLDS_TO]
    return chosen if number % 2 == 0 else chosen[::-1]


def measure(
    ground: Ground,
    subject: Subject,
    *,
    rate: float,
    seconds: float,
    delay_seconds: float = 0.0,
    sized: bool = False,
) -> Measurement:
    """One measurement: a few mails to warm up, then a backlog for about `seconds` at `rate`."""
    with mail_server(ground, delay_seconds) as sink:
        task = Task(sink.port, delay_seconds, sized_for_slow_server=sized)
        with subject.running(ground, task) as run:
            warm = max(_LEAST, round(rate * min(_WARM_UP_SECONDS, seconds)))
            if not work_off(run, sink, warm, patience_seconds=_WARM_UP_PATIENCE).mails:
                raise RuntimeError(f"{subject.name} sent nothing in {_WARM_UP_PATIENCE:g} s")
            run.hold()
            ground.postgres.checkpoint()
            count = max(_LEAST, round(rate * seconds))
            return work_off(
                run,
                sink,
                count,
                patience_seconds=_PATIENCE * seconds + _EXTRA_SECONDS,
                others=other_pids(ground, sink),
                postgres=ground.postgres,
            )


def work_off(
    run: Run,
    sink: Sink,
    count: int,
    *,
    patience_seconds: float,
    others: Mapping[str, int] | None = None,
    postgres: Postgres | None = None,
) -> Measurement:
    """Give it `count` mails and release it. The clock stops when all of them are accepted and recorded."""
    run.hold()
    run.fill(count)
    before = sink.taken()
    written = postgres.written() if postgres else None
    run_pids = run.pids()
    begun = time.monotonic()
    run.release()
    with sampling({**(run_pids or run.pids()), **(others or {})}) as usage:
        is_whole = _wait(run, sink, before, count, begun + patience_seconds)
        ended = time.monotonic()
        done = count if is_whole else min(run.recorded(), sink.taken() - before)
    connections = None
    if postgres and written:
        log, transactions = postgres.written()
        written, connections = (log - written[0], transactions - written[1]), postgres.connections()
    return Measurement(done / (ended - begun), done, ended - begun, is_whole, usage, written, connections)


def _wait(run: Run, sink: Sink, before: int, count: int, ends_at: float) -> bool:
    """The server's counter costs nothing to read; the database is asked only when that is complete."""
    while sink.taken() - before < count:
        if time.monotonic() > ends_at:
            return False
        time.sleep(_POLL_SECONDS)
    while run.recorded() < count:
        if time.monotonic() > ends_at:
            return False
        time.sleep(_POLL_SECONDS)
    return True


@contextlib.contextmanager
def mail_server(ground: Ground, delay_seconds: float) -> Iterator[Sink]:
    """`smtp-sink`, which can only wait for whole seconds; with a delay, or without it, our own server."""
    if delay_seconds or isinstance(ground.postfix, Absent):
        with timed_sink(ground.folder, delay_seconds=delay_seconds) as sink:
            yield sink
    else:
        with smtp_sink(ground.postfix, ground.folder) as sink:
            yield sink


def other_pids(ground: Ground, sink: Sink) -> dict[str, int]:
    """Processes that work for all subjects, and share the cores with them."""
    servers = {"(postgres)": ground.postgres.pid, "(mail server)": sink.pid}
    rabbitmq = ground.rabbitmq.pids
    if len(rabbitmq) > 1:
        servers["(rabbitmq)"] = rabbitmq[1]
    return {name: pid for name, pid in servers.items() if pid is not None}
