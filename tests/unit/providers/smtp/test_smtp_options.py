"""The options of an `smtp` provider."""

from __future__ import annotations

import ssl
from pathlib import Path

import pytest

from notifier.domain.errors import ConfigurationError
from notifier.providers.smtp.options import Encryption, SmtpOptions


def read(url: str, **others: str) -> SmtpOptions:
    return SmtpOptions.read("relay", {"url": url, **others})


@pytest.mark.parametrize(
    ("url", "host", "port", "encryption"),
    [
        ("smtp://mail.example.com", "mail.example.com", 25, Encryption.OPPORTUNISTIC),
        ("smtp://mail.example.com:2525", "mail.example.com", 2525, Encryption.OPPORTUNISTIC),
        ("smtp://u:p@mail.example.com", "mail.example.com", 587, Encryption.REQUIRED),
        ("smtp://u:p@localhost:2525", "localhost", 2525, Encryption.OPPORTUNISTIC),
        ("smtp://u:p@mail.example.com?starttls=opportunistic", "mail.example.com", 587, Encryption.OPPORTUNISTIC),
        ("smtp://mail.example.com/?starttls=required", "mail.example.com", 25, Encryption.REQUIRED),
        ("smtp://mail.example.com?starttls=never", "mail.example.com", 25, Encryption.NEVER),
        ("smtps://u:p@mail.example.com", "mail.example.com", 465, Encryption.IMPLICIT),
        ("smtp://[::1]:25", "::1", 25, Encryption.OPPORTUNISTIC),
    ],
)
def test_a_url_says_where_and_how_to_connect(url: str, host: str, port: int, encryption: Encryption) -> None:
    options = read(url)
    assert (options.url.host, options.url.port, options.url.encryption) == (host, port, encryption)


def test_credentials_are_percent_decoded() -> None:
    options = read("smtp://me%40example.com:p%3A%2F%40%C3%A9@mail.example.com")
    assert (options.url.username, options.url.password) == ("me@example.com", "p:/@é")


def test_the_defaults_are_bounded() -> None:
    options = read("smtp://mail.example.com")
    assert (options.max_connections, options.max_messages, options.max_age_seconds) == (200, 100, 300)
    assert options.tls.verify_mode is ssl.CERT_REQUIRED
    assert options.tls.check_hostname


def test_certificates_can_be_left_unverified() -> None:
    assert read("smtp://mail.example.com", verify="false").tls.verify_mode is ssl.CERT_NONE


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({}, "url is missing"),
        ({"url": "mail.example.com:587"}, "url must have the form"),
        ({"url": "http://mail.example.com"}, "url must have the form"),
        ({"url": "smtp://u:secret/x@mail.example.com:587"}, "url"),
        ({"url": "smtp://mail.example.com:port"}, "url is not a URL"),
        ({"url": "smtp://mail.example.com?starttls=perhaps"}, "unknown .starttls"),
        ({"url": "smtp://mail.example.com?tls=yes"}, "one parameter only"),
        ({"url": "smtps://mail.example.com?starttls=required"}, "encrypts from the start"),
        ({"url": "smtp://mail.example.com", "max_connections": "0"}, "max_connections must be a whole number"),
        ({"url": "smtp://mail.example.com", "max_messages": "many"}, "max_messages must be a whole number"),
        ({"url": "smtp://mail.example.com", "verify": "perhaps"}, "verify must be true or false"),
        ({"url": "smtp://mail.example.com", "ca_file": "missing.pem"}, "ca_file names missing.pem"),
        ({"url": "smtp://mail.example.com", "message_id_domain": "a b"}, "message_id_domain must be"),
        ({"url": "smtp://mail.example.com", "local_hostname": "a\r\nb"}, "local_hostname must be"),
        (
            {"url": "smtp://mail.example.com", "max_conections": "3"},
            "max_conections is not an option; there are url",
        ),
    ],
)
def test_a_wrong_option_is_named_and_no_secret_repeated(options: dict[str, str], named: str) -> None:
    with pytest.raises(ConfigurationError, match=f"provider relay: .*{named}") as wrong:
        SmtpOptions.read("relay", options)
    assert "secret" not in str(wrong.value)


def test_a_ca_file_without_certificates_is_refused(tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("nothing")
    with pytest.raises(ConfigurationError, match="holds no certificates"):
        read("smtp://mail.example.com", ca_file=str(tmp_path / "ca.pem"))


def test_the_password_is_not_printed() -> None:
    assert "secret" not in repr(read("smtp://u:secret@mail.example.com"))
