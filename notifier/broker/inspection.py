"""Inspects queues without reading their messages, for `notifier queues` and `notifier doctor`."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self
from urllib.parse import urlsplit

from amqp.exceptions import AccessRefused, NotFound, PreconditionFailed
from kombu import Connection, Exchange, Queue
from kombu.exceptions import ChannelError, KombuError

from notifier.broker import topology
from notifier.broker.bounded_connection import bounded_connection
from notifier.broker.deadline import Deadline
from notifier.broker.server_certificate import certificate_problem
from notifier.domain.errors import ConfigurationError, ServiceUnavailable

#: Deadline of connecting; each question may take twice as long. Seconds.
TIMEOUT_SECONDS = 5.0

#: Deadline of declaring all our queues. Seconds.
DECLARE_SECONDS = 60.0

_INEQUIVALENT = re.compile(r"inequivalent arg '([^']+)' for (queue|exchange) '([^']+)'")


@dataclass(frozen=True, slots=True)
class QueueState:
    queue: str
    #: Number of waiting messages. None: there is no such queue.
    messages: int | None
    #: Number of its readers. None: the broker cannot tell.
    consumers: int | None


def producer_queues() -> list[Queue]:
    return [*(topology.notify_queue(*pair) for pair in topology.pairs()), topology.dead_queue()]


class Broker:
    """An open connection. Every question uses a channel of its own, because a refusal closes the channel."""

    def __init__(
        self, connection: Connection, deadline: Deadline, answer_seconds: float, *, is_redis: bool
    ) -> None:
        self._connection = connection
        self._deadline = deadline
        self._answer_seconds = answer_seconds
        self.is_redis = is_redis

    @classmethod
    @contextmanager
    def connect(cls, url: str, *, timeout_seconds: float = TIMEOUT_SECONDS) -> Iterator[Self]:
        """Connect for the duration of the block. `timeout_seconds`: the limit for connecting. Each question and
        the goodbye may take twice as long.

        Raises:
            ServiceUnavailable: the broker cannot be reached, refuses us, or goes away meanwhile.
            ConfigurationError: its certificate is not right, or a queue is declared differently from ours.
        """
        is_redis = topology.is_redis(url)
        deadline = Deadline(timeout_seconds * 2)
        connection = bounded_connection(url, deadline, timeout_seconds=timeout_seconds)
        errors = (KombuError, OSError, *connection.connection_errors, *connection.channel_errors)
        try:
            with connection:
                # One try for each host: kombu would pause before another try, and the pause would use up the time.
                # On Redis this sends nothing, so open a channel.
                connection.ensure_connection(max_retries=url.count(";"), reraise_as_library_errors=False)
                with connection.channel():
                    pass
                yield cls(connection, deadline, timeout_seconds * 2, is_redis=is_redis)
                deadline.begin(timeout_seconds * 2)
        except PreconditionFailed as error:
            raise ConfigurationError("; ".join(declared_otherwise(error.reply_text))) from error
        except errors as error:
            if problem := certificate_problem(error, url):
                raise ConfigurationError(problem, setting="NOTIFIER_BROKER_URL") from error
            raise ServiceUnavailable(_unreachable(url, error)) from error

    def _channel(self) -> Any:
        self._deadline.begin(self._answer_seconds)
        return self._connection.channel()

    def state(self, queue: Queue) -> QueueState:
        """The state of a queue. Declares nothing."""
        try:
            with self._channel() as channel:
                found = channel.queue_declare(queue.name, passive=True)
        except (NotFound, ChannelError):
            # A list in Redis exists only while something is in it.
            return QueueState(queue.name, 0 if self.is_redis else None, None)
        return QueueState(queue.name, found.message_count, None if self.is_redis else found.consumer_count)

    def mismatch(self, declared: Queue | Exchange) -> tuple[str, str] | None:
        """What is wrong with an existing queue or exchange, and the fix. None: it is as we declare it."""
        try:
            with self._channel() as channel:
                bound = declared.bind(channel)
                bound.queue_declare() if isinstance(declared, Queue) else bound.declare()
        except PreconditionFailed as error:
            return declared_otherwise(error.reply_text)
        except AccessRefused:
            return None
        return None

    def exists(self, exchange: Exchange) -> bool:
        """Whether the exchange exists. Declares nothing."""
        try:
            with self._channel() as channel:
                exchange.bind(channel).declare(passive=True)
        except NotFound:
            return False
        return True

    def declare(self) -> None:
        """Declare all our exchanges and queues. May be repeated."""
        with self._channel() as channel:
            self._deadline.begin(DECLARE_SECONDS)
            topology.declare_for_producers(channel)
            for queue in topology.work_queues():
                queue.bind(channel).declare()


def queue_states(url: str, *, seconds: float) -> list[QueueState]:
    """The states of all our queues that this user may look at, within about `seconds`.

    Raises:
        ServiceUnavailable: the broker is away, or did not give all answers in time.
    """
    ends_at = time.monotonic() + seconds
    states = []
    with Broker.connect(url, timeout_seconds=seconds / 2) as broker:
        for queue in (*producer_queues(), *topology.work_queues()):
            if time.monotonic() > ends_at:
                raise ServiceUnavailable(_late(url))
            try:
                states.append(broker.state(queue))
            except AccessRefused:
                continue
    return states


def declared_otherwise(reply: str) -> tuple[str, str]:
    """The problem and the fix, from RabbitMQ's text: "inequivalent arg 'x-queue-type' for queue 'q' in …"."""
    found = _INEQUIVALENT.search(reply)
    if found is None:
        return reply.removeprefix("PRECONDITION_FAILED - ").strip(), "delete it, then `notifier queues declare`"
    argument, kind, name = found.groups()
    delete = f"`rabbitmqctl delete_queue {name}`" if kind == "queue" else "delete it in RabbitMQ's management page"
    fix = f"let the intake empty the queues, {delete}, then `notifier queues declare`"
    return f"the {kind} {name} is there with another {argument} than ours", fix


def where(url: str) -> str:
    """Host, port and virtual host or database of a broker's URL, without user and password."""
    parts = urlsplit(url)
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.hostname or 'localhost'}{port}{parts.path}"


def _late(url: str) -> str:
    return f"the broker at {where(url)} did not answer in time"


def _unreachable(url: str, error: Any) -> str:
    # The texts of these errors may hold the URL with its password.
    if isinstance(error, AccessRefused):
        return f"the broker at {where(url)} refuses this user, its password or its virtual host"
    # redis-py has a timeout error of its own.
    if "Timeout" in type(error).__name__:
        return _late(url)
    kind = getattr(error, "strerror", None) or type(error).__name__
    return f"the broker at {where(url)} cannot be reached ({kind})"
