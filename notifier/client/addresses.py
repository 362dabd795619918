"""Finds the broker and the HTTP API for a client: given by the caller, in the environment, or of this user's
`notifier up`."""

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
    """Address and key of the service's HTTP API."""

    url: str
    key: str = field(repr=False)


def find_broker(url: str | None) -> str:
    """Return the broker's URL: the given one, NOTIFIER_BROKER_URL, or the broker of a running `notifier up`.

    Raises:
        ConfigurationError: none of these exists.
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
    """How a client reaches the service's HTTP API."""

    #: The API's address, such as https://notifier.example.com; default: NOTIFIER_API_URL.
    api_url: str
    #: An API key with the scope `read`; default: NOTIFIER_API_KEY.
    api_key: str
    #: Check messages against the service's templates before publishing them (`notifier.client.template_check`).
    #: True: use the API at `api_url`. A string: the address of the API that lists the templates.
    templates: bool | str


@dataclass(frozen=True, slots=True)
class ApiSearch:
    """Finds the API that belongs to a broker. The API of a service started by `notifier up` is used only for that
    service's own broker, and its key is sent only to its own address. So no other service gets the key or is asked
    about a message."""

    #: The broker's URL. None: the one that `find_broker` would find.
    broker_url: str | None = field(default=None, repr=False)
    api_url: str | None = None
    api_key: str | None = field(default=None, repr=False)
    templates: bool | str = False

    def of_templates(self) -> Self | None:
        """The search for the API that lists the templates; None: templates are not checked.

        Raises:
            ConfigurationError: `templates` neither turns the check off nor gives an address.
        """
        if self.templates is False:
            return None
        if not self.templates:
            # Usually the value comes from a variable that is not set. Without this error nothing would be checked,
            # and nobody would notice.
            raise ConfigurationError(
                f"templates={self.templates!r} names no API: give its address, or True for the client's own, or "
                "False to check nothing"
            )
        return self if self.templates is True else replace(self, api_url=self.templates)

    def find(self) -> ApiAddress:
        """Find the API. Raises `ConfigurationError` if its address or key is neither given nor found."""
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
            # The password in the URL would be sent instead of the key, and the service would answer that there is
            # no key.
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
    """Whether the API at this address belongs to a `notifier up` of this user that is running or was killed."""
    service = find_running_service()
    return service is not None and _is_same(url, service.api_url)


def _is_same(url: str, other: str | None) -> bool:
    return isinstance(url, str) and other is not None and url.rstrip("/").lower() == other.rstrip("/").lower()


def _missing(problem: str, setting: str) -> ConfigurationError:
    fix = "give api_url= and api_key=, or set NOTIFIER_API_URL and NOTIFIER_API_KEY"
    return ConfigurationError(
        f"{problem}: {fix}; `notifier keys create --producer …` makes a key", setting=setting
    )
