"""The deadline of a client on brokers that send a byte now and then, and its way through TLS."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from notifier.broker.dead_letters import Raw, RawPublisher
from notifier.broker.inspection import Broker
from notifier.client.client import Client
from notifier.domain.errors import PublishFailed, PublishRefused, ServiceUnavailable
from tests.support.queues import bodies
from tests.support.tcp_proxy import through_proxy
from tests.support.tls import behind_tls, certificate, served
from tests.waiting import patient

DEADLINE = 0.6
#: What the rest may take.
SLACK = 0.7

#: Begins a message of the handshake of TLS that is 16 kB long.
TLS = b"\x16\x03\x03\x40\x00\x02\x00\x40\x00"
#: A heartbeat of AMQP, which answers nothing.
HEARTBEAT = b"\x08\0\0\0\0\0\0\xce"


def send(client: Client) -> None:
    client.send("hello", "ann@example.com")


def fails_in_time(call: Callable[[], object]) -> None:
    started_at = time.monotonic()
    with pytest.raises(PublishFailed, match="did not confirm the message within"):
        call()
    assert time.monotonic() - started_at < DEADLINE + patient(SLACK)


@pytest.mark.parametrize(
    ("scheme", "first", "then"),
    [
        ("amqp", b"", b"x"),
        ("amqp", b"", HEARTBEAT),
        ("redis", b"", b"x"),
        ("amqps", TLS, b"x"),
        ("rediss", TLS, b"x"),
    ],
)
def test_a_broker_that_sends_a_byte_now_and_then_costs_the_deadline_and_no_more(
    scheme: str, first: bytes, then: bytes
) -> None:
    def drip(connection: socket.socket) -> None:
        connection.recv(1000)
        connection.sendall(first)
        while True:
            time.sleep(0.05)
            connection.sendall(then)

    with served(drip) as port:
        client = Client(f"{scheme}://127.0.0.1:{port}/0", producer="shop", timeout_seconds=DEADLINE)
        fails_in_time(lambda: send(client))
        client.close()


@pytest.mark.parametrize("scheme", ["amqp", "redis"])
def test_who_asks_a_broker_that_drips_is_told_in_time(scheme: str) -> None:
    def drip(connection: socket.socket) -> None:
        connection.recv(1000)
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    with served(drip) as port:
        started_at = time.monotonic()
        with (
            pytest.raises(ServiceUnavailable, match="did not answer in time"),
            Broker.connect(f"{scheme}://127.0.0.1:{port}/0", timeout_seconds=DEADLINE),
        ):
            pass
        assert time.monotonic() - started_at < 2 * DEADLINE + patient(SLACK)


def test_a_confirmation_that_comes_byte_by_byte_costs_the_deadline_and_no_more(broker_url: str) -> None:
    with Client(broker_url, producer="shop") as warm_up:
        send(warm_up)
    with through_proxy(broker_url) as (proxy, url):
        client = Client(url, producer="shop", timeout_seconds=DEADLINE)
        send(client)
        proxy.drip()
        fails_in_time(lambda: send(client))
        client.close()


def test_a_replay_whose_confirmation_comes_byte_by_byte_costs_the_deadline_and_no_more(broker_url: str) -> None:
    with Client(broker_url, producer="shop") as warm_up:
        send(warm_up)
    raw = Raw("notify.email.normal", b"{}")

    def replay() -> None:
        with RawPublisher.connect(url, timeout_seconds=patient(1)) as publisher:
            publisher.publish(raw)
            publisher._timeout_seconds = DEADLINE
            proxy.drip()
            started.append(time.monotonic())
            publisher.publish(raw)

    started: list[float] = []
    with through_proxy(broker_url) as (proxy, url):
        with pytest.raises(ServiceUnavailable, match="cannot be used now"):
            replay()
        assert time.monotonic() - started[0] < DEADLINE + patient(SLACK)


def test_closing_on_a_broker_that_drips_ends_within_the_deadline(amqp_url: str) -> None:
    with through_proxy(amqp_url) as (proxy, url):
        client = Client(url, producer="shop", timeout_seconds=patient(5))
        send(client)
        client._wire.timeout_seconds = DEADLINE  # type: ignore[union-attr]
        proxy.drip()
        started_at = time.monotonic()
        client.close()
        assert time.monotonic() - started_at < DEADLINE + patient(SLACK)


def test_a_host_that_drips_leaves_time_for_the_next_one(amqp_url: str) -> None:
    def drip(connection: socket.socket) -> None:
        connection.recv(1000)
        while True:
            time.sleep(0.05)
            connection.sendall(b"+")

    with (
        served(drip) as port,
        Client(f"amqp://127.0.0.1:{port}//;{amqp_url}", producer="shop", timeout_seconds=4) as client,
    ):
        send(client)
    assert len(list(bodies(amqp_url, "notify.email.normal"))) == 1


def test_tls_to_a_redis_without_it_is_refused_for_good(redis_broker_url: str) -> None:
    parts = urlsplit(redis_broker_url)
    with (
        Client(parts._replace(scheme="rediss").geturl(), producer="shop", timeout_seconds=DEADLINE) as client,
        pytest.raises(PublishRefused, match=r"speaks no TLS: .* write redis://.* does not help"),
    ):
        send(client)


def test_messages_go_through_tls(broker_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    both = certificate(tmp_path, "IP:127.0.0.1")
    monkeypatch.setenv("SSL_CERT_FILE", str(both))
    with (
        behind_tls(broker_url, both) as url,
        Client(url, producer="shop", timeout_seconds=patient(5)) as client,
    ):
        send(client)
        client.send("hello", "ann@example.com", context={"text": "x" * 100_000})
    assert len(list(bodies(broker_url, "notify.email.normal"))) == 2
