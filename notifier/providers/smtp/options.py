"""The options of an `smtp` provider, read once: where to connect, how to encrypt, how many connections to keep."""

from __future__ import annotations

import re
import socket
import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from notifier.domain.errors import ConfigurationError
from notifier.providers.options import Options

_DOMAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_HELO = re.compile(rf"{_DOMAIN.pattern}|\[[0-9A-Fa-f:.IPv]+\]")
_LOOPBACK = re.compile(r"localhost|127(?:\.\d{1,3}){3}|::1")
_URL_SHAPE = "smtp://user:password@host:587 or smtps://user:password@host:465"


class Encryption(StrEnum):
    """How the connection is encrypted."""

    IMPLICIT = "implicit"  #: TLS from the first byte (smtps)
    REQUIRED = "required"  #: STARTTLS, or no mail
    OPPORTUNISTIC = "opportunistic"  #: STARTTLS where the server offers it
    NEVER = "never"  #: plain text


@dataclass(frozen=True, slots=True)
class SmtpOptions:
    """Everything that an `SmtpProvider` needs to know."""

    host: str
    port: int
    username: str | None
    password: str | None = field(repr=False)
    encryption: Encryption
    tls: ssl.SSLContext = field(repr=False)
    #: Connections at once, at most; fewer if the server takes no more mails by more of them.
    max_connections: int
    #: A connection is closed after so many mails: relays like to count.
    max_messages: int
    #: A connection is closed when it is so old, used or not.
    max_age_seconds: float
    #: After the @ of Message-IDs; None: the sender's domain.
    message_id_domain: str | None
    #: What EHLO says.
    local_hostname: str


def read_options(name: str, values: Mapping[str, str]) -> SmtpOptions:
    """Read the table of provider `name`.

    Raises:
        ConfigurationError: naming the option that is missing, wrong or unknown.
    """
    options = Options(name, values)
    url = _Url(options)
    read = SmtpOptions(
        host=url.host,
        port=url.port,
        username=url.username,
        password=url.password,
        encryption=url.encryption,
        tls=_tls(options),
        max_connections=options.whole_number("max_connections", default=200, low=1, high=1000),
        max_messages=options.whole_number("max_messages", default=100, low=1, high=1_000_000),
        max_age_seconds=options.whole_number("max_age_seconds", default=300, low=1, high=86_400),
        message_id_domain=_matching(options, "message_id_domain", _DOMAIN, "an ASCII domain like example.com"),
        local_hostname=_matching(options, "local_hostname", _HELO, "a host name") or _own_name(),
    )
    options.finish()
    return read


class _Url:
    """The parts of `url`. No error repeats it: it holds a password."""

    def __init__(self, options: Options) -> None:
        self._wrong = options.wrong
        url = options.require("url", _URL_SHAPE)
        try:
            parts = urlsplit(url)
            self.host, port = parts.hostname or "", parts.port
        except ValueError:
            raise self._wrong("url", f"is no URL of the form {_URL_SHAPE}") from None
        if parts.scheme not in ("smtp", "smtps") or not self.host or parts.path not in ("", "/"):
            raise self._wrong("url", f"must have the form {_URL_SHAPE}; percent-encode @ : / in the password")
        self.username = unquote(parts.username) if parts.username else None
        self.password = unquote(parts.password or "") if self.username else None
        self.encryption = self._encryption(parts.scheme, parts.query)
        self.port = port or self._default_port()

    def _encryption(self, scheme: str, query: str) -> Encryption:
        asked = dict(parse_qsl(query, keep_blank_values=True))
        starttls = asked.pop("starttls", None)
        if asked:
            raise self._wrong("url", "may have one parameter only: ?starttls=required, opportunistic or never")
        if scheme == "smtps":
            if starttls is not None:
                raise self._wrong("url", "is smtps, which encrypts from the start: remove ?starttls")
            return Encryption.IMPLICIT
        if starttls is None:
            return self._default_encryption()
        if starttls not in ("required", "opportunistic", "never"):
            raise self._wrong("url", "has an unknown ?starttls: use required, opportunistic or never")
        return Encryption(starttls)

    def _default_encryption(self) -> Encryption:
        # With a password, "if offered" would let anyone on the way take the offer out and read the password.
        in_danger = self.username is not None and not _LOOPBACK.fullmatch(self.host)
        return Encryption.REQUIRED if in_danger else Encryption.OPPORTUNISTIC

    def _default_port(self) -> int:
        if self.encryption is Encryption.IMPLICIT:
            return 465
        return 587 if self.username else 25


def _tls(options: Options) -> ssl.SSLContext:
    ca_file = options.file("ca_file")
    verify = options.boolean("verify", default=True)
    try:
        context = ssl.create_default_context(cafile=str(ca_file) if ca_file else None)
    except (OSError, ssl.SSLError):
        raise _unreadable(options, ca_file) from None
    if not verify:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _unreadable(options: Options, ca_file: Path | None) -> ConfigurationError:
    return options.wrong("ca_file", f"names {ca_file}, which holds no certificates in PEM form")


def _matching(options: Options, key: str, pattern: re.Pattern[str], meaning: str) -> str | None:
    value = options.take(key)
    if value is not None and not pattern.fullmatch(value):
        raise options.wrong(key, f"must be {meaning}")
    return value


def _own_name() -> str:
    """Our host name where it is a full one, else the address literal that RFC 5321 section 4.1.4 asks for. Without
    DNS: `socket.getfqdn` can hang for many seconds, and aiosmtplib would call it for each connection."""
    name = socket.gethostname()
    return name if "." in name and _DOMAIN.fullmatch(name) else "[127.0.0.1]"
