"""Reads producers' queues on a Redis-protocol broker.

kombu's own consumer pops an entry and records it as unacknowledged in a second step, so a kill between the two
loses it, and an entry that is no kombu envelope ends the consumer. Here an entry is moved, atomically, into a list
of this reader's, and leaves that list when its batch is committed. Lists of readers that died are put back.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import replace
from functools import partial
from threading import Event
from typing import Any
from uuid import uuid4

import redis
from redis.exceptions import RedisError

from notifier import topology
from notifier.errors import Fault, ServiceUnavailable
from notifier.intake.accepting import BATCH_SIZE, Received
from notifier.intake.reading import PAUSES, Handle, run_together
from notifier.status import Channel, Lane
from notifier.telemetry import log

#: A reader that has not shown itself for this long is dead, and its lists go back to their queues. Seconds.
ALIVE_SECONDS = 30
#: A wait for the next entry is cut after this, to look at `stop`. Seconds.
BLOCK_SECONDS = 1

_TAKEN = "notifier:taken"
_ALIVE = "notifier:reader"

#: kombu puts messages with a priority into lists of their own: their names end so (`priority_steps` 3, 6, 9).
_PRIORITIES = ("\x06\x163", "\x06\x166", "\x06\x169")

# kombu pushes on the left and pops on the right: the oldest entry is on the right. KEYS[1] is the list of what was
# taken, the others are where to take from.
_TAKE = """
local room = tonumber(ARGV[1]) - redis.call('LLEN', KEYS[1])
for source = 2, #KEYS do
  while room > 0 and redis.call('LMOVE', KEYS[source], KEYS[1], 'RIGHT', 'LEFT') do room = room - 1 end
end
return redis.call('LRANGE', KEYS[1], 0, -1)
"""

_PUT_BACK = """
while redis.call('LMOVE', KEYS[1], KEYS[2], 'LEFT', 'RIGHT') do end
"""


class RedisReader:
    """One thread a queue, each blocking on its own connection."""

    def __init__(self, url: str, *, name: str | None = None) -> None:
        self._url = url
        #: Names this reader's lists; unique among the readers of a broker.
        self.name = name or uuid4().hex

    def run(self, handle: Handle, stop: Event) -> None:
        """See `Reader.run`."""
        readers = [partial(self._read_queue, *pair, handle, stop) for pair in topology.pairs()]
        log.info("intake.reading", broker="redis")
        run_together([*readers, partial(self._keep_alive, stop)], stop)
        self._forget()

    def _client(self) -> redis.Redis:
        # The answer to a blocking call comes after up to BLOCK_SECONDS; a dead peer answers never.
        return redis.Redis.from_url(
            self._url, socket_timeout=BLOCK_SECONDS + 5, socket_connect_timeout=5, socket_keepalive=True
        )

    def _keep_alive(self, stop: Event) -> None:
        with self._client() as client:
            while not stop.is_set():
                try:
                    client.set(f"{_ALIVE}:{self.name}", "alive", ex=ALIVE_SECONDS)
                    self._rescue(client)
                except RedisError as error:
                    log.warning("intake.broker_away", error=type(error).__name__)
                stop.wait(ALIVE_SECONDS / 6)

    def _rescue(self, client: redis.Redis) -> None:
        """Put back what dead readers had taken. A reader that only slept has its batch accepted twice: by key."""
        for found in client.scan_iter(match=f"{_TAKEN}:*", count=1000):
            key = found.decode()
            _, _, name, queue = key.split(":", 3)
            if name != self.name and not client.exists(f"{_ALIVE}:{name}"):
                client.eval(_PUT_BACK, 2, key, queue)
                log.warning("intake.put_back", queue=queue, consumer=name)

    def _forget(self) -> None:
        """A clean end: what is left in our lists can be taken by the next reader at once."""
        try:
            with self._client() as client:
                client.delete(f"{_ALIVE}:{self.name}")
        except RedisError:
            pass  # it expires by itself

    def _read_queue(self, channel: Channel, lane: Lane, handle: Handle, stop: Event) -> None:
        queue = topology.notify_queue_name(channel, lane)
        taken = f"{_TAKEN}:{self.name}:{queue}"
        failures = 0
        with self._client() as client:
            while not stop.is_set():
                try:
                    self._read_batch(client, queue, taken, channel, lane, handle, again=failures > 0)
                    failures = 0
                except (RedisError, ServiceUnavailable) as error:
                    # What we took stays in our list; the next round begins with it.
                    pause = PAUSES[min(failures, len(PAUSES) - 1)]
                    failures += 1
                    log.warning("intake.waiting", queue=queue, error=type(error).__name__, seconds=pause)
                    stop.wait(pause)

    def _read_batch(
        self,
        client: redis.Redis,
        queue: str,
        taken: str,
        channel: Channel,
        lane: Lane,
        handle: Handle,
        *,
        again: bool,
    ) -> None:
        sources = [queue, *(queue + ending for ending in _PRIORITIES)]
        items: list[bytes] = client.eval(_TAKE, 1 + len(sources), taken, *sources, str(BATCH_SIZE))
        if items:
            received = (open_envelope(item, channel, lane) for item in reversed(items))
            # After a failure some of these may be in the record.
            handle([replace(one, redelivered=again) for one in received])
            client.delete(taken)
        else:
            # Wakes at once for the ordinary list; the others are looked at every second.
            client.blmove(queue, taken, BLOCK_SECONDS, "RIGHT", "LEFT")


def open_envelope(item: bytes, channel: Channel, lane: Lane) -> Received:
    """One entry of a list as kombu wrote it. Whatever else it is comes back with a fault, whole."""
    fault: Fault
    try:
        envelope: Any = json.loads(item)
    except (ValueError, RecursionError):
        fault = Fault("", "not_an_envelope", "a list entry that is no kombu envelope", _FIX)
        return Received(item, channel, lane, faults=(fault,))
    if not isinstance(envelope, dict) or not {"body", "properties"} <= envelope.keys():
        fault = Fault("", "not_an_envelope", "a list entry that is no kombu envelope", _FIX)
        return Received(item, channel, lane, faults=(fault,))
    headers, properties = envelope.get("headers") or {}, envelope["properties"]
    body = _body(envelope["body"], properties)
    if body is None or not isinstance(headers, dict):
        fault = Fault("", "bad_envelope", "a kombu envelope with wrong body, headers or properties", _FIX)
        return Received(item, channel, lane, faults=(fault,))
    return Received(
        body,
        channel,
        lane,
        headers=headers,
        content_type=_word(envelope.get("content-type")),
        content_encoding=_word(envelope.get("content-encoding")),
    )


_FIX = "Publish with notifier's client or another kombu producer; from other languages use HTTP or RabbitMQ"


def _body(body: Any, properties: Any) -> bytes | None:
    if not isinstance(body, str) or not isinstance(properties, dict):
        return None
    if properties.get("body_encoding") != "base64":
        return body.encode("utf-8", "surrogatepass")
    try:
        return base64.b64decode(body, validate=True)
    except (binascii.Error, ValueError):
        return None


def _word(value: Any) -> str | None:
    return value if isinstance(value, str) else None
