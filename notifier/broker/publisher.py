"""Publishes messages over one connection to the broker, with a deadline for every call.

A wire knows bytes, a channel and a lane. What the bytes say is known to the client or the relay.
"""

from __future__ import annotations

import os
import re
import socket
import threading
import time
import weakref
from ssl import SSLError
from typing import Any, Self
from urllib.parse import urlsplit

from amqp.exceptions import AccessRefused, MessageNacked, NotAllowed, NotFound, PreconditionFailed
from kombu import Connection, Producer
from kombu.exceptions import KombuError

from notifier.broker import topology
from notifier.broker.bounded_connection import bounded_connection
from notifier.broker.deadline import Deadline
from notifier.broker.joint_publication import JointPublication
from notifier.broker.other_protocol import no_tls, other_protocol
from notifier.broker.server_certificate import certificate_problem
from notifier.broker.user_id import user_of
from notifier.config.running_service import find_running_service
from notifier.domain.errors import ConfigurationError, PublishFailed, PublishRefused
from notifier.domain.statuses import Channel, Lane

_MAX_USER_BYTES = 255  # RabbitMQ's limit of the property user_id
#: Share of the time for connecting that is used to ask a silent port what it speaks.
_PROBE_SHARE = 0.1


class Wire:
    """Publishes to RabbitMQ (amqp://, with publisher confirms) or to a Redis-protocol broker (redis://).

    Thread-safe. It has one connection, which is opened at the first call, and again after a failure or a fork. If
    several threads publish while another waits for its confirmation, their messages go out next, as one message.
    Every call ends within `timeout_seconds` (default 5): behind a memory alarm, on a half-open connection, with
    nothing there, or if only a byte comes now and then. Only looking up the host's name cannot be bounded.
    """

    def __init__(self, url: str, *, timeout_seconds: float = 5.0, broker_user: str | None = None) -> None:
        """`broker_user` goes with each message as its `user_id`, which RabbitMQ checks. None: the user of the URL.
        If RabbitMQ knows the connection by another name (a certificate, OAuth 2), give that name. "": send none.

        Raises:
            ConfigurationError: `broker_user` is not a possible name, or the URL is not of a supported broker.
        """
        _check_broker_user(broker_user)
        self.timeout_seconds = timeout_seconds
        self._broker_user = broker_user
        self._url = topology.verified(url)
        self._is_redis = topology.is_redis(url)
        known = Connection(self._url)  # opens nothing
        self._errors = (KombuError, OSError, *known.connection_errors, *known.channel_errors)
        self._lock = threading.Lock()
        self._together = JointPublication(self._send)
        self._connection: Connection | None = None
        self._producer: Producer | None = None
        self._is_blocked = False
        self._deadline = Deadline()
        self._inherited: list[object] = []
        _WIRES.add(self)

    def publish(self, channel: Channel, lane: Lane, *bodies: bytes) -> None:
        """Publish these bodies; return when the broker has confirmed that it holds them. Several bodies are joined
        in the batch form, and must keep its limits (`portions`).

        Raises:
            PublishFailed: the broker has not confirmed within `timeout_seconds`, or will not; the text says why.
            PublishRefused: the broker refuses this user or this message; publishing again does not help.
        """
        self._together.publish(channel, lane, bodies, self.timeout_seconds)

    def close(self) -> None:
        """Say goodbye to the broker, within `timeout_seconds`. The next call opens a new connection."""
        with self._lock:
            if self._connection is not None and not self._is_blocked:
                self._deadline.begin(self.timeout_seconds)
                self._release()
            self._drop()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        # The URL holds a password.
        return f"Wire({_place(self._url)})"

    def _send(self, channel: Channel, lane: Lane, body: bytes, ends_at: float) -> None:
        if not self._lock.acquire(timeout=max(0.0, ends_at - time.monotonic())):
            raise PublishFailed("the connection was busy for too long; publish again")
        try:
            self._deadline.ends_at = ends_at
            self._publish(channel, lane, body)
        finally:
            self._lock.release()

    def _publish(self, channel: Channel, lane: Lane, body: bytes) -> None:
        """Try twice, because an idle connection may have died, and queues may not be declared yet."""
        last: Exception | None = None
        for _ in range(2):
            if last is not None and self._remaining() <= 0:
                break
            try:
                self._publish_once(channel, lane, body)
            except self._errors as error:
                # Never reuse it: a late confirmation would be taken for that of the next message.
                self._drop()
                last = error
                if self._is_missing(error):
                    self._declare()
            else:
                return
        assert last is not None
        raise self._failed(last) from last

    def _publish_once(self, channel: Channel, lane: Lane, body: bytes) -> None:
        producer = self._open()
        remaining = max(0.01, self._remaining())
        options: dict[str, Any] = {"timeout": remaining, "confirm_timeout": remaining, "mandatory": True}
        exchange, key = topology.NOTIFY.name, topology.routing_key(channel, lane)
        if self._is_redis:
            # Straight into the list: bindings on a Redis-protocol broker can vanish, and messages with them.
            exchange, key, options = "", topology.notify_queue_name(channel, lane), {}
        else:
            user = user_of(self._connection) if self._broker_user is None else self._broker_user
            options |= {"user_id": user} if user else {}
        producer.publish(
            body,
            exchange=exchange,
            routing_key=key,
            content_type="application/json",
            content_encoding="utf-8",
            delivery_mode=2,
            **options,
        )

    def _open(self) -> Producer:
        if self._producer is None:
            self._is_blocked = False
            self._connection = connection = self._connect()
            self._producer = Producer(connection.channel(), auto_declare=False)
        return self._producer

    def _connect(self) -> Connection:
        """An open connection: one try for each host in the URL, without pauses."""
        hosts = self._url.count(";") + 1
        timeout = max(0.01, self._remaining() * (1 - _PROBE_SHARE)) / hosts
        options: dict[str, Any] = {} if self._is_redis else {"on_blocked": self._on_blocked}
        connection = bounded_connection(self._url, self._deadline, timeout_seconds=timeout, **options)
        try:
            connection.ensure_connection(max_retries=hosts - 1)
        except self._errors as error:
            connection.release()
            if found := self._other_protocol(_cause(error)):
                refusal = f"the broker at {_place(self._url)} {found}"
                raise PublishRefused(f"{refusal}; until then publishing again does not help") from error
            raise
        return connection

    def _other_protocol(self, cause: BaseException) -> str | None:
        """What answers instead of the URL's broker. None: nothing else, or the broker itself said something."""
        if self._refusal(cause) or _is_away(cause):
            return None
        return other_protocol(self._url, max(0.1, self._remaining() / 2))

    def _on_blocked(self, _reason: str) -> None:
        self._is_blocked = True

    def _remaining(self) -> float:
        return self._deadline.remaining

    def _is_missing(self, error: Exception) -> bool:
        return isinstance(error, NotFound) or getattr(error, "reply_code", 0) == topology.NO_ROUTE

    def _declare(self) -> None:
        """Declare missing queues. A producer without the right to do so gets an error that says what to do."""
        try:
            self._connection = connection = self._connect()
            topology.declare_for_producers(connection.channel())
        except AccessRefused:
            raise PublishRefused(
                "the queues do not exist and this user may not declare them: start the service once, then publish"
            ) from None
        except self._errors as error:
            raise self._failed(error) from error
        finally:
            self._drop()

    def _drop(self) -> None:
        """Close without a goodbye, which a broker that does not answer would not answer either."""
        connection, self._producer = self._connection, None
        if connection is not None and not self._is_redis:
            try:
                if connection.connected:
                    connection.connection.collect()
            except Exception:  # noqa: S110 - it is being thrown away
                pass
        self._release()

    def _release(self) -> None:
        connection, self._connection, self._producer = self._connection, None, None
        if connection is not None:
            try:
                connection.release()
            except Exception:  # noqa: S110 - it is being thrown away
                pass

    def _failed(self, error: Exception) -> PublishFailed:
        if refusal := self._refusal(_cause(error)):
            return PublishRefused(f"{refusal}; until then publishing again does not help")
        return PublishFailed(f"{self._reason(error)}; publish again with the same idempotency key")

    def _refusal(self, cause: BaseException) -> str | None:
        """Why the broker takes nothing as things are, and what to correct. None: it may take it next time."""
        place = f"the broker at {_place(self._url)}"
        if _has_no_right(cause):
            where = "the lists notify.*" if self._is_redis else "the exchange notify"
            fix = f"correct its name and password, or give it the right to write to {where}"
            return f"{place} refused this user: {fix}"
        if _is_other_user(cause):
            named = "the user of its URL" if self._broker_user is None else "broker_user"
            fix = 'give the user\'s own name as broker_user, or "" for none'
            return f"{place} knows this connection by another name than {named}: {fix}"
        if sizes := _sizes_of_too_large(cause):
            fix = "raise max_message_size in rabbitmq.conf, or send fewer or shorter messages at once"
            return f"{place} takes at most {sizes[1]} bytes a message, and this has {sizes[0]}: {fix}"
        if _has_no_such_place(cause):
            what = "database" if self._is_redis else "virtual host, or not for this user"
            return f"{place} has no such {what}: correct what follows the port in its URL"
        if problem := certificate_problem(cause, self._url):
            return problem
        if _speaks_no_tls(cause):
            return f"{place} {no_tls(self._is_redis)}"
        return None

    def _reason(self, error: Exception) -> str:
        """Why it failed. Only the kind of a library's error, because its text may hold the broker's URL."""
        place = _place(self._url)
        cause = _cause(error)
        if self._is_blocked:
            return f"the broker at {place} takes no messages: it is short of memory or disk"
        if _is_away(cause):
            return f"no broker answers at {place}{_of_what_ran_here(self._url)}"
        if isinstance(cause, MessageNacked):
            return f"the broker at {place} refused the message: the queue is full"
        if isinstance(cause, TimeoutError) or self._remaining() <= 0 or "Timeout" in type(cause).__name__:
            return f"the broker at {place} did not confirm the message within {self.timeout_seconds:g} s"
        return f"the broker at {place} did not confirm the message ({_kind(cause)})"


def _cause(error: Exception) -> BaseException:
    """The original error, if kombu wrapped it."""
    return error.__cause__ if isinstance(error, KombuError) and error.__cause__ else error


def _has_no_right(cause: BaseException) -> bool:
    """Whether the broker refused this user, in the words of RabbitMQ or redis-py."""
    names = ("AuthenticationError", "AuthenticationWrongNumberOfArgsError", "NoPermissionError")
    return isinstance(cause, AccessRefused) or type(cause).__name__ in names


def _is_other_user(cause: BaseException) -> bool:
    """Whether RabbitMQ knows the connection by another name than the message's `user_id`."""
    return isinstance(cause, PreconditionFailed) and "user_id" in cause.reply_text


def _sizes_of_too_large(cause: BaseException) -> tuple[str, str] | None:
    """The size of the message, and the size that RabbitMQ takes (`max_message_size`: 128 MiB unless set, 16 MiB
    since version 4), both in bytes. None: the error is about something else."""
    if not isinstance(cause, PreconditionFailed):
        return None
    found = re.search(r"message size (\d+) .* max size (\d+)", cause.reply_text)
    return (found[1], found[2]) if found else None


def _has_no_such_place(cause: BaseException) -> bool:
    """Whether the URL's virtual host or database does not exist, in the words of RabbitMQ, Redis or Valkey. A
    virtual host that has reached its limit of connections does exist."""
    if isinstance(cause, NotAllowed):
        return "limit" not in cause.reply_text
    return type(cause).__name__ == "ResponseError" and "DB index" in str(cause)


def _speaks_no_tls(cause: BaseException) -> bool:
    """Whether the server speaks no TLS. redis-py wraps the handshake's error."""
    errors = (cause, cause.__cause__, cause.__context__)
    return any(isinstance(one, SSLError) and one.reason == "WRONG_VERSION_NUMBER" for one in errors)


def _check_broker_user(name: object) -> None:
    if name is None:
        return
    try:
        size = len(name.encode()) if isinstance(name, str) else None
    except UnicodeEncodeError:
        size = None
    if size is None or size > _MAX_USER_BYTES:
        raise ConfigurationError(
            f"broker_user is not a possible name on RabbitMQ, which is text of at most {_MAX_USER_BYTES} bytes: "
            'give the one that it knows the connection by, "" for none, or leave it out for the user of the URL',
            setting="broker_user",
        )


def _is_away(cause: BaseException) -> bool:
    """Whether nothing answers at that address. redis-py wraps the socket's error."""
    if isinstance(cause, ConnectionRefusedError | socket.gaierror):
        return True
    return any(isinstance(inner, ConnectionRefusedError) for inner in (cause.__cause__, cause.__context__))


def _kind(cause: BaseException) -> str:
    """The kind of the error and, from a Redis-protocol broker, the code at the start of its answer, such as
    MISCONF. The rest of the answer may repeat values."""
    code = re.match(r"[A-Z]{3,20}(?= )", str(cause)) if type(cause).__name__ == "ResponseError" else None
    return f"{type(cause).__name__}: {code[0]}" if code else type(cause).__name__


def _of_what_ran_here(url: str) -> str:
    """A hint if the URL is the broker of a `notifier up` of this user that has been killed since."""
    service = find_running_service()
    is_its = service is not None and service.broker_url == url
    return ", and this is the address of a `notifier up` that no longer runs: start it again" if is_its else ""


def _place(url: str) -> str:
    """host:port of a broker's URL, never its user or password."""
    parts = urlsplit(url.split(";")[0])
    return parts.netloc.rpartition("@")[2] or "localhost"


_WIRES: weakref.WeakSet[Wire] = weakref.WeakSet()


def _after_fork() -> None:
    """In a child: the parent's socket must not be used or closed, and the parent's lock may be held for ever."""
    for wire in list(_WIRES):
        # Kept, because closing the connection would say goodbye to the broker in the parent's name.
        wire._inherited += [wire._connection, wire._producer]
        wire._connection = wire._producer = None
        wire._lock = threading.Lock()
        # The parent publishes what its own threads were about to publish.
        wire._together = JointPublication(wire._send)


os.register_at_fork(after_in_child=_after_fork)
