"""Finds out why no answer over HTTP will ever come: the address speaks no TLS or no HTTP, or shows a certificate
that is not trusted. If the caller were told to try again later, it would try for ever."""

from __future__ import annotations

from collections.abc import Iterator
from ssl import SSLCertVerificationError, SSLError
from urllib.parse import urlsplit

from notifier.domain.certificates import is_of_another_host

#: Time limit for the extra connection that checks what is at the address, and for its answer, each. Seconds.
LOOK_SECONDS = 1.0


def lasting_fault(error: Exception, url: str) -> str | None:
    """What must be corrected before a request to `url` that ended in this httpx error can succeed; None: the next
    request may succeed. May open a connection of its own, which takes up to 2 s."""
    parts = urlsplit(url)
    is_tls = parts.scheme.lower() == "https"
    place = (parts.hostname or "", parts.port or (443 if is_tls else 80))
    named = f"{place[0]}:{place[1]}"
    for cause in _causes(error):
        if isinstance(cause, SSLCertVerificationError):
            if is_of_another_host(cause):
                fix = "write its name in the address of the API, or have one made for this name"
                return f"the certificate of {named} is another host's: {fix}"
            fix = "have it renewed, or name the authority that signed it in the file of SSL_CERT_FILE"
            return f"the certificate of {named} is not trusted: {fix}"
        if isinstance(cause, SSLError) and cause.reason == "WRONG_VERSION_NUMBER":
            return f"{named} speaks no TLS: write http:// in the address of the API, or give the port that does"
    if type(error).__name__ not in ("RemoteProtocolError", "ReadError"):
        return None
    # Imported here because it is seldom needed.
    from notifier.broker.other_protocol import spoken_at

    found = None if is_tls else spoken_at(place, LOOK_SECONDS)
    if found in (None, "HTTP"):
        return None
    fix = "write https:// in the address of the API, or give" if found == "TLS" else "give"
    return f"{named} speaks {found}, not HTTP: {fix} the port of the service's HTTP API, usually 8080"


def _causes(error: BaseException) -> Iterator[BaseException]:
    found: BaseException | None = error
    while found is not None:
        yield found
        found = found.__cause__ or found.__context__
