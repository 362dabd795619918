"""What the commands are connected to: settings, a client, the record. Tests pass another `Wiring`."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import typer

if TYPE_CHECKING:  # they take a moment to import, and `notifier --help` needs neither
    from notifier.cli.operator_services import OperatorServices
    from notifier.client.client import Messages
    from notifier.config.settings import Settings


def read_settings() -> Settings:
    """The settings of this process. From now on it logs only warnings, because a command's answer is its
    output."""
    from notifier.config.logs import configure
    from notifier.config.settings import load_settings

    settings = load_settings()
    configure("debug" if settings.log_level == "debug" else "warning", settings.log_format, program="cli")
    return settings


def connect(settings: Settings, producer: str) -> AbstractContextManager[Messages]:
    """A client for the configured broker. Opens no connection yet."""
    from notifier.client.client import Client

    return Client(settings.require("broker_url"), producer=producer, broker_user=settings.broker_user)


@dataclass(frozen=True, slots=True)
class Wiring:
    settings: Callable[[], Settings] = read_settings
    client: Callable[[Settings, str], AbstractContextManager[Messages]] = connect

    @contextmanager
    def services(self) -> Iterator[OperatorServices]:
        """The record and its services. Connections are closed at the end."""
        from notifier.cli.operator_services import OperatorServices

        services = OperatorServices(self.settings(), pool_size=1, application="notifier cli", guarded=False)
        try:
            yield services
        finally:
            services.close()


def wiring(context: typer.Context) -> Wiring:
    found = context.find_root().obj
    return found if isinstance(found, Wiring) else Wiring()
