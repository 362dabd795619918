"""A steady stream of single messages, from a thread of its own."""

from __future__ import annotations

import time
from threading import Event, Thread
from types import TracebackType
from typing import Self

from bench.service import Publisher, body
from notifier.broker.topology import routing_key
from notifier.dev.embedded.rabbitmq import amqp_connection
from notifier.domain.statuses import Channel, Lane

#: Maximum unconfirmed messages: a producer that is further ahead waits.
_WINDOW = 500
#: Shorter sleeps than this are not worthwhile: messages due in the meantime are sent together. Seconds.
_TICK_SECONDS = 0.002


class Stream:
    """Publishes `rate` messages a second while the block lasts."""

    def __init__(self, broker_url: str, *, rate: float, lane: Lane, label: str) -> None:
        self._broker_url = broker_url
        self._rate = rate
        self._lane = lane
        self._label = label
        self._stop = Event()
        self._thread = Thread(target=self._run, name="stream", daemon=True)
        #: Messages published so far.
        self.published = 0
        #: The error that ended it early, if any.
        self.error: BaseException | None = None

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        try:
            self._publish()
        except Exception as error:
            # Reported to whoever looks at the result: a stream that ended early has measured nothing.
            self.error = error

    def _publish(self) -> None:
        key = routing_key(Channel.EMAIL, self._lane)
        with amqp_connection(self._broker_url) as connection:
            publisher = Publisher(connection)
            begun = time.monotonic()
            while not self._stop.wait(_TICK_SECONDS):
                due = int((time.monotonic() - begun) * self._rate)
                while self.published < due:
                    publisher.publish(key, body(Channel.EMAIL, self.published, label=self._label))
                    self.published += 1
                publisher.take_confirmations()
                publisher.wait(_WINDOW)
            publisher.wait(0)
