"""The two requests that a Django project makes of the service's HTTP API: upload a file, list notifications."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import quote, urlencode
from urllib.request import HTTPRedirectHandler, Request, build_opener

from django.conf import settings as project

from notifier.contrib.django.settings import DjangoSettings
from notifier.domain.errors import ConfigurationError, ServiceUnavailable


class _NoRedirects(HTTPRedirectHandler):
    """A redirect would carry the key to whoever it names."""

    def redirect_request(self, *_: Any, **__: Any) -> None:
        return None


_OPENER = build_opener(_NoRedirects())


@dataclass(frozen=True, slots=True)
class ServiceApi:
    """One request at a time, on a connection of its own: both are rare."""

    url: str
    key: str = field(repr=False)
    timeout_seconds: float = 5.0

    @classmethod
    def of_project(cls) -> ServiceApi:
        """Raises `ConfigurationError` if NOTIFIER_API_URL or NOTIFIER_API_KEY is missing or wrong."""
        settings = DjangoSettings.read().require("NOTIFIER_TIMEOUT_SECONDS")
        for name, example in (
            ("NOTIFIER_API_URL", "https://notifier.example.com"),
            ("NOTIFIER_API_KEY", "ntf_live_…"),
        ):
            value = getattr(project, name, None)
            if not value or not isinstance(value, str):
                raise ConfigurationError(f'{name} is not set: write {name} = "{example}"', setting=name)
        url = project.NOTIFIER_API_URL
        if not url.startswith(("http://", "https://")):
            raise ConfigurationError(
                "NOTIFIER_API_URL must begin with https:// or http://", setting="NOTIFIER_API_URL"
            )
        return cls(url.rstrip("/"), project.NOTIFIER_API_KEY, settings.timeout_seconds)

    def upload(self, name: str, content: bytes, content_type: str) -> str:
        """The id of a file for `attachments`; the same file gets the same id.

        Raises:
            ConfigurationError: the service refuses key or file; the text says why.
            ServiceUnavailable: it does not answer.
        """
        headers = {
            "Content-Type": content_type,
            "Content-Disposition": f"attachment; filename*=UTF-8''{quote(name, safe='')}",
        }
        return str(self._ask("/v1/attachments", headers, content)["id"])

    def notifications(self, recipient: str, *, after: str = "", limit: int = 50) -> dict[str, Any]:
        """A page of what this address or number was sent, newest first: `items`, and `next` for `after`.

        Raises: as `upload`.
        """
        query = {"recipient": recipient, "limit": str(limit)} | ({"after": after} if after else {})
        return self._ask(f"/v1/notifications?{urlencode(query)}", {"Accept": "application/json"})

    def _ask(self, path: str, headers: dict[str, str], body: bytes | None = None) -> dict[str, Any]:
        request = Request(self.url + path, body, {"Authorization": f"Bearer {self.key}", **headers})  # noqa: S310
        try:
            with _OPENER.open(request, timeout=self.timeout_seconds) as answer:
                found: dict[str, Any] = json.load(answer)
                return found
        except HTTPError as error:
            with error:
                text = _problem(error)
            if error.code >= 500 or error.code in (408, 429):
                raise ServiceUnavailable(f"the service's HTTP API is not ready: {text}") from None
            raise ConfigurationError(
                f"the service's HTTP API refuses it: {text}", setting="NOTIFIER_API_KEY"
            ) from None
        except (URLError, OSError, HTTPException, ValueError) as error:
            raise ServiceUnavailable(f"the service's HTTP API does not answer ({type(error).__name__})") from None


def _problem(error: HTTPError) -> str:
    """What the service says, for people; its problems repeat no value of a message."""
    try:
        found = json.load(error)
        faults = [f"{one['problem']}. {one['fix']}." for one in found.get("errors", ())]
        return " ".join([str(found["detail"]), *faults])
    except (ValueError, KeyError, TypeError, OSError, HTTPException, AttributeError):
        return f"HTTP {error.code}"
