"""The seam between a broker and the intake, and the choice of reader by the broker's URL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_EXCEPTION, ThreadPoolExecutor, wait
from threading import Event
from typing import Protocol

from notifier.broker import topology
from notifier.intake.service import Received

#: Takes a batch; when it returns, the batch is recorded. Raises ServiceUnavailable to have it kept.
Handle = Callable[[Sequence[Received]], object]

#: Pauses while the database or the broker is away: doubling, up to the last. Seconds.
PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)


class Reader(Protocol):
    """Reads every queue of producers."""

    def run(self, handle: Handle, stop: Event) -> None:
        """Read until `stop` is set, then finish the batch in hand and return. Survives the broker going away."""
        ...


def run_together(parts: Sequence[Callable[[], None]], stop: Event) -> None:
    """Run each part in a thread until all have ended.

    If one fails, the others are told to stop and its error is raised: a queue that nobody reads must not go
    unnoticed.
    """
    with ThreadPoolExecutor(len(parts)) as threads:
        running = [threads.submit(part) for part in parts]
        ended, _ = wait(running, return_when=FIRST_EXCEPTION)
        if any(part.exception() for part in ended):
            stop.set()
    for part in running:
        part.result()


def make_reader(broker_url: str) -> Reader:
    """The reader for this kind of broker. The other one's library is not loaded."""
    if topology.is_redis(broker_url):
        from notifier.intake.redis import RedisReader

        return RedisReader(broker_url)
    from notifier.intake.rabbitmq import AmqpReader

    return AmqpReader(broker_url)
