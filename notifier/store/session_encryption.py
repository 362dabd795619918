"""Whether others on the way can read what we and PostgreSQL say, or take its place."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from sqlalchemy import Engine

from notifier.store.engine import transaction

#: Values of libpq's `sslmode` by which the server's certificate is verified.
_VERIFYING = ("verify-ca", "verify-full")


@dataclass(frozen=True, slots=True)
class SessionEncryption:
    """As a session of ours has it with the first that answers there: PostgreSQL, or a pooler before it."""

    #: As in the URL; "" or a folder: a socket of this machine.
    host: str
    #: The IP address that it led to; "": none.
    address: str
    is_encrypted: bool
    #: libpq's, from the URL, the environment or a service file.
    sslmode: str

    @property
    def is_on_this_machine(self) -> bool:
        if not self.address:
            return True
        return ip_address(self.address.partition("%")[0]).is_loopback

    @property
    def is_verified(self) -> bool:
        """Whether the server has shown a certificate of an authority that we trust."""
        return self.is_encrypted and self.sslmode in _VERIFYING


def session_encryption(engine: Engine) -> SessionEncryption:
    """Raises `ServiceUnavailable` if the database cannot be used now."""
    with transaction(engine) as connection:
        session: Any = connection.connection.dbapi_connection
        info = session.info
        # What is libpq's own default is not among them.
        sslmode = info.get_parameters().get("sslmode", "prefer")
        is_socket = info.host.startswith(("/", "@"))
        address = "" if is_socket else info.hostaddr
        return SessionEncryption(info.host, address, bool(session.pgconn.ssl_in_use), sslmode)
