"""The producers: they publish steadily with the real client, repeat what was not confirmed, and remember what was.

Two publish to the broker. A third writes into the outbox in its own database, and a relay publishes for it.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from threading import Event, Lock, Thread
from typing import Any
from uuid import UUID

from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError, SQLAlchemyError

from notifier.client.client import Client
from notifier.client.outbox import make_engine
from notifier.domain.errors import PublishFailed
from notifier.domain.message import new_id
from notifier.domain.statuses import Channel, Lane

PRODUCER = "chaos"
_BATCH = 12
#: After the load has ended, unconfirmed messages are published again for this long. Seconds.
_INSIST_SECONDS = 60.0

_serial = itertools.count(1)


@dataclass(slots=True)
class Published:
    id: UUID
    channel: Channel
    lane: Lane
    to: str
    number: int
    #: Written into the producer's database, for a relay to publish.
    by_outbox: bool = False
    #: The second of two messages with the same words to the same recipient.
    is_twin: bool = False
    #: The broker said that it holds the message, or the producer's transaction is committed.
    confirmed: bool = False

    def entry(self) -> dict[str, Any]:
        """Its fields of the contract. Repeating them repeats the same message."""
        return {
            "to": self.to,
            "id": self.id,
            "idempotency_key": f"k{self.number}{'-twin' if self.is_twin else ''}",
            "context": {"number": self.number},
        }


@dataclass(frozen=True, slots=True)
class Mix:
    """What is published: weights of mail and SMS, and of lanes."""

    mail: int = 6
    sms: int = 4
    lanes: Mapping[Lane, int] | None = None
    #: Messages per second, for all producers together.
    rate: float = 60.0
    #: Share of messages that go through the outbox.
    outbox: float = 0.15
    #: Publish every message twice, as two independent messages with the same words to the same recipient.
    in_pairs: bool = False
    #: Chance that a confirmed message is published once more.
    repeat: float = 0.02


class Load:
    """Producers in their own threads, from `start` to `stop`."""

    def __init__(
        self, broker_url: str, label: str, mix: Mix, seed: int, *, outbox_url: str = "", threads: int = 2
    ) -> None:
        self._url = broker_url
        self._outbox_url = outbox_url
        self._label = label
        self._mix = mix
        self._stop = Event()
        self._lock = Lock()
        self._insist_until = float("inf")
        share = mix.outbox if outbox_url else 0.0
        each = mix.rate * (1 - share) / threads
        works = [(self._produce_to_broker, each)] * threads + [(self._produce_to_outbox, mix.rate * share)]
        self._threads = [
            Thread(target=work, args=(Random(f"{seed}-{label}-{n}"), rate), name=f"producer-{n}")
            for n, (work, rate) in enumerate(works)
            if rate
        ]
        #: While it is set, they begin nothing new.
        self.is_held = False
        #: Everything that was published, confirmed or not, in order.
        self.messages: list[Published] = []
        #: Publishes that were not confirmed and had to be repeated.
        self.failures = 0
        #: The longest call of the client. The outbox is as fast as its database. Seconds.
        self.slowest_seconds = 0.0

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin nothing new. Messages in hand continue; `join` waits for them."""
        self._insist_until = time.monotonic() + _INSIST_SECONDS
        self._stop.set()

    def join(self) -> None:
        """Wait until every message in hand is confirmed, or its producer has given up."""
        for thread in self._threads:
            thread.join()

    def recent(self, count: int) -> list[Published]:
        """Some of the newest confirmed ones."""
        with self._lock:
            return [message for message in self.messages[-count:] if message.confirmed]

    def _produce_to_broker(self, rng: Random, rate: float) -> None:
        with Client(self._url, producer=PRODUCER, timeout_seconds=5) as client:

            def publish(messages: list[Published]) -> None:
                begun = time.monotonic()
                try:
                    self._send(client, messages)
                finally:
                    self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - begun)

            self._produce(rng, rate, publish)

    def _produce_to_outbox(self, rng: Random, rate: float) -> None:
        client, engine = Client(producer=PRODUCER), make_engine(self._outbox_url)

        def write(messages: list[Published]) -> None:
            try:
                with engine.begin() as connection:
                    self._send(client, messages, outbox=connection)
            except IntegrityError:
                # The rows are there: only the answer to the commit was lost.
                return
            except SQLAlchemyError as error:
                raise PublishFailed("the producer's own database is away") from error

        self._produce(rng, rate, write, by_outbox=True)
        engine.dispose()

    def _produce(
        self, rng: Random, rate: float, publish: Callable[[list[Published]], None], *, by_outbox: bool = False
    ) -> None:
        next_at = time.monotonic()
        while not self._stop.is_set():
            if self.is_held:
                self._stop.wait(0.05)
                continue
            count = _BATCH if rng.random() < 0.04 else 1
            messages = self._make(rng, count, by_outbox=by_outbox)
            self._insist(publish, messages)
            if rng.random() < self._mix.repeat:
                self._insist(publish, messages)
            # After a fault the producers do not catch up, because a steady load is enough.
            next_at = max(next_at + count / rate, time.monotonic() - 1 / rate)
            self._stop.wait(max(0.0, next_at - time.monotonic()))

    def _make(self, rng: Random, count: int, *, by_outbox: bool) -> list[Published]:
        channel = rng.choices([Channel.EMAIL, Channel.SMS], [self._mix.mail, self._mix.sms])[0]
        lanes = self._mix.lanes or {Lane.URGENT: 1}
        lane = rng.choices(list(lanes), list(lanes.values()))[0]
        made = []
        for _ in range(count):
            number = next(_serial)
            bucket = rng.randrange(10)
            mailbox, phone = f"m{number}.b{bucket}@chaos.example.com", f"+1555{number:06d}{bucket}"
            to = mailbox if channel is Channel.EMAIL else phone
            twins = (False, True) if self._mix.in_pairs else (False,)
            made += [Published(new_id(), channel, lane, to, number, by_outbox, is_twin) for is_twin in twins]
        with self._lock:
            self.messages += made
        return made

    def _insist(self, publish: Callable[[list[Published]], None], messages: list[Published]) -> None:
        while time.monotonic() < self._insist_until:
            try:
                publish(messages)
            except PublishFailed:
                self.failures += 1
                # As a producer would: a moment later, with the same keys.
                self._stop.wait(0.1)
            else:
                for message in messages:
                    message.confirmed = True
                return

    def _send(self, client: Client, messages: list[Published], outbox: Connection | None = None) -> None:
        first = messages[0]
        template = "notice" if first.channel is Channel.EMAIL else "code"
        common: dict[str, Any] = {
            "channel": first.channel,
            "lane": first.lane,
            "reference": self._label,
            "outbox": outbox,
        }
        if len(messages) > 1:
            client.send_many([message.entry() for message in messages], template=template, **common)
            return
        client.send(template, **common, **first.entry())
