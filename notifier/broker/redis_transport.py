"""kombu's transport for Redis-protocol brokers, with two fixes.

A closed channel reports that it is closed. When a worker loses its connection, it closes the channels, which puts
back the tasks in hand. The tasks themselves go on, and are acknowledged later. Both need a connection. If the
server is dead, closing one channel can fail and leave the others half-closed. Then kombu 5.7 looks for the host's
name in an object that is gone. The AttributeError is not one of its connection errors, so Celery takes it for a
bug and ends the worker. After a lost connection, in contrast, it connects again. The tasks come back after the
visibility timeout, and find nothing left to claim.

Foreign values under our names end nothing. kombu takes an entry out of a list and then opens it without a guard.
An entry that is no envelope, or a string where a list should be, ends the worker. Here an entry that cannot be
opened is dropped with a line in the log (tasks are dispatched again from the record), and a key of another type is
renamed, so that the name is free.
"""

from __future__ import annotations

from collections.abc import Callable
from queue import Empty
from typing import Any
from uuid import uuid4

import kombu
from kombu.transport import redis as stock
from redis.exceptions import ConnectionError as ConnectionLost
from redis.exceptions import ResponseError

from notifier.broker import topology
from notifier.broker.amqp_transport import refuse_compression
from notifier.config.logs import log

#: Foreign values under our names are renamed to this, a unique part, and the name.
STRANGE = "notifier:strange"

#: Without KeyError, which kombu includes but which a malformed envelope raises as well.
CONNECTION_LOST = tuple(kind for kind in stock.Transport.connection_errors if not issubclass(kind, LookupError))

_SET_ASIDE = """
local found = redis.call('TYPE', KEYS[1]).ok
if found == 'none' or found == ARGV[1] then return false end
redis.call('RENAME', KEYS[1], KEYS[2])
return found
"""


def set_aside(client: Any, key: str, wanted: str) -> str | None:
    """Rename the value at `key` if it is not of the type `wanted`. Returns its type; None if nothing was
    renamed."""
    found: bytes | None = client.eval(_SET_ASIDE, 2, key, f"{STRANGE}:{uuid4().hex}:{key}", wanted)
    if found is None:
        return None
    reason = (
        f"a {found.decode()} stood where a {wanted} belongs: it is now {STRANGE}:…:{key} now, for you to delete"
    )
    log.warning("broker.strange_key", queue=key, reason=reason)
    return found.decode()


class RedisMessage(stock.Channel.Message):  # type: ignore[misc]  # kombu's types are skipped
    """Nothing is decompressed: a few bytes would become gigabytes, and none of our programs compress."""

    def __init__(self, payload: Any, channel: Any = None, **options: Any) -> None:
        refuse_compression(payload.get("headers"))
        super().__init__(payload, channel=channel, **options)


class RedisQoS(stock.QoS):  # type: ignore[misc]
    """The messages that Celery has in hand. They are in keys that anybody may write to."""

    def append(self, message: Any, delivery_tag: Any) -> None:
        self._again_if_refused(super().append, message, delivery_tag)

    def ack(self, delivery_tag: Any) -> None:
        self._again_if_refused(super().ack, delivery_tag)

    def reject(self, delivery_tag: Any, requeue: bool = False) -> None:
        self._again_if_refused(super().reject, delivery_tag, requeue)

    def _again_if_refused(self, act: Callable[..., None], *arguments: Any) -> None:
        try:
            act(*arguments)
        except ResponseError:
            self.channel.tidy()
            act(*arguments)

    def restore_by_tag(self, tag: Any, client: Any = None, leftmost: bool = False) -> None:
        """Put one message back. If it cannot be read it is dropped, because it would block those behind it."""
        try:
            super().restore_by_tag(tag, client=client, leftmost=leftmost)
        except (*CONNECTION_LOST, ResponseError):
            raise
        except Exception as error:
            log.warning("worker.message_dropped", queue=self.unacked_key, error=type(error).__name__)
            self._remove_from_indices(tag).execute()


class RedisChannel(stock.Channel):  # type: ignore[misc]
    Message = RedisMessage
    QoS = RedisQoS

    def _connparams(self, asynchronous: bool = False) -> dict[str, Any]:
        # Called before every new connection. A closed channel has no transport, and a half-closed one has a
        # transport without a client.
        if self.connection is None or self.connection.client is None:
            raise ConnectionLost("the channel is closed")
        parameters: dict[str, Any] = super()._connparams(asynchronous)
        return parameters

    def get_table(self, exchange: str) -> list[tuple[str, ...]]:
        """The queues bound to an exchange. Those of the task exchange are known; the set in Redis can be
        anything."""
        if exchange == topology.DELIVER.name:
            return [(queue.routing_key, "", queue.name) for queue in topology.work_queues()]
        try:
            return [row for row in super().get_table(exchange) if len(row) == 3]
        except ResponseError:
            self.tidy()
            return []

    @property
    def last_queue(self) -> str:
        """The queue that was read last. The envelope cannot be trusted to say which it was."""
        read_in_turn: list[str] = self._queue_cycle.items  # the last one was moved to the end
        return read_in_turn[-1] if read_in_turn else "celery.pidbox"

    def tidy(self) -> None:
        """Set aside values under our names that are of another type."""
        types = {
            self.unacked_key: "hash",
            self.unacked_index_key: "zset",
            self.unacked_mutex_key: "string",
            self.keyprefix_binding_deadlines: "zset",
            **{self.keyprefix_queue % exchange: "set" for exchange in topology.WORK_EXCHANGES},
            **{
                self._q_for_pri(queue.name, priority): "list"
                for queue in topology.work_queues()
                for priority in self.priority_steps
            },
        }
        with self.conn_or_acquire() as client:
            for key, wanted in types.items():
                set_aside(client, key, wanted)

    def _brpop_read(self, **options: Any) -> Any:
        return self._guarded(super()._brpop_read, lambda: self.last_queue, **options)

    def _receive_one(self, subscriber: Any) -> Any:
        return self._guarded(super()._receive_one, lambda: "celery.pidbox", subscriber)

    def _guarded(self, read: Callable[..., Any], queue: Callable[[], str], *arguments: Any, **options: Any) -> Any:
        """Read one message and give it to its consumer."""
        try:
            return read(*arguments, **options)
        except (*CONNECTION_LOST, Empty):
            raise
        except ResponseError as error:
            log.warning("worker.queue_unreadable", error=type(error).__name__)
            self.tidy()
        except Exception as error:
            # The message has left its list already.
            log.warning("worker.message_dropped", queue=queue(), error=type(error).__name__)
        return True


class RedisTransport(stock.Transport):  # type: ignore[misc]
    Channel = RedisChannel

    def establish_connection(self) -> Any:
        """Connect, after foreign values were cleared from our names."""
        established = super().establish_connection()
        self._avail_channels[-1].tidy()
        return established


class RedisBrokerConnection(kombu.Connection):  # type: ignore[misc]
    """Uses our transport where kombu would use its own for Redis.

    Celery's setting `broker_transport` would do that too, but it replaces the URL's scheme: rediss:// would be
    spoken without TLS, and Flower would not know what kind of broker it is.
    """

    def get_transport_cls(self) -> type[Any]:
        found: type[Any] = super().get_transport_cls()
        return RedisTransport if found is stock.Transport else found
