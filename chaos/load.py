"""Producers: they publish steadily with the real client, repeat what was not confirmed, and remember what was."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from threading import Event, Lock, Thread
from typing import Any
from uuid import UUID

from notifier.client import Client
from notifier.errors import PublishFailed
from notifier.message import new_id
from notifier.status import Channel, Lane

PRODUCER = "chaos"
_BATCH = 12
#: After the load has ended, what is still in hand is published again for so long.
_INSIST_SECONDS = 60.0

_serial = itertools.count(1)


@dataclass(slots=True)
class Published:
    """One message of a producer."""

    id: UUID
    channel: Channel
    lane: Lane
    to: str
    number: int
    #: The broker said that it holds it.
    confirmed: bool = False

    def entry(self) -> dict[str, Any]:
        """Its fields of the contract. Repeating them is the same message."""
        return {
            "to": self.to,
            "id": self.id,
            "idempotency_key": f"k{self.number}",
            "context": {"number": self.number},
        }


@dataclass(frozen=True, slots=True)
class Mix:
    """What is published: weights of mail and SMS, and of lanes."""

    mail: int = 6
    sms: int = 4
    lanes: Mapping[Lane, int] | None = None
    #: Messages a second, of all producers together.
    rate: float = 60.0
    #: Chance that a message is published once more although it was confirmed.
    repeat: float = 0.02


class Load:
    """Producers on threads of their own, from `start` to `stop`."""

    def __init__(self, broker_url: str, label: str, mix: Mix, seed: int, threads: int = 2) -> None:
        self._url = broker_url
        self._label = label
        self._mix = mix
        self._stop = Event()
        self._lock = Lock()
        self._insist_until = float("inf")
        self._threads = [
            Thread(target=self._produce, args=(Random(f"{seed}-{label}-{n}"), threads), name=f"producer-{n}")
            for n in range(threads)
        ]
        #: Everything that was published, confirmed or not, in order.
        self.messages: list[Published] = []
        #: Publishes that were not confirmed and had to be repeated.
        self.failures = 0
        #: The longest that one call of the client took. Seconds.
        self.slowest_seconds = 0.0

    def start(self) -> None:
        """Begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """Begin nothing new. What is in hand goes on: `join` waits for it."""
        self._insist_until = time.monotonic() + _INSIST_SECONDS
        self._stop.set()

    def join(self) -> None:
        """Wait until every message in hand is confirmed, or given up by its producer."""
        for thread in self._threads:
            thread.join()

    def recent(self, count: int) -> list[Published]:
        """Some of the newest confirmed ones."""
        with self._lock:
            return [message for message in self.messages[-count:] if message.confirmed]

    def _produce(self, rng: Random, threads: int) -> None:
        pause = threads / self._mix.rate
        next_at = time.monotonic()
        with Client(self._url, producer=PRODUCER, timeout_seconds=5) as client:
            while not self._stop.is_set():
                count = _BATCH if rng.random() < 0.04 else 1
                messages = self._make(rng, count)
                self._insist(client, messages)
                if rng.random() < self._mix.repeat:
                    self._insist(client, messages)
                # After a fault the producers do not catch up: a steady load is enough.
                next_at = max(next_at + pause * count, time.monotonic() - pause)
                self._stop.wait(max(0.0, next_at - time.monotonic()))

    def _make(self, rng: Random, count: int) -> list[Published]:
        channel = rng.choices([Channel.EMAIL, Channel.SMS], [self._mix.mail, self._mix.sms])[0]
        lanes = self._mix.lanes or {Lane.URGENT: 1}
        lane = rng.choices(list(lanes), list(lanes.values()))[0]
        made = []
        for _ in range(count):
            number = next(_serial)
            bucket = rng.randrange(10)
            mailbox, phone = f"m{number}.b{bucket}@chaos.example.com", f"+1555{number:06d}{bucket}"
            to = mailbox if channel is Channel.EMAIL else phone
            made.append(Published(new_id(), channel, lane, to, number))
        with self._lock:
            self.messages += made
        return made

    def _insist(self, client: Client, messages: list[Published]) -> None:
        while time.monotonic() < self._insist_until:
            begun = time.monotonic()
            try:
                self._publish(client, messages)
            except PublishFailed:
                self.failures += 1
                # As a producer would: a moment later, with the same keys.
                self._stop.wait(0.1)
            else:
                for message in messages:
                    message.confirmed = True
                return
            finally:
                self.slowest_seconds = max(self.slowest_seconds, time.monotonic() - begun)

    def _publish(self, client: Client, messages: list[Published]) -> None:
        first = messages[0]
        template = "notice" if first.channel is Channel.EMAIL else "code"
        if len(messages) > 1:
            entries = [message.entry() for message in messages]
            common: dict[str, Any] = {"template": template, "reference": self._label}
            client.send_many(entries, channel=first.channel, lane=first.lane, **common)
            return
        client.send(template, channel=first.channel, lane=first.lane, reference=self._label, **first.entry())
