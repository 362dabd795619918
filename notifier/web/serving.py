"""`notifier api`: the application on a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from socket import AF_INET, AF_INET6, create_server, socket
from types import FrameType

import uvicorn
from anyio import to_thread
from fastapi import FastAPI

from notifier.bootstrap import Services, settle
from notifier.config import Settings
from notifier.errors import ConfigurationError
from notifier.intake.accepting import PublishTasks
from notifier.shutdown import Shutdown
from notifier.telemetry import log
from notifier.web.app import make_app
from notifier.web.desk import make_desk
from notifier.web.handover import CLOSE_SECONDS, Handover

#: Of the grace, so much is left for what comes after the requests: tasks to be published, connections to be
#: closed.
_AFTER_SECONDS = CLOSE_SECONDS + 3


def serve(settings: Settings, publish: PublishTasks) -> None:
    """Answer requests until SIGTERM or SIGINT; what is under way is answered first.

    Raises:
        ConfigurationError: the address cannot be listened on.
    """
    shutdown = Shutdown(settings.grace_seconds)
    # uvicorn stops on these, too, and then hands them on: without ours that would be the end, tasks unpublished.
    shutdown.listen()
    listener = _listen(settings.api_host, settings.api_port)
    services = Services(settings, pool_size=settings.api_threads, application="notifier api")
    handover = Handover(publish, services.ledger)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Each works on one request, with one connection to the database.
        to_thread.current_default_thread_limiter().total_tokens = settings.api_threads
        settle()
        yield

    app = make_app(make_desk(services, handover), lifespan)
    log.info("api.start", host=settings.api_host, port=settings.api_port, count=settings.api_threads)
    config = uvicorn.Config(
        app,
        # Ours is set up already, and an access log would hold addresses: searches have them in their query.
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=max(1, int(settings.grace_seconds - _AFTER_SECONDS)),
    )
    _Server(config, shutdown).run(sockets=[listener])
    handover.close()
    services.close()


class _Server(uvicorn.Server):
    """uvicorn's, which says that it was told to end."""

    def __init__(self, config: uvicorn.Config, shutdown: Shutdown) -> None:
        super().__init__(config)
        self._shutdown_watch = shutdown

    async def on_tick(self, counter: int) -> bool:
        """Whether it is over: a signal may have come before uvicorn listened."""
        return self._shutdown_watch.stop.is_set() or await super().on_tick(counter)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """SIGTERM or SIGINT. uvloop has taken the wake-up pipe, so here it is told."""
        self._shutdown_watch.begin(sig)
        # A second one of Ctrl-C would make uvicorn drop the requests that are under way.
        if not self.should_exit:
            super().handle_exit(sig, frame)


def _listen(host: str, port: int) -> socket:
    # uvicorn would end the program by itself, without saying which setting is at fault.
    try:
        return create_server((host, port), family=AF_INET6 if ":" in host else AF_INET, backlog=2048)
    except OSError as error:
        raise ConfigurationError(
            f"nothing can listen on {host}:{port} ({error.strerror}): is another one running there? "
            "set NOTIFIER_API_HOST and NOTIFIER_API_PORT",
            setting="NOTIFIER_API_PORT",
        ) from None
