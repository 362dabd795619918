"""The seam between a broker and the intake, and the choice of reader by the broker's URL."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from threading import Event
from typing import Protocol

from notifier import topology
from notifier.intake.accepting import Received

#: Takes a batch; when it returns, the batch is recorded. Raises ServiceUnavailable to have it kept.
Handle = Callable[[Sequence[Received]], object]

#: Pauses while the database or the broker is away: doubling, up to the last. Seconds.
PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)


class Reader(Protocol):
    """Reads every queue of producers."""

    def run(self, handle: Handle, stop: Event) -> None:
        """Read until `stop` is set, then finish the batch in hand and return. Survives the broker going away."""
        ...


def make_reader(broker_url: str) -> Reader:
    """The reader for this kind of broker. The other one's library is not loaded."""
    if topology.is_redis(broker_url):
        from notifier.intake.redis import RedisReader

        return RedisReader(broker_url)
    from notifier.intake.amqp import AmqpReader

    return AmqpReader(broker_url)
