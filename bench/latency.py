"""How long a mail is on its way: from just before it is published until the mail server has accepted it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

from bench import mails
from bench.figures import percentiles
from bench.pace import Stream
from bench.service import Notifier, NotifierRun, wait_for
from bench.sinks import Sink, timed_sink
from bench.subjects import Ground, Task
from bench.throughput import Say, work_off
from notifier.client.client import Client
from notifier.domain.statuses import Lane

_WARM = 200
_PATIENCE_SECONDS = 10.0
#: Pause between two urgent messages while bulk waits. Seconds.
_URGENT_PAUSE = 0.05


@dataclass(frozen=True, slots=True)
class Sizes:
    """How much of each is measured."""

    #: Number of messages, one at a time.
    idle: int
    #: Seconds under half load.
    half_load_seconds: float
    #: Number of bulk messages that wait.
    bulk: int


def measure_idle(ground: Ground, sizes: Sizes) -> dict[str, float]:
    """One message at a time, through the producer's client. The next is published when the last has arrived."""
    with _warm_service(ground, Lane.NORMAL) as (run, sink):
        return one_at_a_time(run, sink, sizes.idle)


def one_at_a_time(run: NotifierRun, sink: Sink, count: int) -> dict[str, float]:
    """Publish a message, wait until it has arrived, publish the next."""
    with _client(run) as client:
        before = sink.taken()
        for number in range(1, count + 1):
            send(client, number, label="idle")
            wait_for(partial(_has_taken, sink, before + number), _PATIENCE_SECONDS, pause=0.002)
        return percentiles(sink.latencies("idle"))


def measure_half_load(ground: Ground, sizes: Sizes, *, rate: float) -> dict[str, float]:
    """A steady stream at half of what the service can handle."""
    with _warm_service(ground, Lane.NORMAL) as (run, sink):
        with Stream(run.broker_url, rate=rate, lane=Lane.NORMAL, label="steady") as stream:
            time.sleep(sizes.half_load_seconds)
        check(stream)
        wait_for(lambda: len(sink.latencies("steady")) >= stream.published, _PATIENCE_SECONDS, pause=0.2)
        return percentiles(sink.latencies("steady")) | {"rate": round(stream.published / sizes.half_load_seconds)}


def measure_urgent(ground: Ground, sizes: Sizes) -> dict[str, float]:
    """Urgent messages, one every 50 ms, from the time when the bulk is there until it is gone."""
    with _warm_service(ground, Lane.BULK) as (run, sink), _client(run) as client:
        run.hold()
        before = sink.taken()
        run.fill(sizes.bulk)
        run.release()
        ends_at = time.monotonic() + sizes.bulk / 100
        sent = 0
        while sink.taken() - before - sent < sizes.bulk and time.monotonic() < ends_at:
            sent += 1
            send(client, sent, label="urgent", lane=Lane.URGENT)
            time.sleep(_URGENT_PAUSE)
        wait_for(lambda: len(sink.latencies("urgent")) >= sent, _PATIENCE_SECONDS, pause=0.2)
        found = sink.latencies("urgent")
        return percentiles(found) | {"bulk": sizes.bulk, "missing": sent - len(found)}


def measure(ground: Ground, sizes: Sizes, *, rate: float, say: Say) -> dict[str, dict[str, float]]:
    """All three. `rate`: mails per second that the service can handle."""
    found = {"idle": measure_idle(ground, sizes)}
    say(f"  idle: {found['idle']}")
    found["half_load"] = measure_half_load(ground, sizes, rate=rate / 2)
    say(f"  half load: {found['half_load']}")
    found["urgent_under_bulk"] = measure_urgent(ground, sizes)
    say(f"  urgent under bulk: {found['urgent_under_bulk']}")
    return found


def send(client: Client, number: int, *, label: str, lane: Lane = Lane.NORMAL) -> None:
    """Send one message. Its start time is in its address."""
    context = mails.context(number)
    client.send(mails.TEMPLATE, mails.recipient(number, label=label), context=context, lane=lane)


def check(stream: Stream) -> None:
    """Raises `RuntimeError` if the stream ended early."""
    if stream.error is not None:
        raise RuntimeError(f"the stream of messages ended early: {stream.error!r}") from stream.error


@contextlib.contextmanager
def _warm_service(ground: Ground, lane: Lane) -> Iterator[tuple[NotifierRun, Sink]]:
    with timed_sink(ground.folder) as sink, Notifier(lane=lane).running(ground, Task(sink.port)) as run:
        work_off(run, sink, _WARM, patience_seconds=60)
        # The urgent worker is a separate process.
        with _client(run) as client:
            taken = sink.taken()
            for number in range(_WARM):
                send(client, number, label="warm", lane=Lane.URGENT)
            wait_for(lambda: sink.taken() - taken >= _WARM, _PATIENCE_SECONDS)
        ground.postgres.checkpoint()
        yield run, sink


def _has_taken(sink: Sink, count: int) -> bool:
    return sink.taken() >= count


@contextlib.contextmanager
def _client(run: NotifierRun) -> Iterator[Client]:
    with Client(run.broker_url, producer="bench") as client:
        yield client
