"""How many mails a second: everybody in turns, in an order that alternates, in several rounds."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from bench.postfix import Absent
from bench.sinks import Sink, smtp_sink, timed_sink
from bench.subjects import Ground, Run, Subject, Task
from bench.usage import Usage, sampling

#: What nobody has measured yet is guessed; mails a second. Later rounds know better.
GUESSES: Mapping[str, float] = {
    "notifier": 1500,
    "celery_naive": 150,
    "celery_tuned": 500,
    "post_office": 500,
    "smtp_source": 15000,
}
_WARM_UP_SECONDS = 0.5
_WARM_UP_PATIENCE = 60.0
_LEAST = 40
#: A backlog that takes so many times longer than it should is not waited for.
_PATIENCE = 3.0
_EXTRA_SECONDS = 10.0
_POLL_SECONDS = 0.01

Say = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Measurement:
    """One subject, once."""

    rate: float
    mails: int
    seconds: float
    #: Whether the whole backlog was sent and recorded in time; if not, the rate is of what was.
    is_whole: bool
    usage: Mapping[str, Usage]


@dataclass(slots=True)
class Rates:
    """One subject, all rounds."""

    measurements: list[Measurement] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Mails a second."""
        return [one.rate for one in self.measurements]

    @property
    def rate(self) -> float:
        """The median."""
        return median(self.rates)

    @property
    def usage(self) -> Mapping[str, Usage]:
        """Of the last round."""
        return self.measurements[-1].usage

    def as_json(self) -> dict[str, object]:
        """What stands beside the median."""
        return {
            "rates": [round(rate, 1) for rate in self.rates],
            "least": round(min(self.rates), 1),
            "most": round(max(self.rates), 1),
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
    """Everybody `rounds` times, for about `seconds` each; the next round begins with whoever came last."""
    found: dict[str, Rates] = {subject.name: Rates() for subject in subjects}
    for number in range(rounds):
        for subject in subjects if number % 2 == 0 else reversed(subjects):
            so_far = found[subject.name]
            guess = so_far.rate if so_far.measurements else guesses[subject.name]
            one = measure(ground, subject, rate=guess, seconds=seconds, delay_seconds=delay_seconds, sized=sized)
            so_far.measurements.append(one)
            note = "" if one.is_whole else " (not all of them in time)"
            of = f"{one.mails} in {one.seconds:.1f} s{note}"
            say(f"  round {number + 1}: {subject.name:<13} {one.rate:>8.0f}/s, {of}")
    return found


def measure(
    ground: Ground,
    subject: Subject,
    *,
    rate: float,
    seconds: float,
    delay_seconds: float = 0.0,
    sized: bool = False,
) -> Measurement:
    """Once: a few mails to get warm, then a backlog for about `seconds` at `rate`."""
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
            )


def work_off(
    run: Run,
    sink: Sink,
    count: int,
    *,
    patience_seconds: float,
    others: Mapping[str, int] | None = None,
) -> Measurement:
    """Put `count` mails before it and let it go; the clock stops when all of them are accepted and recorded."""
    run.hold()
    run.fill(count)
    before = sink.taken()
    run_pids = run.pids()
    begun = time.monotonic()
    run.release()
    with sampling({**(run_pids or run.pids()), **(others or {})}) as usage:
        is_whole = _wait(run, sink, before, count, begun + patience_seconds)
        ended = time.monotonic()
        done = count if is_whole else min(run.recorded(), sink.taken() - before)
    return Measurement(done / (ended - begun), done, ended - begun, is_whole, usage)


def _wait(run: Run, sink: Sink, before: int, count: int, ends_at: float) -> bool:
    """The server's counter costs nothing to look at; the database is asked only when that is complete."""
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
    """`smtp-sink`, which waits for whole seconds only; with a delay, or where it is absent, our own."""
    if delay_seconds or isinstance(ground.postfix, Absent):
        with timed_sink(ground.folder, delay_seconds=delay_seconds) as sink:
            yield sink
    else:
        with smtp_sink(ground.postfix, ground.folder) as sink:
            yield sink


def other_pids(ground: Ground, sink: Sink) -> dict[str, int]:
    """What works for everybody: it shares the cores with them."""
    servers = {"(postgres)": ground.postgres.pid, "(mail server)": sink.pid}
    rabbitmq = ground.rabbitmq.pids
    if len(rabbitmq) > 1:
        servers["(rabbitmq)"] = rabbitmq[1]
    return {name: pid for name, pid in servers.items() if pid is not None}
