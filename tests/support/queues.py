"""Reads what waits in the producers' queues, on either broker."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import redis

from tests.support.brokers import amqp_connection


def bodies(broker_url: str, queue: str) -> Iterator[bytes]:
    """Every body in the queue, oldest first; on RabbitMQ they are taken out."""
    if broker_url.startswith("redis"):
        with redis.Redis.from_url(broker_url) as client:
            for envelope in reversed(client.lrange(queue, 0, -1)):
                yield base64.b64decode(json.loads(envelope)["body"])
        return
    with amqp_connection(broker_url) as connection:
        channel = connection.channel()
        while message := channel.basic_get(queue, no_ack=True):
            body: str | bytes = message.body
            yield body.encode() if isinstance(body, str) else body
