"""Celery's programs, made to end in order on Ctrl-C, SIGTERM and SIGHUP, whatever the broker does."""

from __future__ import annotations

from typing import Any

from celery.app.events import Events
from celery.apps.beat import Beat
from celery.apps.worker import Worker
from celery.events.dispatcher import EventDispatcher
from celery.utils.threads import bound_open_broker_sockets
from celery.worker import state

from notifier.runtime.shutdown import Shutdown, handle_signals

#: At the end, deadline of the broker's answers: acknowledgements that are lost do no harm. Seconds.
_GOODBYE_SECONDS = 1.0


class ImpatientDispatcher(EventDispatcher):  # type: ignore[misc]  # Celery ships no types
    """An event that cannot be published now is dropped.

    Celery's heartbeat publishes from the main thread, and without a broker retries there without end: nothing else
    runs in that thread then, not even the shutdown. Here the error is raised, and the worker connects again, which
    does check whether it is to stop.
    """

    def send(self, *arguments: Any, **options: Any) -> Any:
        return super().send(*arguments, **options | {"retry": False})


class ImpatientEvents(Events):  # type: ignore[misc]
    dispatcher_cls = f"{__name__}:ImpatientDispatcher"


class OrderlyWorker(Worker):  # type: ignore[misc]
    """Celery's worker, which ends in order however many signals come. By itself it takes Ctrl-C for a failure, and
    on a second one drops its tasks, whose results would be lost; on SIGHUP it starts itself again."""

    def __init__(self, shutdown: Shutdown, **options: Any) -> None:
        self._ending = shutdown
        super().__init__(**options)

    def install_platform_tweaks(self, worker: Any) -> None:
        super().install_platform_tweaks(worker)
        handle_signals(self._on_signal)
        if self._ending.has_begun:
            # The signal came before this handler, so Celery does not know.
            state.should_stop = 0

    def _on_signal(self, number: int, _frame: Any) -> None:
        self._ending.begin(number)
        state.should_stop = 0  # Celery's main loop looks at it, and its reconnecting does

    def _shutdown(self, warm: bool = True) -> None:
        consumer = getattr(self, "consumer", None)
        dispatcher = getattr(consumer, "event_dispatcher", None)
        for connection in (getattr(consumer, "connection", None), getattr(dispatcher, "connection", None)):
            if connection is not None:
                bound_open_broker_sockets(connection, _GOODBYE_SECONDS)
        super()._shutdown(warm)


class OrderlyBeat(Beat):  # type: ignore[misc]
    """Celery's Beat, which may be told to end before it has begun."""

    def __init__(self, shutdown: Shutdown, **options: Any) -> None:
        self._ending = shutdown
        self._service: Any = None
        super().__init__(**options)
        self.install_sync_handler(None)

    def install_sync_handler(self, service: Any) -> None:
        """It keeps no schedule that would have to be saved."""
        self._service = service
        handle_signals(self._on_signal)

    def _on_signal(self, number: int, _frame: Any) -> None:
        self._ending.begin(number)
        if self._service is not None:
            # Tell its loop, too: a library that the exception interrupts may swallow it.
            self._service.stop()
        raise SystemExit(0)
