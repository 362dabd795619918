"""Writes messages into the outbox, through Django's ORM."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

from notifier.client.addresses import ApiSearch
from notifier.client.client import Messages
from notifier.client.messages import Encoded
from notifier.client.service_api import ServiceApi
from notifier.contrib.django.models import OutboxMessage
from notifier.contrib.django.settings import DjangoSettings


class DjangoMessages(Messages):
    """Checks messages like `Client` and writes them into the outbox of the database `using`."""

    def __init__(self, *, producer: str, using: str | None = None) -> None:
        super().__init__(producer=producer)
        self._using = using

    @property
    def _api(self) -> ServiceApi:
        return service_api()

    def write(self, messages: Sequence[Encoded]) -> None:
        """Write messages that are already encoded, in the current transaction."""
        self._hand_over(messages, None)

    def _hand_over(self, messages: Sequence[Encoded], outbox: Any) -> None:
        if outbox is not None:
            raise TypeError("outbox= takes no session here: the current transaction of `using` is the outbox's")
        rows = [
            OutboxMessage(
                id=encoded.id,
                channel=encoded.channel.value,
                lane=encoded.lane.value,
                body=encoded.body.decode(),
            )
            for encoded in messages
        ]
        OutboxMessage.objects.using(self._using).bulk_create(rows, batch_size=500)


def service_api() -> ServiceApi:
    """The HTTP API named in the project's settings."""
    settings = DjangoSettings.read()
    return _service_api(settings.api_url, settings.api_key, settings.timeout_seconds)


@cache
def _service_api(url: str | None, key: str | None, timeout_seconds: float) -> ServiceApi:
    """One for each process and settings, so that its connections are kept."""
    return ServiceApi(ApiSearch(None, url, key).find, timeout_seconds)


def messages(using: str | None) -> DjangoMessages:
    """For one call only, because tests may override settings."""
    return DjangoMessages(producer=DjangoSettings.read().require("NOTIFIER_PRODUCER").producer, using=using)
