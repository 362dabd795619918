"""Publishes strange messages to RabbitMQ, with the bytes of the content header unchanged."""

from __future__ import annotations

import json
from collections import Counter
from random import Random
from typing import Any

import amqp

from notifier.broker.amqp_transport import RawMessage
from tests.support.brokers import amqp_connection
from tests.support.strange import properties, values
from tests.waiting import patient


class Attack:
    """One connection, reopened whenever RabbitMQ closes it."""

    def __init__(self, url: str, rng: Random) -> None:
        self._url = url
        self._rng = rng
        self._connection: Any = None
        #: Kind → count: "good", "odd" (on producers' queues), "tasks", "commands", and "refused" by RabbitMQ.
        self.counts: Counter[str] = Counter()

    def publish(self, count: int) -> None:
        """Publish this many messages, of all kinds."""
        for _ in range(count):
            kind = self._rng.choices(["good", "odd", "tasks", "commands"], [35, 40, 22, 3])[0]
            made = getattr(self, f"_{kind}")()
            self.counts[kind if self._send(*made) else "refused"] += 1
        self.close()

    def close(self) -> None:
        """Close the connection."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _good(self) -> tuple[str, bytes, bytes, bytes]:
        key = self._rng.choice(values.KEYS)
        return "notify", key.encode(), properties.plain(), json.dumps(values.good(self._rng, key)).encode()

    def _odd(self) -> tuple[str, bytes, bytes, bytes]:
        key = self._rng.choice(values.KEYS)
        body = values.mutated(self._rng, key)
        if self._rng.random() < 0.1:
            # The routing key beside it is random bytes; the header decides the queue.
            copy = b"\x02CCA" + _long(b"S" + _long(key.encode()))
            raw = properties.wire({"application_headers": copy})
            return "notify", self._rng.choice([b"\xff\xfe", b"\xed\xa0\x80", b"\0", b"x" * 255, b""]), raw, body
        if self._rng.random() < 0.3:
            body = json.dumps(values.good(self._rng, key)).encode()
        raw = properties.mutated(self._rng)
        if self._rng.random() < 0.1:
            raw = properties.with_headers(values.task_headers(self._rng), self._rng)
        return "notify", key.encode(), raw, body

    def _tasks(self) -> tuple[str, bytes, bytes, bytes]:
        queue = self._rng.choice(values.WORK_QUEUES)
        headers = values.task_headers(self._rng)
        raw = properties.with_headers(headers, self._rng)
        body = values.task_body(self._rng)
        if self._rng.random() < 0.3:
            raw = properties.mutated(self._rng)
        if self._rng.random() < 0.2:
            body = values.mutated(self._rng, "email.bulk")
        return "", queue.encode(), raw, body

    def _commands(self) -> tuple[str, bytes, bytes, bytes]:
        raw = properties.with_headers({"clock": self._rng.choice(values.ODD)}, self._rng)
        if self._rng.random() < 0.3:
            raw = properties.mutated(self._rng)
        return "celery.pidbox", self._rng.choice([b"", b"\xff"]), raw, values.command_body(self._rng)

    def _send(self, exchange: str, key: bytes, raw: bytes, body: bytes) -> bool:
        try:
            if self._connection is None:
                self._connection = amqp_connection(self._url)
                self._channel = self._connection.channel()
            self._channel.basic_publish_confirm(
                RawMessage(body, raw),
                exchange=exchange,
                routing_key=key,
                mandatory=exchange == "notify",
                confirm_timeout=patient(30),
            )
        except (amqp.exceptions.AMQPError, OSError, UnicodeDecodeError):
            # RabbitMQ itself refuses some of them, by closing the connection with words from the message.
            try:
                self._connection.collect()
            finally:
                self._connection = None
            return False
        return True


def publish_properties(url: str, exchange: str, key: bytes, raw: bytes, body: bytes) -> None:
    """Publish one message whose properties are these bytes.

    Raises:
        AMQPError: RabbitMQ refused it.
    """
    with amqp_connection(url) as connection:
        connection.channel().basic_publish_confirm(
            RawMessage(body, raw), exchange=exchange, routing_key=key, mandatory=True, confirm_timeout=patient(30)
        )


def _long(value: bytes) -> bytes:
    return len(value).to_bytes(4, "big") + value
