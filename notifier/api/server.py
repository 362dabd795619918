"""Runs the application on a socket, for `notifier api`."""

from __future__ import annotations

import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from socket import AF_INET, AF_INET6, create_server, socket
from types import FrameType
from typing import Any

import uvicorn
from anyio import to_thread
from fastapi import FastAPI

from notifier.api import joint_acceptance
from notifier.api.app import make_app
from notifier.api.connection import ClientConnection
from notifier.api.dependencies import ApiServices, make_services
from notifier.api.readiness import DRAIN_SECONDS, Drain
from notifier.api.routers import add_routes
from notifier.api.routes import swagger_ui
from notifier.api.status_watch import StatusWatch
from notifier.api.task_queue import CLOSE_SECONDS, Handover
from notifier.api.timeouts import ClientTimeouts
from notifier.bootstrap import Services
from notifier.config.database_pools import api_request_threads
from notifier.config.logs import log
from notifier.config.settings import Settings
from notifier.domain.errors import ConfigurationError
from notifier.intake.batch import PublishTasks
from notifier.operations.rate_history import RateRecorder
from notifier.runtime.connection_limit import ConnectionLimit, connections_within, raise_file_limit
from notifier.runtime.garbage_collection import tune_gc
from notifier.runtime.shutdown import Shutdown

#: Adds pages to the application. They come from a layer above this one.
AddPages = Callable[[FastAPI, Services, ApiServices], None]
#: The part of the grace that is not for requests in progress: telling proxies before them, and writing and
#: publishing what waits and closing connections after them.
_OTHER_SECONDS = DRAIN_SECONDS + joint_acceptance.CLOSE_SECONDS + CLOSE_SECONDS + 3


def serve(settings: Settings, publish: PublishTasks, add_pages: AddPages) -> None:
    """Serve until SIGTERM or SIGINT. `add_pages` adds the console to the application.

    Raises:
        ConfigurationError: the address is not free.
    """
    shutdown = Shutdown(settings.grace_seconds)
    # uvicorn also stops on signals, and then raises them again: that would end the process before tasks are
    # published.
    shutdown.listen()
    listener = _listen(settings.api_host, settings.api_port)
    # One connection more, for `JointAcceptance`.
    services = Services(settings, pool_size=api_request_threads(settings) + 1, application="notifier api")
    services.check_pooler()
    handover = Handover(publish, services.ledger)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Each thread works on one request, with one connection to the database.
        to_thread.current_default_thread_limiter().total_tokens = settings.api_threads
        tune_gc()
        yield

    parts = make_services(services, handover)
    app = make_app(parts, lifespan)
    if settings.api_docs is not None:
        add_routes(app, swagger_ui.make_router(settings.api_docs))
    add_pages(app, services, parts)
    log.info("api.start", host=settings.api_host, port=settings.api_port, count=settings.api_threads)
    limit: ConnectionLimit[ClientConnection] = ConnectionLimit(
        connections_within(settings.api_connections, raise_file_limit()), settings.api_peer_connections
    )
    grace_seconds = max(1, int(settings.grace_seconds - _OTHER_SECONDS))
    config = server_config(app, limit, ClientTimeouts(), grace_seconds=grace_seconds)
    rates = RateRecorder(services.minute_counts).start()
    _Server(config, shutdown, parts.status_watch, parts.drain).run(sockets=[listener])
    parts.acceptance.close()
    rates.close()
    handover.close()
    services.close()


def server_config(
    app: FastAPI, limit: ConnectionLimit[ClientConnection], timeouts: ClientTimeouts, *, grace_seconds: int
) -> uvicorn.Config:
    """uvicorn's configuration. Requests in progress have `grace_seconds` to end."""
    protocol: Any = partial(ClientConnection, limit=limit, timeouts=timeouts)
    return uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        # Our logging is already set up, and an access log would hold recipients: searches have them in their
        # query.
        log_config=None,
        # uvicorn's warnings are about what strangers send; they could fill a disk with them.
        log_level="error",
        access_log=False,
        server_header=False,
        # Nothing here uses the client's address, so no such header has to be trusted.
        proxy_headers=False,
        timeout_graceful_shutdown=grace_seconds,
    )


class _Server(uvicorn.Server):
    """uvicorn's server, which also stops on our `Shutdown`, after proxies know."""

    def __init__(
        self, config: uvicorn.Config, shutdown: Shutdown, status_watch: StatusWatch, drain: Drain
    ) -> None:
        super().__init__(config)
        self._drain = drain
        self._shutdown_watch = shutdown
        self._status_watch = status_watch

    async def on_tick(self, counter: int) -> bool:
        """Whether to end. A signal may have come before uvicorn listened."""
        is_over = await super().on_tick(counter)
        if self._shutdown_watch.stop.is_set() and not self._drain.has_begun:
            self._drain.begin()
            # A proxy must not send its next request on a connection that we are about to close.
            self.config.encoded_headers.append((b"connection", b"close"))
        return is_over or self._drain.is_over

    async def shutdown(self, sockets: list[socket] | None = None) -> None:
        # Requests that wait for a notification would delay the end.
        self._status_watch.end()
        await super().shutdown(sockets)

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Handle SIGTERM or SIGINT. uvloop uses the wake-up pipe, so `Shutdown` is called from here. SIGHUP has a
        handler of its own."""
        self._shutdown_watch.begin(sig)
        # SIGTERM ends the server through `on_tick`; on Ctrl-C a person waits. A second Ctrl-C would make uvicorn
        # drop the requests in progress.
        if sig == signal.SIGINT and not self.should_exit:
            super().handle_exit(sig, frame)


def _listen(host: str, port: int) -> socket:
    # uvicorn would end the program without naming the setting at fault.
    try:
        return create_server((host, port), family=AF_INET6 if ":" in host else AF_INET, backlog=2048)
    except OSError as error:
        raise ConfigurationError(
            f"nothing can listen on {host}:{port} ({error.strerror}): is another one running there? "
            "set NOTIFIER_API_HOST and NOTIFIER_API_PORT",
            setting="NOTIFIER_API_PORT",
        ) from None
