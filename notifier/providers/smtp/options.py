"""The options of an `smtp` provider: where to connect, how to encrypt, how many connections to keep."""

from __future__ import annotations

import re
import socket
import ssl
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Annotated, Any, Self
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import BeforeValidator, Field, field_validator

from notifier.providers.options import Boolean, ExistingFile, ProviderOptions, matching, whole_number

_DOMAIN = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]*[A-Za-z0-9])?")
_HELO = re.compile(rf"{_DOMAIN.pattern}|\[[0-9A-Fa-f:.IPv]+\]")
_IS_DOMAIN = matching(_DOMAIN.fullmatch, "an ASCII domain like example.com")
_IS_HOST_NAME = matching(_HELO.fullmatch, "a host name")
_LOOPBACK = re.compile(r"localhost|127(?:\.\d{1,3}){3}|::1")
_URL_SHAPE = "smtp://user:password@host:587 or smtps://user:password@host:465"


class Encryption(StrEnum):
    IMPLICIT = "implicit"  #: TLS from the first byte (smtps)
    REQUIRED = "required"  #: STARTTLS, or the mail is not sent
    OPPORTUNISTIC = "opportunistic"  #: STARTTLS if the server offers it
    NEVER = "never"  #: plain text


@dataclass(frozen=True, slots=True)
class ServerUrl:
    """The parts of `url`. Errors never repeat it, because it holds a password."""

    host: str
    port: int
    username: str | None
    password: str | None = field(repr=False)
    encryption: Encryption

    @classmethod
    def read(cls, url: Any) -> Self:
        """Parse the URL. Raises `ValueError` with what is wrong."""
        try:
            parts = urlsplit(str(url))
            host, port = parts.hostname or "", parts.port
        except ValueError:
            raise ValueError(f"is not a URL of the form {_URL_SHAPE}") from None
        if parts.scheme not in ("smtp", "smtps") or not host or parts.path not in ("", "/"):
            raise ValueError(f"must have the form {_URL_SHAPE}; percent-encode @ : / in the password")
        username = unquote(parts.username) if parts.username else None
        password = unquote(parts.password or "") if username else None
        # With a password, "if offered" would let anyone on the way remove the offer and read the password.
        in_danger = username is not None and not _LOOPBACK.fullmatch(host)
        default = Encryption.REQUIRED if in_danger else Encryption.OPPORTUNISTIC
        encryption = _encryption(parts.scheme, parts.query, default)
        usual = 465 if encryption is Encryption.IMPLICIT else 587 if username else 25
        return cls(host, port or usual, username, password, encryption)


def _encryption(scheme: str, query: str, default: Encryption) -> Encryption:
    asked = dict(parse_qsl(query, keep_blank_values=True))
    starttls = asked.pop("starttls", None)
    if asked:
        raise ValueError("may have one parameter only: ?starttls=required, opportunistic or never")
    if scheme == "smtps":
        if starttls is not None:
            raise ValueError("is smtps, which encrypts from the start: remove ?starttls")
        return Encryption.IMPLICIT
    if starttls is None:
        return default
    if starttls not in ("required", "opportunistic", "never"):
        raise ValueError("has an unknown ?starttls: use required, opportunistic or never")
    return Encryption(starttls)


def _own_name() -> str:
    """Our host name if it is fully qualified, otherwise the address literal of RFC 5321 section 4.1.4. Uses no
    DNS: `socket.getfqdn` can hang for many seconds, and aiosmtplib would call it for each connection."""
    name = socket.gethostname()
    return name if "." in name and _DOMAIN.fullmatch(name) else "[127.0.0.1]"


class SmtpOptions(ProviderOptions):
    url: Annotated[ServerUrl, BeforeValidator(ServerUrl.read)] = Field(repr=False, description=_URL_SHAPE)
    #: Certificates of trusted issuers; None: those of the system.
    ca_file: ExistingFile | None = None
    #: Whether the server's certificate is checked.
    verify: Boolean = True
    #: Maximum number of connections. Fewer are used if more are not faster.
    max_connections: Annotated[int, whole_number(1, 1000)] = 200
    #: Maximum number of mails on one connection, because relays have such a limit.
    max_messages: Annotated[int, whole_number(1, 1_000_000)] = 100
    #: A connection is closed at this age, whether or not it is in use.
    max_age_seconds: Annotated[int, whole_number(1, 86_400)] = 300
    #: Domain of Message-IDs; None: the sender's domain.
    message_id_domain: Annotated[str, _IS_DOMAIN] | None = None
    #: Whether text that is not ASCII goes unencoded to a server with 8BITMIME.
    allow_8bit: Boolean = True
    local_hostname: Annotated[str, _IS_HOST_NAME] = Field(default_factory=_own_name)

    @field_validator("ca_file")
    @classmethod
    def _holds_certificates(cls, path: ExistingFile | None) -> ExistingFile | None:
        try:
            ssl.create_default_context(cafile=path)
        except (OSError, ssl.SSLError):
            raise ValueError(f"names {path}, which holds no certificates in PEM form") from None
        return path

    @cached_property
    def tls(self) -> ssl.SSLContext:
        context = ssl.create_default_context(cafile=self.ca_file)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context
