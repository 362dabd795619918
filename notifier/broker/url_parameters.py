"""Checks the parameters after the "?" in a broker's URL. For unknown ones kombu, or a library behind it, would
raise errors of its own."""

from __future__ import annotations

import re
from urllib.parse import parse_qsl, urlencode, urlsplit

from notifier.domain.errors import ConfigurationError

#: Scheme → parameter → the form of its value, and that form in words.
_ANYTHING = re.compile(r".+"), "a value"
_AMQP = {
    "heartbeat": (re.compile(r"\d{1,4}", re.ASCII), "a number of seconds, as heartbeat=20"),
    "login_method": (re.compile(r"PLAIN|AMQPLAIN|EXTERNAL"), "PLAIN, AMQPLAIN or EXTERNAL"),
}
_TLS = {
    "ssl_ca_certs": _ANYTHING,
    "ssl_ca_path": _ANYTHING,
    "ssl_cert_reqs": (
        re.compile(r"(CERT_)?(NONE|OPTIONAL|REQUIRED)|none|optional|required"),
        "required, optional or none",
    ),
    "ssl_certfile": _ANYTHING,
    "ssl_check_hostname": (re.compile(r"(?i:true|false)"), "true or false"),
    "ssl_ciphers": _ANYTHING,
    "ssl_keyfile": _ANYTHING,
    "ssl_password": _ANYTHING,
}
_KNOWN = {"amqp": _AMQP, "amqps": _AMQP, "pyamqp": _AMQP, "redis": {}, "rediss": _TLS}

#: A parameter name that an error may repeat.
_NAME = re.compile(r"[a-z_]{1,40}")


def parameters(url: str) -> dict[str, str]:
    """The parameters in the URL of one host. If a name is repeated, the last one counts.

    Raises:
        ConfigurationError: one is unknown, or its value is not possible.
    """
    parts = urlsplit(url)
    scheme = parts.scheme.lower()
    known = _KNOWN[scheme]
    found = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name, value in found.items():
        if name not in known:
            named = f"the parameter {name}" if _NAME.fullmatch(name) else "a parameter"
            fix = "leave it out, or write rediss://" if name in _TLS and scheme == "redis" else "leave it out"
            raise _error(f"{named}, and {scheme}:// knows {'only ' + ', '.join(known) if known else 'none'}", fix)
        pattern, words = known[name]
        if not pattern.fullmatch(value):
            raise _error(f"the parameter {name} with an impossible value", f"give {words}")
    return found


def with_verified_certificate(url: str) -> str:
    """The URL of one host, checked. By itself, kombu verifies no certificate for rediss://."""
    found = parameters(url)
    parts = urlsplit(url)
    if parts.scheme.lower() != "rediss":
        return url
    # kombu knows two spellings of the value, redis-py one.
    asked = found.get("ssl_cert_reqs", "required").lower().removeprefix("cert_")
    return parts._replace(query=urlencode(found | {"ssl_cert_reqs": asked}, safe="/:")).geturl()


def _error(problem: str, fix: str) -> ConfigurationError:
    return ConfigurationError(f"the broker URL has {problem}; {fix}", setting="NOTIFIER_BROKER_URL")
