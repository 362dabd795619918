"""Puts strange data onto a Redis-protocol broker: entries of lists, keys of the wrong type, leftovers of dead
readers."""

from __future__ import annotations

import base64
import json
from collections import Counter
from collections.abc import Callable
from random import Random
from typing import Any

import redis
from redis.exceptions import ResponseError

from tests.support.strange import values

_PRIORITIES = ("", "", "", "\x06\x163", "\x06\x169")
#: Names of our keys that are not producers' queues.
_OUR_KEYS = (
    "unacked",
    "unacked_index",
    "unacked_mutex",
    "_kombu.binding.deliver",
    "_kombu.binding.celery.pidbox",
    "_kombu.binding.celeryev",
    "_kombu.binding_deadlines",
    "notifier:taken:x",
    "notifier:taken:",
    b"notifier:taken:\xff",
    "notifier:suspect:x:y",
    "notifier:taken:dead:notify.email.nowhere",
    "notifier:again:x",
    "notifier:reader:",
)


class Attack:
    """A connection that writes whatever it likes."""

    def __init__(self, url: str, rng: Random) -> None:
        self._client = redis.Redis.from_url(url)
        self._rng = rng
        #: Kind → count: "good" and "odd" (entries of producers' queues), "left" (by a dead reader), "tasks",
        #: "keys", "commands"; "refused": by the server, because the key has another type.
        self.counts: Counter[str] = Counter()

    def publish(self, count: int) -> None:
        """Publish this many messages, of all kinds."""
        for _ in range(count):
            kinds = ["good", "odd", "left", "tasks", "keys", "commands"]
            kind = self._rng.choices(kinds, [33, 35, 4, 20, 5, 3])[0]
            try:
                getattr(self, f"_{kind}")()
            except ResponseError:
                kind = "refused"
            self.counts[kind] += 1

    def close(self) -> None:
        """Close the connection."""
        self._client.close()

    def _good(self) -> None:
        key = self._rng.choice(values.KEYS)
        body = json.dumps(values.good(self._rng, key)).encode()
        self._client.lpush(f"notify.{key}", json.dumps(envelope(body, {})).encode())

    def _odd(self) -> None:
        key = self._rng.choice(values.KEYS)
        self._client.lpush(f"notify.{key}{self._rng.choice(_PRIORITIES)}", self._entry(key))

    def _left(self) -> None:
        """Write what a reader had in hand when it died."""
        key, entry = self._rng.choice(values.KEYS), self._entry(self._rng.choice(values.KEYS))
        count = self._rng.choice([b"1:", b"2:", b"9:", b"", b"x:", b"99999999999999999999:", b"\xff:"])
        name = self._rng.choice(["taken:dead", "taken:a:b", "suspect:dead", "again"])
        self._client.lpush(f"notifier:{name}:notify.{key}", entry if name.startswith("taken") else count + entry)

    def _tasks(self) -> None:
        queue = self._rng.choice(values.WORK_QUEUES) + self._rng.choice(_PRIORITIES)
        made = envelope(values.task_body(self._rng), values.task_headers(self._rng))
        self._client.lpush(queue, self._broken(made))

    def _keys(self) -> None:
        """Write only where nothing is; otherwise we would delete what is there."""
        queues = [*(f"notify.{key}" for key in values.KEYS), *values.WORK_QUEUES]
        names = [*_OUR_KEYS, *(f"{queue}{self._rng.choice(_PRIORITIES)}" for queue in queues)]
        name = str(self._rng.choice(names))
        if self._rng.random() < 0.2:
            self._client.hset(
                "unacked", self._rng.randbytes(3), self._rng.choice([b"x", b"[1,2,3]", b"5", b"[" * 3000])
            )
            self._client.zadd("unacked_index", {self._rng.randbytes(3): 0})
            self._client.sadd("_kombu.binding.deliver", self._rng.randbytes(9))
        elif not self._client.exists(name):
            make: Callable[[], object] = self._rng.choice(
                [
                    lambda: self._client.set(name, b"\xff", nx=True),
                    lambda: self._client.hset(name, "a", "b"),
                    lambda: self._client.sadd(name, "x"),
                ]
            )
            make()

    def _commands(self) -> None:
        body = envelope(values.command_body(self._rng), {"clock": self._rng.choice(values.ODD)})
        self._client.publish("/0.celery.pidbox", self._broken(body))

    def _entry(self, key: str) -> bytes:
        body = values.mutated(self._rng, key)
        headers = {} if self._rng.random() < 0.7 else values.task_headers(self._rng)
        return self._broken(envelope(body, headers))

    def _broken(self, made: dict[str, Any]) -> bytes:
        """The envelope as bytes; half of the time something is wrong with it."""
        rng = self._rng
        kind = rng.randrange(10)
        if kind == 0:
            made[rng.choice(list(made))] = rng.choice(values.ODD)
        elif kind == 1:
            made["properties"][rng.choice(list(made["properties"]))] = rng.choice(values.ODD)
        elif kind == 2:
            made.pop(rng.choice(list(made)))
        elif kind == 3:
            made["properties"].pop(rng.choice(list(made["properties"])))
        entry = json.dumps(made).encode()
        if kind == 4:
            return rng.choice(
                [b"", b"5", b"null", b"[]", b'"x"', b"{}", b"[" * 3000, b'{"a":' * 3000, rng.randbytes(80)]
            )
        if kind == 5:
            return entry[: rng.randrange(len(entry))]
        return entry


def envelope(body: bytes, headers: Any) -> dict[str, Any]:
    """kombu's envelope."""
    return {
        "body": base64.b64encode(body).decode(),
        "content-encoding": "utf-8",
        "content-type": "application/json",
        "headers": headers,
        "properties": {
            "delivery_mode": 2,
            "delivery_info": {"exchange": "", "routing_key": ""},
            "priority": 0,
            "body_encoding": "base64",
            "delivery_tag": base64.b64encode(body[:9]).decode(),
            "correlation_id": "c",
            "reply_to": "r",
        },
    }
