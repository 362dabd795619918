"""Where a client finds the service: what it was given, the environment, a `notifier up` of this user."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass, field, replace
from typing import Self, TypedDict
from urllib.parse import urlsplit

from notifier.config.running_service import find_running_service
from notifier.domain.errors import ConfigurationError

_BLANK = re.compile(r"[\s\x00-\x1f\x7f]")


@dataclass(frozen=True, slots=True)
class ApiAddress:
    """Of the service's HTTP API."""

    url: str
    key: str = field(repr=False)


def find_broker(url: str | None) -> str:
    """The broker's URL.

    Raises:
        ConfigurationError: it is neither given nor found.
    """
    found = url or os.environ.get("NOTIFIER_BROKER_URL")
    if not found and (service := find_running_service()) is not None:
        found = service.broker_url
    if not found:
        raise ConfigurationError(
            "this client has no broker: give it a URL, set NOTIFIER_BROKER_URL, start `notifier up`, or send with "
            "outbox=",
            setting="NOTIFIER_BROKER_URL",
        )
    return found


class ApiOptions(TypedDict, total=False):
    """How a client asks the service over HTTP."""

    #: Its address, as https://notifier.example.com; default: NOTIFIER_API_URL.
    api_url: str
    #: A key with the scope `read`; default: NOTIFIER_API_KEY.
    api_key: str
    #: Check messages against the service's templates before they are published; `notifier.client.template_check`.
    #: True, or the address of the API that lists them, where it is not `api_url`.
    templates: bool | str


@dataclass(frozen=True, slots=True)
class ApiSearch:
    """Finds the API that belongs to a broker. That of the service which `notifier up` runs is found for its own
    broker only, and its key for its own address: it goes to nobody else, and no other service is asked about a
    message."""

    #: None: the one that would be found.
    broker_url: str | None = field(default=None, repr=False)
    api_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    templates: bool | str = False

    def of_templates(self) -> Self | None:
        """Where the templates are listed; None: nobody looks.

        Raises:
            ConfigurationError: it is neither said that nobody looks, nor where.
        """
        if self.templates is False:
            return None
        if not self.templates:
            # As a rule from a variable that is not set: without an error nothing would be checked, unnoticed.
            raise ConfigurationError(
                f"templates={self.templates!r} names no API: give its address, or True for the client's own, or "
                "False to check nothing"
            )
        return self if self.templates is True else replace(self, api_url=self.templates)

    def find(self) -> ApiAddress:
        """Raises `ConfigurationError`: address or key is neither given nor found."""
        url = self.api_url or os.environ.get("NOTIFIER_API_URL")
        key = self.api_key or os.environ.get("NOTIFIER_API_KEY")
        service = find_running_service() if not (url and key) else None
        if not url and service is not None:
            broker_url = self.broker_url or os.environ.get("NOTIFIER_BROKER_URL") or None
            if broker_url in (None, service.broker_url):
                url = service.api_url
        if not key and url and service is not None and _is_same(url, service.api_url):
            key = service.api_key
        if not url:
            raise _missing("the address of the service's HTTP API is not known", "NOTIFIER_API_URL")
        if not key:
            raise _missing("there is no key for the service's HTTP API", "NOTIFIER_API_KEY")
        if not _is_http(url):
            raise ConfigurationError(
                "the address of the HTTP API is not a URL: write https://notifier.example.com",
                setting="NOTIFIER_API_URL",
            )
        if "@" in urlsplit(url).netloc:
            # It would be sent instead of the key, and the service would say that there is none.
            raise ConfigurationError(
                "the address of the HTTP API names a user: leave out what is before the @, as only the key says "
                "who asks",
                setting="NOTIFIER_API_URL",
            )
        return ApiAddress(url, key)


def _is_http(url: object) -> bool:
    if not isinstance(url, str):
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port
    except ValueError:
        return False
    return parts.scheme.lower() in ("http", "https") and bool(parts.hostname) and not _BLANK.search(url)


def is_of_running_service(url: str) -> bool:
    """Whether the API at this address is, or was until it was killed, of a `notifier up` of this user."""
    service = find_running_service()
    return service is not None and _is_same(url, service.api_url)


def _is_same(url: str, other: str | None) -> bool:
    return isinstance(url, str) and other is not None and url.rstrip("/").lower() == other.rstrip("/").lower()


def _missing(problem: str, setting: str) -> ConfigurationError:
    fix = "give api_url= and api_key=, or set NOTIFIER_API_URL and NOTIFIER_API_KEY"
    return ConfigurationError(
        f"{problem}: {fix}; `notifier keys create --producer …` makes a key", setting=setting
    )
