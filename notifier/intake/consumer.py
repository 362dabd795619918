"""The interface between a broker and the intake, and the reader for a broker's URL."""

from __future__ import annotations

from threading import Event
from typing import Protocol

from notifier.broker import topology
from notifier.intake.batch import Handle


class Reader(Protocol):
    """Reads every producers' queue."""

    def run(self, handle: Handle, stop: Event) -> None:
        """Read until `stop` is set, then finish the batch in hand and return. Survives losing the broker."""
        ...


def make_reader(broker_url: str) -> Reader:
    """The reader for this broker. Imports only the library of its kind.

    Raises:
        ConfigurationError: the URL is not of a supported broker.
    """
    broker_url = topology.verified(broker_url)
    if topology.is_redis(broker_url):
        from notifier.intake.redis import RedisReader

        return RedisReader(broker_url)
    from notifier.intake.rabbitmq import AmqpReader

    return AmqpReader(broker_url)
