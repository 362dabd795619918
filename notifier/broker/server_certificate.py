"""Checks that a broker's certificate is for the right host, and says what is wrong if it is not.

py-amqp verifies who signed a certificate. It verifies the host's name only if it is told the name. kombu can tell
it one name, the same for all hosts of a URL, and first changes localhost to 127.0.0.1. Without the check, anybody
with a trusted certificate of any host could take the broker's place and would be given its password.
"""

from __future__ import annotations

import re
import ssl
from typing import Any
from urllib.parse import urlsplit

from notifier.broker.deadline import open_socket
from notifier.domain.certificates import is_of_another_host

#: Deadline of fetching a refused certificate again. Seconds.
_LOOK_SECONDS = 2.0
#: Maximum number of a certificate's names that an error repeats, and how these names must look.
_MAX_NAMES = 3
_NAME = re.compile(r"[A-Za-z0-9*._:-]{1,255}", re.ASCII)
#: What to do about a certificate that is for another host.
_FIX = "write its name in the broker URL, or give the broker a certificate for the name in the URL"


class OtherServer(ssl.SSLCertVerificationError):
    """The certificate is trusted, but it is for another host. Nothing was sent.

    The text has host and port, the names of the certificate and the fix, and no secret.
    """


class ChecksName:
    """Requires a certificate for the host that this very connection goes to, as the URL writes it: a name or an IP
    address. Comes before kombu's TLS transport for RabbitMQ in the order of inheritance."""

    client: Any

    def establish_connection(self) -> Any:
        """Connect. Raises `OtherServer`."""
        client = self.client
        host = client.hostname or "localhost"
        # Set anew for each connection, because kombu would keep the name of the first host for the next ones.
        client.ssl = {"server_hostname": host}
        try:
            return super().establish_connection()  # type: ignore[misc]  # kombu's
        except ssl.SSLCertVerificationError as error:
            if not is_of_another_host(error):
                raise
            raise _other_server(host, client.port, _seconds_left(client)) from error
        finally:
            # For the next try, and for copies of this connection.
            client.hostname = host


def certificate_problem(error: BaseException, url: str) -> str | None:
    """What is wrong with the certificate of this URL's broker, and the fix. None: the error is about something
    else. Trying again does not help before somebody corrects it."""
    # redis-py wraps the handshake's error.
    errors = (error, error.__cause__, error.__context__)
    found = next((one for one in errors if isinstance(one, ssl.SSLCertVerificationError)), None)
    if found is None or isinstance(found, OtherServer):
        return str(found) if found else None
    place = " or ".join(_place(host) for host in url.split(";"))
    if is_of_another_host(found):
        return f"the certificate of the broker at {place} is another host's: {_FIX}"
    fix = "have it renewed, or name the authority that signed it in the file of SSL_CERT_FILE"
    return f"the certificate of the broker at {place} is not valid: {fix}"


def _place(url: str) -> str:
    """host:port of a URL, never its user or password."""
    return urlsplit(url if "://" in url else f"//{url}").netloc.rpartition("@")[2] or "localhost"


def _seconds_left(client: Any) -> float:
    deadline = (client.transport_options or {}).get("deadline")
    return _LOOK_SECONDS if deadline is None else min(_LOOK_SECONDS, deadline.remaining)


def _other_server(host: str, port: int, seconds: float) -> OtherServer:
    place = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    names = _names_at((host, port), seconds)
    known = f"for {' and '.join(names)}, not for {host}" if names else f"not for {host}"
    return OtherServer(ssl.SSL_ERROR_SSL, f"the certificate of the broker at {place} is {known}: {_FIX}")


def _names_at(place: tuple[str, int], seconds: float) -> list[str]:
    """The names that the certificate there is for, if they can be read. Python does not keep a certificate that it
    refused, so it is fetched again. If nobody trusts the certificate, nothing is said about it."""
    context = ssl.create_default_context()
    context.check_hostname = False
    try:
        with open_socket(place, seconds) as plain:
            plain.settimeout(seconds)
            with context.wrap_socket(plain, server_hostname=place[0]) as shown:
                found: Any = shown.getpeercert() or {}
    except (OSError, ValueError):
        return []
    names = [name for _, name in found.get("subjectAltName", ())]
    names = names or [value for part in found.get("subject", ()) for key, value in part if key == "commonName"]
    return [name for name in names if _NAME.fullmatch(name)][:_MAX_NAMES]
