"""Whether others on the way can read our sessions with PostgreSQL, or take the server's place."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import ip_address
from typing import Any

from sqlalchemy import Engine

from notifier.store.engine import transaction

#: Values of libpq's `sslmode` with which the server's certificate is verified.
_VERIFYING = ("verify-ca", "verify-full")


@dataclass(frozen=True, slots=True)
class SessionEncryption:
    """The encryption of one of our sessions, up to the first server: PostgreSQL, or a pooler in front of it."""

    #: As in the URL. "" or a folder: a socket of this machine.
    host: str
    #: The IP address that the host resolved to. "": none.
    address: str
    is_encrypted: bool
    #: The value in libpq, from the URL, the environment or a service file.
    sslmode: str

    @property
    def is_on_this_machine(self) -> bool:
        if not self.address:
            return True
        return ip_address(self.address.partition("%")[0]).is_loopback

    @property
    def is_verified(self) -> bool:
        """Whether the server has shown a certificate from an authority that we trust."""
        return self.is_encrypted and self.sslmode in _VERIFYING


def session_encryption(engine: Engine) -> SessionEncryption:
    """The encryption of a session. Raises `ServiceUnavailable` if the database cannot be used now."""
    with transaction(engine) as connection:
        session: Any = connection.connection.dbapi_connection
        info = session.info
        # The parameters do not include libpq's own defaults.
        sslmode = info.get_parameters().get("sslmode", "prefer")
        is_socket = info.host.startswith(("/", "@"))
        address = "" if is_socket else info.hostaddr
        return SessionEncryption(info.host, address, bool(session.pgconn.ssl_in_use), sslmode)
