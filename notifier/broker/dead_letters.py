"""Publishes raw bytes to producers' queues: replayed rejected messages and dead letters; and reads dead letters.

On RabbitMQ a message that was returned `topology.DELIVERY_LIMIT` times stays in the queue `topology.DEAD_QUEUE`
until an operator looks. A Redis-protocol broker has no such queue.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Self

from amqp.exceptions import NotFound as QueueMissing
from kombu import Connection, Producer
from kombu.exceptions import KombuError

from notifier.broker import amqp_transport, topology
from notifier.broker.amqp_transport import RawMessage, UnreadableProperties
from notifier.broker.bounded_amqp import (
    BoundedAmqpConnection,
    BoundedConnection,
    BoundedSslTransport,
    BoundedTransport,
)
from notifier.broker.bounded_connection import bounded_connection
from notifier.broker.deadline import Deadline
from notifier.broker.server_certificate import certificate_problem
from notifier.broker.user_id import VOUCHED, own_users, publisher, user_of, without_voucher
from notifier.domain.errors import ConfigurationError, NotFound, ServiceUnavailable

#: Deadline of connecting to a host, of each message published or read, and of the goodbye. Seconds.
TIMEOUT_SECONDS = 10.0

#: Headers that RabbitMQ adds when it dead-letters or redelivers. If a message is published again with an old
#: x-death and dies again, that counts as a cycle, and RabbitMQ 3.x drops such messages.
_BROKERS_OWN = ("x-death", "x-delivery-count", "x-acquired-count", "x-first-death-", "x-last-death-")


@dataclass(frozen=True, slots=True)
class Raw:
    """An unread message as a producer published it."""

    queue: str
    body: bytes
    headers: Mapping[str, Any] = field(default_factory=dict)
    content_type: str | None = None
    content_encoding: str | None = None
    #: The user who first published it, verified by RabbitMQ. None: unknown.
    broker_user: str | None = None
    #: All properties, encoded. None: it has no others than those above.
    properties: bytes | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    #: A digest of its contents, so it is the same each time it is read.
    id: str
    #: The queue that it died in. "": the broker does not say.
    queue: str
    #: The broker's own word: "delivery_limit", "rejected", "expired", "maxlen".
    reason: str
    died_at: datetime | None
    raw: Raw
    #: Which of its properties cannot be read. `raw.headers` then holds those headers that can.
    problem: str = ""


#: Handles a dead letter. Returns True to take it out of the queue.
Handle = Callable[[DeadLetter], bool]


class _RawBounded(BoundedConnection, amqp_transport.AmqpConnection):
    """Reads messages whatever their properties are, and keeps the deadline."""


class _RawTransport(BoundedTransport):
    Connection = _RawBounded


class _RawSslTransport(BoundedSslTransport):
    Connection = _RawBounded


class _RawConnection(BoundedAmqpConnection):
    plain = _RawTransport
    tls = _RawSslTransport


class RawPublisher:
    """An open connection that publishes raw bytes; on RabbitMQ, each message is confirmed."""

    def __init__(
        self,
        connection: Connection,
        deadline: Deadline,
        timeout_seconds: float,
        *,
        is_redis: bool,
        own_user: str = "",
        own_users: Collection[str] = (),
    ) -> None:
        self._connection = connection
        self._deadline = deadline
        self._timeout_seconds = timeout_seconds
        self._is_redis = is_redis
        #: Our name on this connection ("": unknown), and all names of the service.
        self._own_user, self._own_users = own_user, own_users
        self._producer = Producer(connection.channel(), auto_declare=False)

    @classmethod
    @contextmanager
    def connect(
        cls, url: str, *, known_as: str | None = None, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> Iterator[Self]:
        """Connect for the duration of the block. `known_as`: our name on the broker, if it is not the URL's user.

        Raises:
            ServiceUnavailable: the broker cannot be reached, goes away meanwhile, or does not confirm.
            ConfigurationError: its certificate is not right.
        """
        deadline = Deadline(timeout_seconds)
        connection = bounded_connection(
            url, deadline, timeout_seconds=timeout_seconds / (url.count(";") + 1), amqp=_RawConnection
        )
        errors = (KombuError, OSError, *connection.connection_errors, *connection.channel_errors)
        try:
            with connection:
                # One try for each host: kombu would pause before another try, and the pause would use up the time.
                connection.ensure_connection(max_retries=url.count(";"), reraise_as_library_errors=False)
                own_user = user_of(connection) if known_as is None else known_as
                yield cls(
                    connection,
                    deadline,
                    timeout_seconds,
                    is_redis=topology.is_redis(url),
                    own_user=own_user,
                    own_users=own_users(url, known_as),
                )
                # The deadline of the goodbye. After a failure there is no goodbye.
                deadline.begin(timeout_seconds)
        except errors as error:
            if isinstance(error, QueueMissing) or getattr(error, "reply_code", 0) == topology.NO_ROUTE:
                fix = "run `notifier queues declare`, then this again"
                raise ServiceUnavailable(f"a queue of the service is missing on the broker: {fix}") from error
            if problem := certificate_problem(error, url):
                raise ConfigurationError(problem, setting="NOTIFIER_BROKER_URL") from error
            # Only the kind of error, because its text may hold the broker's URL.
            raise ServiceUnavailable(f"the broker cannot be used now ({type(error).__name__})") from error

    def publish(self, raw: Raw) -> None:
        """Put the message into its queue. When this returns, the broker has it."""
        seconds = self._timeout_seconds
        self._deadline.begin(seconds)
        options: dict[str, Any] = {"timeout": seconds, "confirm_timeout": seconds, "mandatory": True}
        # RabbitMQ accepts only our own name as `user_id`, so the name of the first publisher goes into a header.
        vouches = bool(raw.broker_user and self._own_user and not self._is_redis)
        if raw.properties is not None and not self._is_redis:
            properties = raw.properties
            if vouches:
                voucher = {VOUCHED: raw.broker_user or ""}
                properties = amqp_transport.with_user(properties, self._own_user, voucher)
            self._producer.channel.basic_publish(
                RawMessage(raw.body, properties), exchange="", routing_key=raw.queue, **options
            )
            return
        headers = dict(without_voucher(producers_own(raw.headers)))
        if vouches:
            options["user_id"] = self._own_user
            headers[VOUCHED] = raw.broker_user
        self._producer.publish(
            raw.body,
            exchange="",
            routing_key=raw.queue,
            headers=headers,
            # The intake takes a missing type for JSON; kombu would set a type of its own.
            content_type=raw.content_type or "application/json",
            content_encoding=raw.content_encoding or "utf-8",
            delivery_mode=2,
            **({} if self._is_redis else options),
        )

    def dead_letter_count(self) -> int:
        """Number of dead letters. None is taken in hand, because the broker would count that as a delivery.

        Raises:
            NotFound: on a Redis-protocol broker.
        """
        if self._is_redis:
            raise NotFound("a Redis-protocol broker has no dead queue: nothing is given up on there")
        self._deadline.begin(self._timeout_seconds)
        with self._connection.channel() as channel:
            found: int = channel.queue_declare(topology.DEAD_QUEUE, passive=True).message_count
        return found

    def dead_letters(self, limit: int) -> list[DeadLetter]:
        """The first `limit` dead letters. They stay in the queue, hidden from others only while they are read.

        Raises:
            NotFound: on a Redis-protocol broker.
        """
        found: list[DeadLetter] = []

        def keep(letter: DeadLetter) -> bool:
            found.append(letter)
            return False

        self.each_dead_letter(keep, limit=limit)
        return found

    def each_dead_letter(
        self, handle: Handle, *, limit: int | None = None, until: Callable[[], bool] = lambda: False
    ) -> None:
        """Call `handle` with the dead letters that are there now, oldest first, and remove those for which it
        returns True. The others stay, also a letter on which it fails. Stops as soon as `until` returns True.

        Raises:
            NotFound: on a Redis-protocol broker.
        """
        # Counted once: messages that die again meanwhile are left for the next run.
        waiting = self.dead_letter_count()
        channel = self._connection.channel()
        channel.auto_decode = False
        try:
            for _ in range(waiting if limit is None else min(limit, waiting)):
                if until():
                    break
                self._deadline.begin(self._timeout_seconds)
                message = channel.basic_get(topology.DEAD_QUEUE)
                if message is None:
                    break
                if handle(dead_letter(message, self._own_users)):
                    self._deadline.begin(self._timeout_seconds)
                    channel.basic_ack(message.delivery_info["delivery_tag"])
        finally:
            # Letters that were not acknowledged go back.
            self._deadline.begin(self._timeout_seconds)
            channel.close()


def producers_own(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The headers without those that the broker added."""
    return {name: value for name, value in headers.items() if not _is_brokers(name)}


def dead_letter(message: Any, own_users: Collection[str] = ()) -> DeadLetter:
    """The dead letter of a message as py-amqp gives it. Never raises for its contents. `own_users`: the service's
    own names on the broker."""
    found = amqp_transport.raw_properties(message)
    problem = ""
    try:
        properties = amqp_transport.read_properties(message)
        headers = properties.get("application_headers") or {}
    except UnreadableProperties as error:
        problem, properties, headers = str(error), {}, amqp_transport.headers_apart(found)
    death = _first_death(headers)
    queue, died_at = str(death.get("queue") or ""), death.get("time")
    body = message.body or b""
    body = body.encode("utf-8", "surrogateescape") if isinstance(body, str) else bytes(body)
    raw = Raw(
        queue,
        body,
        headers,
        properties.get("content_type"),
        properties.get("content_encoding"),
        publisher(properties.get("user_id"), headers, own_users),
        amqp_transport.to_publish_again(found, lambda name: _is_brokers(name) or name == VOUCHED),
    )
    died_at = died_at.replace(tzinfo=died_at.tzinfo or UTC) if isinstance(died_at, datetime) else None
    digest = hashlib.sha256(repr((queue, died_at)).encode("utf-8", "surrogatepass") + body).hexdigest()
    return DeadLetter(digest[:16], queue, str(death.get("reason") or ""), died_at, raw, problem)


def _is_brokers(name: str) -> bool:
    return name.startswith(_BROKERS_OWN)


def _first_death(headers: Mapping[str, Any]) -> Mapping[str, Any]:
    # The newest entry comes first. Ours have only one, because the header is removed when they are republished.
    deaths = headers.get("x-death")
    newest = deaths[0] if isinstance(deaths, list) and deaths else {}
    return newest if isinstance(newest, dict) else {}
