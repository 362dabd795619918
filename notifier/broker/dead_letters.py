"""Publishes raw bytes into producers' queues: replayed rejected messages, and what the broker gave up on.

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

#: Deadline of connecting to a host, of each message that is published or read, and of the goodbye. Seconds.
TIMEOUT_SECONDS = 10.0

#: Headers that RabbitMQ adds when it dead-letters or redelivers. With an old x-death, a message that is published
#: again and dies again would count as a cycle, and RabbitMQ 3.x drops those.
_BROKERS_OWN = ("x-death", "x-delivery-count", "x-acquired-count", "x-first-death-", "x-last-death-")


@dataclass(frozen=True, slots=True)
class Raw:
    """An unread message as a producer published it."""

    queue: str
    body: bytes
    headers: Mapping[str, Any] = field(default_factory=dict)
    content_type: str | None = None
    content_encoding: str | None = None
    #: The user who first published it, verified by RabbitMQ; None: unknown.
    broker_user: str | None = None
    #: All properties, encoded; None: those above are all.
    properties: bytes | None = None


@dataclass(frozen=True, slots=True)
class DeadLetter:
    #: A digest of its contents: the same each time it is read.
    id: str
    #: The queue it died in; "" if the broker does not say.
    queue: str
    #: The broker's word: "delivery_limit", "rejected", "expired", "maxlen".
    reason: str
    died_at: datetime | None
    raw: Raw
    #: Which of its properties cannot be read; then `raw.headers` holds those that can.
    problem: str = ""


#: Handles a dead letter; True takes it out of the queue.
Handle = Callable[[DeadLetter], bool]


class _RawBounded(BoundedConnection, amqp_transport.AmqpConnection):
    """Reads what it is asked for, whatever its properties are, and keeps the deadline."""


class _RawTransport(BoundedTransport):
    Connection = _RawBounded


class _RawSslTransport(BoundedSslTransport):
    Connection = _RawBounded


class _RawConnection(BoundedAmqpConnection):
    plain = _RawTransport
    tls = _RawSslTransport


class RawPublisher:
    """An open connection that publishes raw bytes, with a confirmation for each on RabbitMQ."""

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
        #: Our name on this connection ("": unknown), and the service's names.
        self._own_user, self._own_users = own_user, own_users
        self._producer = Producer(connection.channel(), auto_declare=False)

    @classmethod
    @contextmanager
    def connect(
        cls, url: str, *, known_as: str | None = None, timeout_seconds: float = TIMEOUT_SECONDS
    ) -> Iterator[Self]:
        """`known_as` is our name on the broker, if it is not the URL's user.

        Raises:
            ServiceUnavailable: if the broker cannot be reached, goes away meanwhile, or does not confirm.
            ConfigurationError: if its certificate is not right.
        """
        deadline = Deadline(timeout_seconds)
        connection = bounded_connection(
            url, deadline, timeout_seconds=timeout_seconds / (url.count(";") + 1), amqp=_RawConnection
        )
        errors = (KombuError, OSError, *connection.connection_errors, *connection.channel_errors)
        try:
            with connection:
                # One try of each host: kombu would pause before another one, and the pause take the time.
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
                # Of the goodbye; without it, who failed says none.
                deadline.begin(timeout_seconds)
        except errors as error:
            if isinstance(error, QueueMissing) or getattr(error, "reply_code", 0) == topology.NO_ROUTE:
                fix = "run `notifier queues declare`, then this again"
                raise ServiceUnavailable(f"a queue of the service is missing on the broker: {fix}") from error
            if problem := certificate_problem(error, url):
                raise ConfigurationError(problem, setting="NOTIFIER_BROKER_URL") from error
            # Only the kind of the error: its text may hold the broker's URL.
            raise ServiceUnavailable(f"the broker cannot be used now ({type(error).__name__})") from error

    def publish(self, raw: Raw) -> None:
        """Put it into its queue. When this returns, the broker has it."""
        seconds = self._timeout_seconds
        self._deadline.begin(seconds)
        options: dict[str, Any] = {"timeout": seconds, "confirm_timeout": seconds, "mandatory": True}
        # RabbitMQ accepts only our own name as `user_id`, so the first publisher goes into a header beside it.
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
            # The intake takes an absent type for JSON; kombu would use a format of its own.
            content_type=raw.content_type or "application/json",
            content_encoding=raw.content_encoding or "utf-8",
            delivery_mode=2,
            **({} if self._is_redis else options),
        )

    def dead_letter_count(self) -> int:
        """Takes none in hand, which the broker would count as a delivery.

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
        """The first `limit` dead letters. They stay, hidden from others only while they are read.

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
        returns True. Others stay, also one on which it fails. No other is taken once `until` says so.

        Raises:
            NotFound: on a Redis-protocol broker.
        """
        # Counted once: what dies again meanwhile is left for the next run.
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
            # What is not acknowledged goes back.
            self._deadline.begin(self._timeout_seconds)
            channel.close()


def producers_own(headers: Mapping[str, Any]) -> dict[str, Any]:
    """The headers without those that the broker added."""
    return {name: value for name, value in headers.items() if not _is_brokers(name)}


def dead_letter(message: Any, own_users: Collection[str] = ()) -> DeadLetter:
    """One message of the dead queue, as py-amqp gives it; its contents never raise. `own_users` are the service's
    own on the broker."""
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
    # The newest entry comes first. Ours have one, as the header is removed when they are published again.
    deaths = headers.get("x-death")
    newest = deaths[0] if isinstance(deaths, list) and deaths else {}
    return newest if isinstance(newest, dict) else {}
