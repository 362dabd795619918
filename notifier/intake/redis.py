"""Reads producers' queues on a Redis-protocol broker.

kombu's own consumer pops an entry and records it as unacknowledged in a second step, so a kill between the two
loses the entry, and an entry that is no kombu envelope ends the consumer. Here an entry is moved, atomically, into
a list of this reader, and leaves that list when its batch is committed.

The entries that a dead reader had in hand may be why it died. They go into a list from which a process takes one
entry at a time, each with the number of readers that ended while they had it in hand. At
`topology.TAKINGS_LIMIT` the entry is rejected as it is. So only the entry that ends readers is given up, not its
neighbours.
"""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import replace
from functools import partial
from threading import Event, Lock
from typing import Any
from uuid import uuid4

import redis
from redis.exceptions import RedisError, ResponseError

from notifier.broker import topology
from notifier.broker.redis_transport import set_aside
from notifier.broker.server_certificate import certificate_problem
from notifier.config.logs import Outage, log, log_failure
from notifier.domain.errors import Fault, ServiceUnavailable
from notifier.domain.statuses import Channel, Lane
from notifier.intake.batch import BATCH_SIZE, Handle, Received
from notifier.intake.threads import run_together
from notifier.runtime.backoff import pause_seconds
from notifier.telemetry.liveness import LIVENESS

#: A reader without a sign of life for this long counts as dead, and its entries are put back. Seconds.
ALIVE_SECONDS = 30
#: Longest wait for an entry before `stop` is checked. Seconds.
BLOCK_SECONDS = 1

#: Key prefixes: a reader's batch; the one entry that it takes alone; entries to take alone; its sign of life.
_TAKEN, _SUSPECT, _AGAIN, _ALIVE = "notifier:taken", "notifier:suspect", "notifier:again", "notifier:reader"

#: Suffixes of kombu's lists for messages with a priority (`priority_steps` 3, 6, 9).
_PRIORITIES = ("\x06\x163", "\x06\x166", "\x06\x169")

# kombu pushes on the left and pops on the right, so the oldest entry is on the right. KEYS[1] is the list of taken
# entries, the other keys are the sources.
_TAKE = """
local room = tonumber(ARGV[1]) - redis.call('LLEN', KEYS[1])
local bytes = tonumber(ARGV[2])
for source = 2, #KEYS do
  while room > 0 and bytes > 0 do
    local item = redis.call('LMOVE', KEYS[source], KEYS[1], 'RIGHT', 'LEFT')
    if not item then break end
    room, bytes = room - 1, bytes - #item
  end
end
return redis.call('LRANGE', KEYS[1], 0, -1)
"""
#: Maximum entries and bytes of a batch; a larger entry comes alone.
_LIMITS = (str(BATCH_SIZE), str(32 * 1024 * 1024))

# An entry to be taken alone begins with "3:" if three readers ended with it in hand.
_PUT_BACK = """
while true do
  local item = redis.call('LPOP', KEYS[1])
  if not item then return end
  local count = 0
  if string.sub(KEYS[1], 1, 17) == 'notifier:suspect:' then
    local colon = string.find(item, ':', 1, true) or 0
    count = tonumber(string.sub(item, 1, colon - 1)) or 0
    item = string.sub(item, colon + 1)
  end
  redis.call('RPUSH', KEYS[2], string.format('%d:', count + 1) .. item)
end
"""


class _Lists:
    """The names of one reader's lists for one queue."""

    def __init__(self, reader: str, channel: Channel, lane: Lane) -> None:
        self.channel, self.lane = channel, lane
        self.queue = topology.notify_queue_name(channel, lane)
        #: The lists that messages come from.
        self.sources = [self.queue, *(self.queue + ending for ending in _PRIORITIES)]
        self.taken = f"{_TAKEN}:{reader}:{self.queue}"
        self.suspect = f"{_SUSPECT}:{reader}:{self.queue}"
        self.again = f"{_AGAIN}:{self.queue}"


class RedisReader:
    """Reads every queue in a thread of its own, each blocking on its own connection."""

    def __init__(self, url: str, *, name: str | None = None) -> None:
        self._url = url
        #: Part of the names of its lists; unique among the readers of one broker.
        self.name = name or uuid4().hex
        #: Held by the thread that has an entry in hand which may have ended a reader.
        self._alone = Lock()
        self._outage = Outage("intake.broker_away", "intake.broker_back")
        #: Foreign keys that were logged already.
        self._strange: set[bytes] = set()

    def run(self, handle: Handle, stop: Event) -> None:
        readers = [partial(self._read_queue, _Lists(self.name, *pair), handle, stop) for pair in topology.pairs()]
        log.info("intake.reading", broker="redis")
        run_together([*readers, partial(self._keep_alive, stop)], stop)
        self._forget()

    def _client(self) -> redis.Redis:
        # The answer to a blocking call takes up to BLOCK_SECONDS; a dead peer never answers.
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
                    self._say_away(error)
                except Exception as error:
                    log_failure("intake.failed", error)
                stop.wait(ALIVE_SECONDS / 6)

    def _say_away(self, error: RedisError) -> None:
        self._outage.goes_on(error, reason=certificate_problem(error, self._url) or "away")

    def _rescue(self, client: redis.Redis) -> None:
        """Put back what dead readers had in hand. If a reader only slept, idempotency keys make the second copy a
        duplicate."""
        for prefix in (_TAKEN, _SUSPECT):
            for key in client.scan_iter(match=f"{prefix}:*", count=1000):
                found = _reader_and_queue(key, prefix)
                if found is None:
                    self._tell_of_strange(key)
                    continue
                name, queue = found
                if name == self.name or client.exists(f"{_ALIVE}:{name}"):
                    continue
                if set_aside(client, key.decode(), "list") is None:
                    client.eval(_PUT_BACK, 2, key, f"{_AGAIN}:{queue}")
                    log.warning("intake.put_back", queue=queue, consumer=name)

    def _tell_of_strange(self, key: bytes) -> None:
        if key not in self._strange and len(self._strange) < 1000:
            self._strange.add(key)
            name = key[:100].decode("utf-8", "backslashreplace")
            log.warning("intake.strange_key", reason=f"{name} belongs to no reader: delete it")

    def _forget(self) -> None:
        """Remove our sign of life, so that the next reader can take what is left in our lists at once."""
        try:
            with self._client() as client:
                client.delete(f"{_ALIVE}:{self.name}")
        except RedisError:
            pass  # it expires by itself

    def _read_queue(self, lists: _Lists, handle: Handle, stop: Event) -> None:
        failures = 0
        with self._client() as client:
            while not stop.is_set():
                LIVENESS.turned(lists.queue)
                try:
                    self._read(client, lists, handle, again=failures > 0)
                    failures = 0
                    self._outage.is_over()
                    continue
                except ResponseError as error:
                    log.warning("intake.waiting", queue=lists.queue, error=type(error).__name__)
                    _tidy(client, lists)
                except RedisError as error:
                    # The entries that we took stay in our list; the next round begins with them.
                    self._say_away(error)
                except ServiceUnavailable as error:
                    log.warning("intake.waiting", queue=lists.queue, error=type(error).__name__)
                except Exception as error:
                    log_failure("intake.failed", error, queue=lists.queue)
                    _set_apart(client, lists)
                stop.wait(pause_seconds(failures))
                failures += 1
        LIVENESS.ended(lists.queue)

    def _read(self, client: redis.Redis, lists: _Lists, handle: Handle, *, again: bool) -> None:
        if client.exists(lists.again, lists.suspect):
            with self._alone:
                _read_suspect(client, lists, handle)
            return
        items: list[bytes] = client.eval(_TAKE, 1 + len(lists.sources), lists.taken, *lists.sources, *_LIMITS)
        if items:
            received = (open_envelope(item, lists.channel, lists.lane) for item in reversed(items))
            # After a failure some of these may be in the record.
            handle([replace(one, redelivered=again) for one in received])
            client.delete(lists.taken)
        else:
            # Wakes at once for the ordinary list; the lists with a priority are read every second.
            client.blmove(lists.queue, lists.taken, BLOCK_SECONDS, "RIGHT", "LEFT")


def _read_suspect(client: redis.Redis, lists: _Lists, handle: Handle) -> None:
    """Read one entry that a reader ended with, alone."""
    item: Any = client.lindex(lists.suspect, 0)
    if item is None:
        item = client.lmove(lists.again, lists.suspect, "RIGHT", "LEFT")
    if item is None:
        return
    count, _, entry = item.partition(b":")
    times = int(count) if count.isdigit() and len(count) < 10 else 1
    received = replace(open_envelope(entry, lists.channel, lists.lane), redelivered=True)
    if times >= topology.TAKINGS_LIMIT:
        fix = "Report it; `notifier rejected replay` publishes it again"
        problem = f"the intake died {times} times while it handled the message"
        received = replace(received, faults=(Fault("", "gave_up", problem, fix), *received.faults))
    handle([received])
    client.delete(lists.suspect)


def _set_apart(client: redis.Redis, lists: _Lists) -> None:
    """Our own code failed with these entries in hand: count that as if the reader had died of them."""
    try:
        for key in (lists.taken, lists.suspect):
            client.eval(_PUT_BACK, 2, key, lists.again)
    except RedisError as error:
        log.warning("intake.waiting", queue=lists.queue, error=type(error).__name__)


def _tidy(client: redis.Redis, lists: _Lists) -> None:
    """Move aside keys that are not lists: the server refused a command, most likely because of one."""
    try:
        for key in (*lists.sources, lists.taken, lists.suspect, lists.again):
            set_aside(client, key, "list")
    except RedisError as error:
        log.warning("intake.waiting", queue=lists.queue, error=type(error).__name__)


def _reader_and_queue(key: bytes, prefix: str) -> tuple[str, str] | None:
    """The reader and queue of a list; None: the list belongs to no reader."""
    try:
        rest = key.decode().removeprefix(f"{prefix}:")
    except UnicodeDecodeError:
        return None
    for pair in topology.pairs():
        queue = topology.notify_queue_name(*pair)
        if rest.endswith(f":{queue}") and len(rest) > len(queue) + 1:
            return rest.removesuffix(f":{queue}"), queue
    return None


def open_envelope(item: bytes, channel: Channel, lane: Lane) -> Received:
    """Read a list entry as kombu wrote it. Anything else is returned whole, with a fault."""

    try:
        envelope: Any = json.loads(item)
    except (ValueError, RecursionError):
        envelope = None
    if not isinstance(envelope, dict) or not {"body", "properties"} <= envelope.keys():
        fault = Fault("", "not_an_envelope", "a list entry that is not a kombu envelope", _FIX)
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
