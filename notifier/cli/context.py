"""What the commands are connected to: settings, a client, the record. Tests hand in another `Wiring`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import typer

from notifier.domain.statuses import Channel, Lane

if TYPE_CHECKING:  # they take a moment to import, and `notifier --help` needs neither
    from notifier.bootstrap import Services
    from notifier.client.client import Handle
    from notifier.config.settings import Settings


class SendingClient(Protocol):
    """What `send` and `publish` need of a client; `RecordingClient` has it too."""

    def send(
        self,
        template: str,
        to: str,
        *,
        context: Mapping[str, Any] | None = None,
        channel: Channel | str | None = None,
        lane: Lane | str = Lane.NORMAL,
        **fields: Any,
    ) -> Handle: ...

    def send_many(
        self,
        entries: Iterable[Mapping[str, Any]],
        *,
        channel: Channel | str,
        lane: Lane | str = Lane.BULK,
        **defaults: Any,
    ) -> list[Handle]: ...


def read_settings() -> Settings:
    """The settings of this process. Its log then shows warnings only: a command's answer is its output."""
    from notifier.config.logs import configure
    from notifier.config.settings import load_settings

    settings = load_settings()
    configure("debug" if settings.log_level == "debug" else "warning", settings.log_format, program="cli")
    return settings


def connect(settings: Settings, producer: str) -> AbstractContextManager[SendingClient]:
    """A client for the configured broker. Opens no connection yet."""
    from notifier.client.client import Client

    return Client(settings.require("broker_url"), producer=producer, broker_user=settings.broker_user)


@dataclass(frozen=True, slots=True)
class Wiring:
    """The outside world of a command."""

    settings: Callable[[], Settings] = read_settings
    client: Callable[[Settings, str], AbstractContextManager[SendingClient]] = connect

    @contextmanager
    def services(self) -> Iterator[Services]:
        """The record and what belongs to it; its connections are closed at the end."""
        from notifier.bootstrap import Services

        services = Services(self.settings(), pool_size=1, application="notifier cli", guarded=False)
        try:
            yield services
        finally:
            services.close()


def wiring(context: typer.Context) -> Wiring:
    """The wiring of this call."""
    found = context.find_root().obj
    return found if isinstance(found, Wiring) else Wiring()
