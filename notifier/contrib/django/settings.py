"""Reads and checks the project's settings for notifier."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Self

from django.conf import settings as project

from notifier.broker import topology
from notifier.domain.errors import ConfigurationError

# As in the message contract.
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")


@dataclass(frozen=True, slots=True)
class DjangoSettings:
    """The project's settings: each field is `NOTIFIER_<NAME>`."""

    #: This project's name among the producers.
    producer: str = ""
    #: amqp://user:password@host/vhost or redis://host:6379/0. Only the relay uses it.
    broker_url: str = field(default="", repr=False)
    #: How long the relay waits for the broker's confirmation. Seconds.
    timeout_seconds: float = 5.0
    #: How long the relay may take to end after SIGTERM or Ctrl-C. Seconds.
    grace_seconds: float = 45.0
    #: RabbitMQ's name for the relay, if it differs from the URL's user; "": send none.
    broker_user: str | None = None
    #: Address in a mail's `from_email` or `reply_to` → name of a sender identity of the service.
    senders: Mapping[str, str] = field(default_factory=dict)
    #: The HTTP API, for a handle's `status` and `wait`; default: the environment variable of this name.
    api_url: str | None = None
    api_key: str | None = field(default=None, repr=False)

    @classmethod
    def read(cls) -> Self:
        """Read the settings without checking them; see `problems`."""
        given: dict[str, Any] = {
            name: getattr(project, f"NOTIFIER_{name.upper()}")
            for name in cls.__dataclass_fields__
            if hasattr(project, f"NOTIFIER_{name.upper()}")
        }
        if isinstance(given.get("senders"), Mapping):
            given["senders"] = {str(address).lower(): name for address, name in given["senders"].items()}
        return cls(**given)

    def problems(self) -> Iterator[ConfigurationError]:
        if not isinstance(self.producer, str) or not _NAME.match(self.producer):
            yield ConfigurationError(
                'NOTIFIER_PRODUCER must name this service, as NOTIFIER_PRODUCER = "shop": letters, digits, . _ -',
                setting="NOTIFIER_PRODUCER",
            )
        if not isinstance(self.broker_url, str) or not self.broker_url:
            yield ConfigurationError(
                "NOTIFIER_BROKER_URL is not set: write amqp://user:password@host/vhost or redis://host:6379/0",
                setting="NOTIFIER_BROKER_URL",
            )
        else:
            try:
                topology.verified(self.broker_url)
            except ConfigurationError as error:
                yield error
        for name in ("timeout_seconds", "grace_seconds"):
            seconds, setting = getattr(self, name), f"NOTIFIER_{name.upper()}"
            if not isinstance(seconds, int | float) or seconds <= 0:
                yield ConfigurationError(f"{setting} must be a number above 0", setting=setting)
        senders: Any = self.senders
        if not isinstance(senders, Mapping) or not all(
            isinstance(name, str) and _NAME.match(name) for name in senders.values()
        ):
            yield ConfigurationError(
                "NOTIFIER_SENDERS must name the sender identities of addresses: "
                'NOTIFIER_SENDERS = {"help@example.com": "support"}',
                setting="NOTIFIER_SENDERS",
            )
        known_as: Any = self.broker_user
        if not isinstance(known_as, str | None):
            yield ConfigurationError(
                "NOTIFIER_BROKER_USER must be the name of a broker user: leave it out for the user of the URL",
                setting="NOTIFIER_BROKER_USER",
            )

    def require(self, *names: str) -> Self:
        """Return these settings. Raises `ConfigurationError` with the first problem of those named."""
        for problem in self.problems():
            if problem.setting in names:
                raise problem
        return self
