"""Whose certificate a broker may show. Every kind of connection is tried with a trusted one of another host."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from celery import Celery
from kombu.exceptions import OperationalError
from pydantic import SecretStr

from notifier import new_id
from notifier.api.readiness import Readiness
from notifier.broker import amqp_transport
from notifier.broker.dead_letters import Raw, RawPublisher
from notifier.broker.inspection import Broker, queue_states
from notifier.broker.publisher import Wire
from notifier.cli.check_result import Check, safely
from notifier.cli.checks import check_broker
from notifier.client.client import Client
from notifier.client.relay import OutboxRow, Pair, Passed, Relay
from notifier.config.settings import Settings
from notifier.domain.errors import ConfigurationError, PublishRefused
from notifier.domain.statuses import Channel, Lane
from notifier.intake.rabbitmq_connection import HEARTBEAT_SECONDS, connect
from notifier.worker.app import make_app
from tests.support.queues import bodies
from tests.support.tls import at, behind_tls, certificate, served, server_context
from tests.waiting import patient

NAMED = (
    "is for other.example.com, not for localhost: write its name in the broker URL, or give the broker a certif"
)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tls")
    names = {"other": "DNS:other.example.com", "name": "DNS:localhost", "address": "IP:127.0.0.1"}
    return {kind: certificate(folder / kind, name) for kind, name in names.items()}


@pytest.fixture(autouse=True)
def _trust(certificates: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trusted = tmp_path / "trusted.pem"
    trusted.write_text("".join(one.read_text() for one in certificates.values()))
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))


@pytest.fixture
def heard() -> list[bytes]:
    """What came to the other host, decrypted."""
    return []


@pytest.fixture
def other(certificates: dict[str, Path], heard: list[bytes]) -> Iterator[int]:
    """The port of another host, with a trusted certificate of its own."""
    context = server_context(certificates["other"])

    def serve(plain: socket.socket) -> None:
        with context.wrap_socket(plain, server_side=True) as connection:
            if said := connection.recv(1000):
                heard.append(said)

    with served(serve) as port:
        yield port


class OneRow:
    """An outbox with one message that cannot go out."""

    def pass_on(
        self, limit: int, pairs: Sequence[Pair], publish: Callable[[Sequence[OutboxRow]], Passed]
    ) -> Passed:
        is_its = (Channel.EMAIL, Lane.NORMAL) in pairs
        return publish([OutboxRow(new_id(), Channel.EMAIL, Lane.NORMAL, b"{}")] if is_its else [])


def send(url: str) -> None:
    with Client(url, producer="shop", timeout_seconds=patient(5)) as client:
        client.send("hello", "ann@example.com")


def relay(url: str) -> None:
    with Wire(url, timeout_seconds=patient(5)) as wire:
        Relay(OneRow(), wire).drain()


def take_in(url: str) -> None:
    connect(url, HEARTBEAT_SECONDS).release()


def app(url: str) -> Celery:
    return make_app(Settings(broker_url=SecretStr(url)))


def work(url: str) -> None:
    with app(url).connection_for_read() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0)


def beat(url: str) -> None:
    """As all programs do that publish tasks."""
    with app(url) as programs, programs.producer_or_acquire() as producer:
        # Without the pauses in between.
        producer.connection.ensure_connection(max_retries=1, interval_start=0)
        programs.send_task("notifier.sweep", retry=False, queue="deliver.maintenance", producer=producer)


def flower(url: str) -> None:
    with app(url).connection() as connection:
        connection.ensure_connection(max_retries=1, interval_start=0)


def inspect(url: str) -> None:
    with Broker.connect(url):
        pass


def replay(url: str) -> None:
    with RawPublisher.connect(url) as publisher:
        publisher.publish(Raw("notify.email.normal", b"{}"))


@pytest.mark.parametrize(
    ("kind", "error"),
    [
        (send, PublishRefused),
        (relay, PublishRefused),
        (take_in, OSError),
        (work, OperationalError),
        (beat, OperationalError),
        (flower, OperationalError),
        (inspect, ConfigurationError),
        (lambda url: queue_states(url, seconds=patient(5)), ConfigurationError),
        (replay, ConfigurationError),
    ],
    ids=["client", "relay", "intake", "worker", "beat", "flower", "queues", "metrics", "dead letters"],
)
def test_a_trusted_certificate_of_another_host_is_refused_and_sent_nothing(
    other: int, heard: list[bytes], kind: Callable[[str], None], error: type[Exception]
) -> None:
    with pytest.raises(error, match=NAMED) as refused:
        kind(f"amqps://shop:secret@localhost:{other}//")
    assert "secret" not in str(refused.value)
    assert "publish again" not in str(refused.value)
    assert not heard


@pytest.mark.parametrize(
    ("trusted", "problem"),
    [("other", "is another host's: write its name in"), ("name", "is not valid: .* in the file of SSL_CERT_FILE")],
)
def test_a_certificate_that_a_redis_may_not_show_is_no_matter_of_trying_again(
    other: int,
    heard: list[bytes],
    certificates: dict[str, Path],
    trusted: str,
    problem: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(certificates[trusted]))
    url = f"rediss://shop:secret@localhost:{other}/0"
    for use, error in ((send, PublishRefused), (inspect, ConfigurationError), (replay, ConfigurationError)):
        with pytest.raises(error, match=f"certificate of the broker at localhost:{other} {problem}"):
            use(url)
    assert not heard


def test_with_a_certificate_of_another_host_nobody_is_ready_and_doctor_names_the_fix(
    other: int, heard: list[bytes]
) -> None:
    url = f"amqps://shop:secret@localhost:{other}//"
    assert Readiness(lambda: None, url).state().broker == "away"
    fix = "write its name in the broker URL, or give the broker a certificate for the name in the URL"
    detail = f"the certificate of the broker at localhost:{other} is for other.example.com, not for localhost"
    settings = Settings(broker_url=SecretStr(url))
    assert list(safely("broker", lambda: check_broker(settings))) == [Check("broker", False, detail, fix)]
    assert not heard


@pytest.mark.parametrize(("host", "kind"), [("localhost", "name"), ("127.0.0.1", "address")])
def test_every_program_takes_the_certificate_of_its_host_by_name_or_address(
    amqp_url: str, certificates: dict[str, Path], host: str, kind: str
) -> None:
    with behind_tls(amqp_url, certificates[kind], host) as url:
        for use in (send, take_in, work, beat, flower, inspect, replay):
            use(url)
        assert Readiness(lambda: None, url).state().broker == "ok"
        # What was connected once is connected again, and copied, under the same name.
        with app(url).connection_for_read() as connection:
            connection.connect()
            connection.collect()
            connection.connect()
            with connection.clone() as copy:
                copy.connect()
    assert len(list(bodies(amqp_url, "notify.email.normal"))) == 2


def test_each_host_of_a_url_is_checked_by_its_own_name(
    amqp_url: str, certificates: dict[str, Path], other: int, heard: list[bytes]
) -> None:
    first = at(urlsplit(amqp_url), "localhost", other)
    with behind_tls(amqp_url, certificates["address"]) as good:
        for use in (send, work, beat, flower, inspect, replay):
            use(f"{first};{good}")
        with connect(f"{first};{good}", HEARTBEAT_SECONDS) as connection:
            # The intake reads it as it reads the first host.
            assert isinstance(connection.connection, amqp_transport.AmqpConnection)
            assert connection.connection.cut
    with (
        behind_tls(amqp_url, certificates["name"]) as wrong,
        pytest.raises(PublishRefused, match=r"127\.0\.0\.1:\d+ is for localhost, not for 127\.0\.0\.1"),
    ):
        send(f"{first};{wrong}")
    assert not heard
