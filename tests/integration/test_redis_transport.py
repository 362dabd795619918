"""What Celery meets when its Redis-protocol broker dies with tasks in hand: connection errors, never a bug."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from typing import Any
from uuid import uuid4

import pytest
from kombu import Consumer, Exchange, Queue
from kombu.message import Message

from notifier.broker import topology
from notifier.broker.redis_transport import RedisBrokerConnection, RedisTransport
from notifier.domain.statuses import Channel, Lane
from tests.support.tcp_proxy import TcpProxy, through_proxy
from tests.waiting import patient

TASKS = topology.deliver_queue(Channel.EMAIL, Lane.NORMAL)


@pytest.fixture
def broker(redis_broker_url: str) -> Iterator[tuple[TcpProxy, RedisBrokerConnection]]:
    """A proxy that can be ended, and a connection through it."""
    with through_proxy(redis_broker_url) as (proxy, url):
        connection = RedisBrokerConnection(
            url, transport_options=topology.transport_options(url, timeout_seconds=1)
        )
        yield proxy, connection
        connection.close()


def take_one(connection: RedisBrokerConnection) -> Message:
    """A message in hand, and the next one asked for: what a busy worker's connection looks like."""
    taken: list[Message] = []
    connection.Producer().publish({}, exchange=TASKS.exchange, routing_key=TASKS.routing_key, declare=[TASKS])
    consumer = Consumer(connection, [TASKS], on_message=taken.append)
    consumer.consume()
    while not taken:
        connection.drain_events(timeout=patient(5))
    with suppress(TimeoutError):
        connection.drain_events(timeout=0.1)
    return taken[0]


def listen_for_commands(connection: RedisBrokerConnection) -> None:
    """On a second channel, by a queue that goes with its connection, as Celery's remote control may."""
    name = f"commands-{uuid4()}"
    queue = Queue(name, Exchange(name, type="fanout"), auto_delete=True)
    Consumer(connection.channel(), [queue], on_message=lambda _: None).consume()


def test_leaving_a_dead_server_with_tasks_in_hand_fails_with_nothing_unexpected(
    broker: tuple[TcpProxy, RedisBrokerConnection],
) -> None:
    proxy, connection = broker
    message = take_one(connection)
    listen_for_commands(connection)
    proxy.stop()
    # The two steps by which Celery leaves a lost connection; then the task ends.
    connection.collect(socket_timeout=0.1)
    connection.close()
    with pytest.raises(connection.connection_errors):
        message.ack()


def use(channel: Any, what: str) -> None:
    match what:
        case "acknowledge":
            channel.basic_ack("tag")
        case "give back":
            channel.basic_reject("tag", requeue=True)
        case "publish":
            channel.basic_publish(channel.prepare_message("{}"), "", TASKS.name)
        case "look for messages to restore":
            channel.qos.restore_visible()
        case "count":
            channel.queue_declare(TASKS.name, passive=True)


@pytest.mark.parametrize("what", ["acknowledge", "give back", "publish", "look for messages to restore", "count"])
def test_a_closed_channel_says_that_it_is_closed(
    broker: tuple[TcpProxy, RedisBrokerConnection], what: str
) -> None:
    _, connection = broker
    channel = connection.channel()
    channel.close()
    with pytest.raises(connection.connection_errors, match="the channel is closed"):
        use(channel, what)


def test_messages_go_through_it_as_through_kombus(broker: tuple[TcpProxy, RedisBrokerConnection]) -> None:
    _, connection = broker
    take_one(connection).ack()
    assert isinstance(connection.transport, RedisTransport)
    assert connection.default_channel.queue_declare(TASKS.name, passive=False).message_count == 0
