"""What the local mail server offers its clients."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class MailServerOptions:
    """See RFC 5321, and RFC 6531 for SMTPUTF8."""

    #: What the server calls itself.
    hostname: str = "localhost"
    #: Server certificate. Offers STARTTLS, or TLS from the first byte with `implicit_tls`.
    tls: ssl.SSLContext | None = None
    implicit_tls: bool = False
    #: Name → password. With any, mail is only taken after AUTH.
    users: Mapping[str, str] = field(default_factory=dict)
    smtputf8: bool = True
    #: Largest message; announced by SIZE. Bytes.
    max_size: int = 20 * 1024 * 1024
    #: In one transaction.
    max_recipients: int = 100
