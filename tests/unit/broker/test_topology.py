"""What becomes of a broker's URL."""

from __future__ import annotations

import ssl

import pytest
from kombu.utils.url import parse_url

from notifier.broker import topology


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("rediss://:secret@broker.example.com:6380/1", ssl.CERT_REQUIRED),
        ("rediss://broker.example.com/0?ssl_ca_certs=/ca.pem", ssl.CERT_REQUIRED),
        ("rediss://broker.example.com/0?ssl_cert_reqs=none", ssl.CERT_NONE),
    ],
)
def test_a_certificate_is_verified_unless_the_url_says_otherwise(url: str, expected: ssl.VerifyMode) -> None:
    assert parse_url(topology.verified(url))["ssl"]["ssl_cert_reqs"] == expected


@pytest.mark.parametrize("url", ["redis://:secret@broker.example.com/1?a=b", "amqps://u:p@broker.example.com//"])
def test_other_urls_stay_as_they_are(url: str) -> None:
    assert topology.verified(url) == url
