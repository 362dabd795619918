"""Celery's worker and Beat, made to end in order on Ctrl-C, SIGTERM and SIGHUP, whatever the broker does."""

from __future__ import annotations

from typing import Any

from celery.app.events import Events
from celery.apps.beat import Beat
from celery.apps.worker import Worker
from celery.events.dispatcher import EventDispatcher
from celery.utils.threads import bound_open_broker_sockets
from celery.worker import state

from notifier.runtime.shutdown import Shutdown, handle_signals

#: Deadline of the broker's answers during shutdown; lost acknowledgements do no harm. Seconds.
_GOODBYE_SECONDS = 1.0


class ImpatientDispatcher(EventDispatcher):  # type: ignore[misc]  # Celery ships no types
    """Drops an event that cannot be published now.

    Celery's heartbeat publishes from the main thread, and without a broker it retries there for ever. Then nothing
    else runs in that thread, not even the shutdown. Here the error is raised, so the worker connects again, and
    that code does check whether the worker should stop.
    """

    def send(self, *arguments: Any, **options: Any) -> Any:
        return super().send(*arguments, **options | {"retry": False})


class ImpatientEvents(Events):  # type: ignore[misc]
    dispatcher_cls = f"{__name__}:ImpatientDispatcher"


class OrderlyWorker(Worker):  # type: ignore[misc]
    """Celery's worker, which ends in order however many signals come. By itself it takes Ctrl-C for a failure. On
    a second Ctrl-C it drops its tasks, and their results would be lost. On SIGHUP it would restart itself."""

    def __init__(self, shutdown: Shutdown, **options: Any) -> None:
        self._ending = shutdown
        super().__init__(**options)

    def install_platform_tweaks(self, worker: Any) -> None:
        super().install_platform_tweaks(worker)
        handle_signals(self._on_signal)
        if self._ending.has_begun:
            # The signal came before this handler was set, so Celery does not know about it.
            state.should_stop = 0

    def _on_signal(self, number: int, _frame: Any) -> None:
        self._ending.begin(number)
        state.should_stop = 0  # Celery's main loop and its reconnecting look at this

    def _shutdown(self, warm: bool = True) -> None:
        consumer = getattr(self, "consumer", None)
        dispatcher = getattr(consumer, "event_dispatcher", None)
        for connection in (getattr(consumer, "connection", None), getattr(dispatcher, "connection", None)):
            if connection is not None:
                bound_open_broker_sockets(connection, _GOODBYE_SECONDS)
        super()._shutdown(warm)


class OrderlyBeat(Beat):  # type: ignore[misc]
    """Celery's Beat, which may be told to end before it has started."""

    def __init__(self, shutdown: Shutdown, **options: Any) -> None:
        self._ending = shutdown
        self._service: Any = None
        super().__init__(**options)
        self.install_sync_handler(None)

    def install_sync_handler(self, service: Any) -> None:
        """Set our signal handlers. Nothing needs saving, because no schedule is kept on disk."""
        self._service = service
        handle_signals(self._on_signal)

    def _on_signal(self, number: int, _frame: Any) -> None:
        self._ending.begin(number)
        if self._service is not None:
            # Tell its loop as well: a library that the exception interrupts may swallow it.
            self._service.stop()
        raise SystemExit(0)
