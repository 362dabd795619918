"""The deadline of `Client.send`, and what it says, on brokers that are away, silent, alarmed or cut off."""

from __future__ import annotations

import asyncio
import json
import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from threading import Event
from typing import Any
from urllib.parse import urlsplit

import pytest
import redis

from notifier import AsyncClient, new_id
from notifier.broker.other_protocol import other_protocol
from notifier.broker.stray_messages import stray_messages
from notifier.client.client import Client
from notifier.domain.errors import ConfigurationError, PublishFailed, PublishRefused, ServiceUnavailable
from notifier.domain.statuses import Channel, Lane
from notifier.domain.validation import parse_body
from tests.provisioning.rabbitmq import PrivateRabbitmq
from tests.support.queues import bodies
from tests.support.tcp_proxy import through_proxy
from tests.waiting import patient, wait_until

DEADLINE = 1.0
#: What the rest may take.
SLACK = 0.7


def references(broker_url: str, queue: str = "notify.email.normal") -> list[str | None]:
    """The references of everything that waits there."""
    found = []
    for body in bodies(broker_url, queue):
        found += [
            entry.message.reference for entry in parse_body(body, Channel.EMAIL, Lane.NORMAL) if entry.message
        ]
    return found


def send(client: Client, reference: str = "") -> None:
    client.send("hello", "ann@example.com", reference=reference or None)


def fails_in_time(call: Callable[[], Any], match: str) -> None:
    started_at = time.monotonic()
    with pytest.raises(PublishFailed, match=match):
        call()
    assert time.monotonic() - started_at < DEADLINE + patient(SLACK)


@contextmanager
def dripping(first: bytes) -> Iterator[tuple[str, Event]]:
    """The URL of a server that answers with `first`, then a byte now and then; and what stops it, and says that it
    was heard out."""
    stop = Event()

    def drip() -> None:
        with server.accept()[0] as connection, suppress(OSError):
            connection.sendall(first)
            for _ in range(600):
                if stop.wait(0.05):
                    return
                connection.sendall(b"x")
        stop.set()

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as threads:
        dripped = threads.submit(drip)
        yield f"http://127.0.0.1:{server.getsockname()[1]}", stop
        stop.set()
        dripped.result()


async def status_in_a_loop(url: str) -> object:
    async with AsyncClient(url, "ntf_live_x", timeout_seconds=0.3) as client:
        return await client.status(new_id())


def status_in_a_thread(url: str) -> object:
    with Client("redis://127.0.0.1:1/0", api_url=url, api_key="ntf_live_x", timeout_seconds=0.3) as client:
        return client.wait(new_id(), 0.1)


@pytest.mark.parametrize("first", [b"HTTP/1.1 200 OK\r\nx: ", b"HTTP/1.1 200 OK\r\ncontent-length: 9999\r\n\r\n"])
@pytest.mark.parametrize("ask", [status_in_a_thread, lambda url: asyncio.run(status_in_a_loop(url))])
def test_an_answer_that_comes_byte_by_byte_costs_the_deadline_and_no_more(
    ask: Callable[[str], object], first: bytes
) -> None:
    with dripping(first) as (url, stopped):
        with pytest.raises(ServiceUnavailable, match=r"no whole answer within 0\.[34] s"):
            ask(url)
        assert not stopped.is_set()


@pytest.mark.parametrize("scheme", ["amqps", "rediss"])
def test_tls_to_a_port_without_it_is_no_matter_of_trying_again(scheme: str) -> None:
    def answer() -> None:
        for _ in range(2):
            with server.accept()[0] as connection:
                connection.recv(1000)
                connection.sendall(b"AMQP\x00\x00\x09\x01")

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as threads:
        server.settimeout(patient(30))
        answered = threads.submit(answer)
        client = Client(f"{scheme}://127.0.0.1:{server.getsockname()[1]}/0", producer="shop")
        with pytest.raises(PublishRefused, match=r"speaks no TLS: .* publishing again does not help"):
            send(client)
        answered.result()


def test_a_url_of_the_other_kind_of_broker_is_refused_for_good(broker_url: str) -> None:
    parts = urlsplit(broker_url)
    wrong, right = ("amqp", "redis") if parts.scheme == "redis" else ("redis", "amqp")
    refused(f"{wrong}://shop:secret@{parts.hostname}:{parts.port}/0", f"speaks the .*: write {right}://, or give")


@pytest.mark.parametrize(
    ("answer", "match"),
    [
        (b"HTTP/1.1 400 Bad Request", "HTTP, .*: give the port of RabbitMQ"),
        (b"\x15\x03\x01", "TLS, .*amqps://, or"),
    ],
)
def test_a_port_of_something_else_is_named(answer: bytes, match: str) -> None:
    def talk() -> None:
        with server.accept()[0] as connection:
            connection.recv(100)
            connection.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as server, ThreadPoolExecutor() as threads:
        server.settimeout(patient(30))
        talked = threads.submit(talk)
        found = other_protocol(f"amqp://127.0.0.1:{server.getsockname()[1]}//", patient(5))
        talked.result()
    assert re.search(match, found or "")


@pytest.mark.parametrize("url", ["amqp://guest:secret@127.0.0.1:1//", "redis://:secret@127.0.0.1:1/0"])
def test_nothing_listening_is_said_at_once_without_the_password(url: str) -> None:
    client, started_at = Client(url, producer="shop", timeout_seconds=30), time.monotonic()
    with pytest.raises(PublishFailed, match=r"no broker answers at 127\.0\.0\.1:1;") as failed:
        send(client)
    assert time.monotonic() - started_at < patient(5)
    assert "secret" not in str(failed.value)


@pytest.mark.parametrize("scheme", ["amqp", "redis"])
def test_a_listener_that_never_answers_costs_the_deadline_and_no_more(scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"{scheme}://127.0.0.1:{listener.getsockname()[1]}/"
        with Client(url, producer="shop", timeout_seconds=DEADLINE) as client:
            fails_in_time(lambda: send(client), "did not confirm the message within 1 s")


def test_a_connection_that_goes_silent_costs_the_deadline_and_no_more(broker_url: str) -> None:
    with through_proxy(broker_url) as (proxy, url):
        client = Client(url, producer="shop", timeout_seconds=DEADLINE)
        warm_up = Client(broker_url, producer="shop")
        send(warm_up)
        warm_up.close()
        send(client)
        proxy.freeze()
        fails_in_time(lambda: send(client), "did not confirm the message within 1 s")
        fails_in_time(lambda: send(client), "did not confirm the message within 1 s")
        started_at = time.monotonic()
        client.close()
        assert time.monotonic() - started_at < DEADLINE + patient(SLACK)


def test_closing_on_a_silent_connection_ends_within_the_deadline(amqp_url: str) -> None:
    with through_proxy(amqp_url) as (proxy, url):
        client = Client(url, producer="shop", timeout_seconds=DEADLINE)
        send(client)
        proxy.freeze()
        started_at = time.monotonic()
        client.close()
        assert time.monotonic() - started_at < DEADLINE + patient(SLACK)


def test_a_broker_short_of_memory_is_named_and_the_next_send_after_it_succeeds(amqp_server: Any) -> None:
    if not isinstance(amqp_server, PrivateRabbitmq):
        pytest.skip("needs a node of our own")
    url = amqp_server.make_vhost()
    with Client(url, producer="shop", timeout_seconds=DEADLINE) as client:
        send(client, "before")
        with amqp_server.memory_alarm():
            fails_in_time(lambda: send(client), "short of memory or disk")
            with Client(url, producer="shop", timeout_seconds=DEADLINE) as fresh:
                fails_in_time(lambda: send(fresh), "short of memory or disk")
        send(client, "after")
    found = references(url)
    assert (found[0], found[-1]) == ("before", "after")
    amqp_server.drop_vhost(url)


def test_a_connection_that_was_cut_between_two_sends_is_not_noticed(broker_url: str) -> None:
    with through_proxy(broker_url) as (proxy, url), Client(url, producer="shop") as client:
        send(client, "first")
        proxy.cut()
        send(client, "second")
        assert proxy.connections >= 2
    assert references(broker_url) == ["first", "second"]


def refused(url: str, match: str) -> None:
    with Client(url, producer="shop", timeout_seconds=DEADLINE) as client:
        fails_in_time(lambda: send(client), match)
        with pytest.raises(PublishRefused) as error:
            send(client)
    assert "publish again" not in str(error.value)
    assert "secret" not in str(error.value)


def test_what_the_broker_never_takes_is_refused_for_good(broker_url: str) -> None:
    parts = urlsplit(broker_url)
    wrong_password = parts._replace(netloc=f"default:secret@{parts.hostname}:{parts.port}").geturl()
    refused(wrong_password, "refused this user.*publishing again does not help")
    refused(parts._replace(path="/99999").geturl(), "has no such (virtual host|database)")
    with pytest.raises(ConfigurationError, match="begins with http"):
        Client(parts._replace(scheme="http").geturl(), producer="shop")


def test_a_user_that_may_not_write_to_the_exchange_or_enter_is_refused_for_good(amqp_server: Any) -> None:
    if not isinstance(amqp_server, PrivateRabbitmq):
        pytest.skip("needs a node of our own")
    url, other = amqp_server.make_vhost(), amqp_server.make_vhost()
    with Client(url, producer="shop") as client:
        send(client)  # declares the queues
    with amqp_server.user(url, "reader", write="^$") as reader:
        refused(reader, "right to write to the exchange notify")
        refused(urlsplit(reader)._replace(path=urlsplit(other).path).geturl(), "or not for this user")
    for one in (url, other):
        amqp_server.drop_vhost(one)


def test_a_message_larger_than_the_broker_takes_is_refused_for_good_and_names_both_sizes(amqp_server: Any) -> None:
    if not isinstance(amqp_server, PrivateRabbitmq):
        pytest.skip("needs a node of our own")
    url = amqp_server.make_vhost()
    with amqp_server.largest_message(2000), Client(url, producer="shop", timeout_seconds=patient(10)) as client:
        send(client, "before")
        with pytest.raises(PublishRefused, match=r"at most 2000 bytes .* this has \d{4}: raise max_message_size"):
            client.send("order_shipped", to="ann@example.com", context={"text": "x" * 2000})
        send(client, "after")
    assert references(url) == ["before", "after"]
    amqp_server.drop_vhost(url)


def test_a_user_that_may_not_write_to_a_list_is_refused_for_good(redis_broker_url: str) -> None:
    parts = urlsplit(redis_broker_url)
    with redis.Redis.from_url(redis_broker_url) as admin:
        admin.acl_setuser("reader", enabled=True, passwords=["+secret"], keys=["*"], commands=["+@all", "-lpush"])
        refused(parts._replace(netloc=f"reader:secret@{parts.hostname}:{parts.port}").geturl(), "right to write")
        admin.acl_deluser("reader")


def test_the_code_of_a_refusal_is_named_and_nothing_else_of_it(redis_broker_url: str) -> None:
    with redis.Redis.from_url(redis_broker_url) as admin:
        admin.set("notify.email.normal", "no list")
    with pytest.raises(PublishFailed, match=r"did not confirm the message \(ResponseError: WRONGTYPE\); publish"):
        send(Client(redis_broker_url, producer="shop", timeout_seconds=patient(5)))


def test_many_are_published_in_few_broker_messages_and_none_is_lost(broker_url: str) -> None:
    entries = [{"to": "ann@example.com", "reference": str(n)} for n in range(2001)]
    with Client(broker_url, producer="shop") as client:
        client.send_many(entries, channel="email", lane="normal", template="news")
    published = list(bodies(broker_url, "notify.email.normal"))
    assert len(published) == 3
    found = [e.message for body in published for e in parse_body(body, Channel.EMAIL, Lane.NORMAL)]
    assert [message.reference for message in found if message] == [str(n) for n in range(2001)]


def test_what_threads_send_at_once_goes_out_together(broker_url: str) -> None:
    lanes = [Lane.URGENT, *[Lane.NORMAL] * 20]

    def send_one(number: int) -> None:
        client.send("hello", "ann@example.com", lane=lanes[number], reference=str(number))

    with Client(broker_url, producer="shop", timeout_seconds=30) as client, ThreadPoolExecutor(21) as threads:
        wire = client._wire
        assert wire is not None
        with wire._lock:  # another thread is publishing
            sent = [threads.submit(send_one, 0)]
            wait_until(lambda: wire._together._turn is not None and not wire._together._waiting)
            sent += [threads.submit(send_one, number) for number in range(1, 21)]
            wait_until(lambda: len(wire._together._waiting) == 20)
        for one in sent:
            one.result()
    assert len(list(bodies(broker_url, "notify.email.urgent"))) == 1
    [together] = bodies(broker_url, "notify.email.normal")
    assert len(json.loads(together)["batch"]) == 20


def test_what_fails_together_fails_for_each(amqp_url: str) -> None:
    with through_proxy(amqp_url) as (proxy, url), Client(url, producer="shop", timeout_seconds=DEADLINE) as client:
        send(client, "first")
        proxy.freeze()
        wire = client._wire
        assert wire is not None
        with ThreadPoolExecutor(3) as threads:
            with wire._lock:
                sent = [threads.submit(send, client) for _ in range(3)]
                wait_until(lambda: len(wire._together._waiting) == 2)
            errors = [one.exception() for one in sent]
        assert {type(error) for error in errors} == {PublishFailed}
        assert len(set(map(id, errors))) == 3
        proxy.thaw()
        assert wire._together._waiting == []


def test_who_waits_too_long_for_the_connection_withdraws(amqp_url: str) -> None:
    with Client(amqp_url, producer="shop", timeout_seconds=DEADLINE) as client:
        wire = client._wire
        assert wire is not None
        with wire._lock:
            fails_in_time(lambda: send(client, "withdrawn"), "the connection was busy")
        send(client, "next")
    assert references(amqp_url) == ["next"]


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_has_a_connection_of_its_own_and_leaves_the_parents_alone(broker_url: str) -> None:
    with through_proxy(broker_url) as (proxy, url), Client(url, producer="shop") as client:
        send(client, "parent")
        known = proxy.connections
        with client._wire._lock:  # type: ignore[union-attr]  # another thread is publishing when the process forks
            child = os.fork()
            if child == 0:
                code = 1
                try:
                    send(client, "child")
                    client.close()
                    code = 0
                finally:
                    os._exit(code)
        _, status = os.waitpid(child, 0)
        assert status == 0
        between = proxy.connections
        send(client, "parent again")
        assert known < between == proxy.connections
    assert references(broker_url) == ["parent", "child", "parent again"]


def test_messages_in_a_database_that_nobody_reads_are_found(redis_broker_url: str) -> None:
    parts = urlsplit(redis_broker_url)
    number = int(parts.path[1:])
    service = parts._replace(path=f"/{(number or 2) - 1}").geturl()
    with Client(redis_broker_url, producer="shop") as client:
        send(client)
        send(client)
    assert stray_messages(service)[number] == 2
    assert number not in stray_messages(redis_broker_url)
    with redis.Redis.from_url(redis_broker_url) as intake:
        intake.set("notifier:reader:one", "alive")
    assert number not in stray_messages(service)
