"""What becomes of a broker's URL."""

from __future__ import annotations

import ssl
from collections.abc import Callable

import pytest
from kombu.utils.url import parse_url

from notifier.broker import topology
from notifier.broker.user_id import users_of_url
from notifier.client.client import Client
from notifier.domain.errors import ConfigurationError
from notifier.intake.consumer import make_reader


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rediss://:secret@broker.example.com:6380/1", ssl.CERT_REQUIRED),
        ("rediss://broker.example.com/0?ssl_ca_certs=/ca.pem", ssl.CERT_REQUIRED),
        ("rediss://broker.example.com/0?ssl_cert_reqs=none", ssl.CERT_NONE),
        ("rediss://broker.example.com/0?ssl_cert_reqs=CERT_OPTIONAL", ssl.CERT_OPTIONAL),
    ],
)
def test_a_certificate_is_verified_unless_the_url_says_otherwise(url: str, expected: ssl.VerifyMode) -> None:
    assert parse_url(topology.verified(url))["ssl"]["ssl_cert_reqs"] == expected


@pytest.mark.parametrize(
    "url",
    [
        "redis://:secret@broker.example.com/1",
        "amqps://u:p@broker.example.com//?heartbeat=20&login_method=AMQPLAIN",
    ],
)
def test_other_urls_stay_as_they_are(url: str) -> None:
    assert topology.verified(url) == url


def test_the_certificate_of_each_host_is_verified() -> None:
    url = topology.verified("rediss://one.example.com/0;rediss://two.example.com/0")
    assert {parse_url(host)["ssl"]["ssl_cert_reqs"] for host in url.split(";")} == {ssl.CERT_REQUIRED}


@pytest.mark.parametrize(
    ("url", "text"),
    [
        (
            "amqp://h//?connection_attempts=3",
            "connection_attempts, and amqp:// knows only heartbeat, .*; leave it out",
        ),
        ("amqp://h//?login_method=PLAIN&connect_timeout=3", "connect_timeout"),
        ("amqp://h//;amqp://i//?zzz=1", "zzz"),
        ("redis://h/0?zzz=1", "zzz, and redis:// knows none; leave it out"),
        ("redis://h/0?zzz", "zzz"),
        ("redis://h/0?Geheim7=1", "the broker URL has a parameter, and"),
        ("redis://h/0?ssl_ca_certs=/ca.pem", "ssl_ca_certs, .*; leave it out, or write rediss://"),
        ("amqp://h//?heartbeat=abc", "heartbeat with an impossible value; give a number of seconds"),
        ("amqp://h//?heartbeat=", "heartbeat"),
        ("amqps://h//?login_method=external", "give PLAIN, AMQPLAIN or EXTERNAL"),
        ("rediss://h/0?ssl_cert_reqs=maybe", "give required, optional or none"),
        ("amqp://shop:12?secret@h//", "write special characters of its password"),
        ("amqp://h//;http://i//", "begins with http"),
        ("amqp://h//;redis://i/0", "names RabbitMQ and Redis"),
        ("redis://h/0;amqp://i//", "names RabbitMQ and Redis"),
    ],
)
@pytest.mark.parametrize("read", [Client, make_reader, users_of_url])
def test_what_a_url_may_not_say_is_named_where_it_is_read(
    read: Callable[[str], object], url: str, text: str
) -> None:
    with pytest.raises(ConfigurationError, match=text) as error:
        read(url)
    assert "Geheim7" not in str(error.value)
    assert "secret" not in str(error.value)
