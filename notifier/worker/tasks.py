"""The Celery tasks, what a worker process holds to do them, and the functions that publish them.

Tasks carry only ids. A task that is lost, repeated or late does no harm: the claim decides who delivers, and the
sweep issues work again. So `countdown`, `eta` and `retry()` are not used.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from threading import Event, Lock
from typing import Any
from uuid import UUID

from celery import Celery, Task, signals

from notifier.bootstrap import Services
from notifier.broker import topology
from notifier.config.database_pools import worker_pool
from notifier.config.logs import log
from notifier.config.settings import Settings
from notifier.delivery.sweep import dispatch_callbacks
from notifier.domain.errors import RowsHeld, StatementCancelled
from notifier.domain.statuses import Channel, Lane
from notifier.operations.upkeep import AFTER_MIDNIGHT, NIGHTLY, Upkeep
from notifier.runtime.thread_share import ThreadShare
from notifier.worker.names import (
    CALL_BACK,
    DELIVER,
    DISPATCH,
    HEARTBEATS,
    IDS_PER_TASK,
    LATE_UPKEEP,
    PARTITIONS,
    PUBLISH_SECONDS,
    RECONCILE,
    RECURRING,
    RETENTION,
    RUN_JOB,
    STATISTICS,
    TICK_SECONDS,
)
from notifier.worker.runtime import CallbackLoop, DeliveryLoop
from notifier.worker.single_flight import SingleFlight


def add_tasks(app: Celery, process: Process) -> None:
    _add_callbacks(app, process)
    if not process.only_callbacks:
        _add_deliveries(app, process)
        _add_upkeep(app, process)
        _add_recurring(app, process)
        _add_heartbeats(app, process)
    signals.worker_shutdown.connect(process.stop, weak=False)


def _add_callbacks(app: Celery, process: Process) -> None:
    @app.task(name=CALL_BACK, shared=False)  # type: ignore[untyped-decorator]
    def call_back(ids: list[str]) -> None:
        """Start the calls of these callbacks. The task ends before they do."""
        process.callbacks.runner.start([UUID(value) for value in ids])


def _add_deliveries(app: Celery, process: Process) -> None:
    publish_deliver, publish_reconcile = task_publisher(app), task_publisher(app, RECONCILE)
    publish_callbacks, publish_jobs = callback_publisher(app), job_publisher(app)

    @app.task(name=DELIVER, bind=True, shared=False)  # type: ignore[untyped-decorator]
    def deliver(task: Task, ids: list[str]) -> dict[str, int]:
        """Returns counts, for anybody who reads the result. The task may end before slow calls do."""
        delivery_info = task.request.delivery_info or {}
        is_redelivered = bool(delivery_info.get("redelivered"))
        wanted = [UUID(value) for value in ids]
        summary = process.delivery.deliverer.deliver(wanted, is_redelivered=is_redelivered)
        return {"claimed": summary.claimed, "sent": summary.sent, "other": summary.other}

    @app.task(name=RECONCILE, shared=False)  # type: ignore[untyped-decorator]
    def reconcile(ids: list[str]) -> int:
        """Find out what happened to these: their call ended without an answer, or no provider report came."""
        wanted = [UUID(value) for value in ids]
        return process.delivery.reconciler.reconcile(wanted) + process.delivery.poller.ask(wanted)

    # No events: it runs every second, and would drown everything else in Flower.
    @app.task(name=DISPATCH, shared=False, send_events=False)  # type: ignore[untyped-decorator]
    def dispatch_due() -> int:
        """Dispatch what is due: scheduled, retrying, lost, or left by a dead worker; callbacks; jobs."""
        if not process.may_sweep():
            return 0
        services = process.services
        parts: dict[str, Callable[[], int]] = {
            # First: what wakes is due in this sweep.
            "circuits": lambda: services.circuits.wake(services.providers_of_channels),
            "notifications": services.dispatcher(publish_deliver, publish_reconcile).dispatch_due,
            "callbacks": lambda: dispatch_callbacks(services.callbacks, publish_callbacks),
            "jobs": lambda: services.jobs.dispatch(publish_jobs),
        }
        return sum(process.sweep(name, part) for name, part in parts.items())

    @app.task(name=RUN_JOB, shared=False)  # type: ignore[untyped-decorator]
    def run_job(ids: list[str]) -> None:
        """Work on these jobs of operators, unless other workers do. If this process is busy with enough jobs, they
        are dispatched again."""
        for value in ids:
            with process.jobs.turn() as is_ours:
                if is_ours:
                    process.services.jobs.run(UUID(value), process.stopping)


def _add_upkeep(app: Celery, process: Process) -> None:
    def add(name: str, run: Callable[[Upkeep], dict[str, Any]], *, is_tick: bool = False) -> None:
        @app.task(name=name, shared=False, send_events=not is_tick)  # type: ignore[untyped-decorator]
        def upkeep() -> dict[str, Any]:
            return run(process.services.upkeep)

    add(PARTITIONS, lambda upkeep: upkeep.run(NIGHTLY))
    add(RETENTION, lambda upkeep: upkeep.run(["retention"]))
    add(STATISTICS, lambda upkeep: upkeep.run(AFTER_MIDNIGHT))

    def each_minute(upkeep: Upkeep) -> dict[str, Any]:
        process.services.rate_history.note_waiting()
        # Runs one step that was not done on time, because Beat was down or the step failed.
        return upkeep.run_late()

    add(LATE_UPKEEP, each_minute, is_tick=True)


def _add_recurring(app: Celery, process: Process) -> None:
    @app.task(name=RECURRING, shared=False, send_events=False)  # type: ignore[untyped-decorator]
    def send_recurring() -> dict[str, int]:
        """Accept the messages of recurring notifications that are due, for at most one tick."""
        return process.services.recurring_runs.tick(process.stopping)


def _add_heartbeats(app: Celery, process: Process) -> None:
    @app.task(name=HEARTBEATS, shared=False, send_events=False)  # type: ignore[untyped-decorator]
    def send_heartbeats() -> int:
        return process.services.heartbeats.send()


class Process:
    """What a worker process holds: the services, and two loops. Each loop is made by the first task that needs
    it."""

    def __init__(self, settings: Settings, *, only_callbacks: bool = False, stop: Event | None = None) -> None:
        #: Set when the process must end.
        self.stopping = stop
        self._sweeps = SingleFlight()
        #: Limits the threads for jobs, each of which takes a thread for a minute.
        self.jobs = ThreadShare(settings.worker_threads // 4)
        #: The process has no other task, so it never needs a provider's secret.
        self.only_callbacks = only_callbacks
        application = "notifier callbacks" if only_callbacks else "notifier worker"
        self.services = Services(settings, pool_size=worker_pool(settings), application=application)
        self._delivery: DeliveryLoop | None = None
        self._callbacks: CallbackLoop | None = None
        self._making = Lock()
        self._sweep_from = time.monotonic()

    def prepare(self, *, delivers: bool, takes_callbacks: bool) -> None:
        """Make what its tasks need before the first one comes, and nothing else: a process that only makes
        callbacks reads no provider's secret.

        Raises:
            ConfigurationError: a provider's option or a callback secret is missing or wrong.
        """
        self.services.settings.require("database_url")
        if delivers:
            assert self.delivery
        if takes_callbacks:
            for producer, table in self.services.settings.structure.callbacks.items():
                table.keys(producer)
            assert self.callbacks

    def may_sweep(self) -> bool:
        """Whether this process has not swept within half a tick.

        While no worker runs, a Redis-protocol broker keeps every tick. A single sweep then does the work of them
        all.
        """
        with self._making:
            now = time.monotonic()
            if now < self._sweep_from:
                return False
            self._sweep_from = now + TICK_SECONDS / 2
            return True

    def sweep(self, name: str, part: Callable[[], int]) -> int:
        """Do this part of a sweep, unless it is still running. Returns how much was dispatched."""
        with self._sweeps.turn(name) as is_ours:
            try:
                return part() if is_ours else 0
            except (StatementCancelled, RowsHeld) as error:
                # Usually another session locks its table. The other parts use other tables.
                log.warning("dispatch.part_failed", kind=name, error=str(error))
                return 0

    @property
    def delivery(self) -> DeliveryLoop:
        # Several task threads may come here first, at the same time.
        with self._making:
            if self._delivery is None:
                self._delivery = DeliveryLoop(self.services, self.stopping, hands_over=True)
            return self._delivery

    @property
    def callbacks(self) -> CallbackLoop:
        with self._making:
            if self._callbacks is None:
                self._callbacks = CallbackLoop(self.services)
            return self._callbacks

    def stop(self, **_: Any) -> None:
        """Runs after the last task, on Celery's signal `worker_shutdown`."""
        with self._making:
            try:
                if self._callbacks is not None:
                    self._callbacks.stop()
            finally:
                if self._delivery is not None:
                    self._delivery.stop()
                self.services.close()


def task_publisher(app: Celery, task: str = DELIVER) -> Callable[[Channel, Lane, Sequence[UUID]], None]:
    """A function that publishes ids to the workers, for intake and sweep: `publish(channel, lane, ids)`."""

    def publish(channel: Channel, lane: Lane, ids: Sequence[UUID]) -> None:
        for start in range(0, len(ids), IDS_PER_TASK):
            _send(app, task, ids[start : start + IDS_PER_TASK], topology.deliver_queue_name(channel, lane))

    return publish


def callback_publisher(app: Celery) -> Callable[[Sequence[UUID]], None]:
    """A function that publishes the callbacks of one endpoint to the workers, for the sweep: `publish(ids)`."""

    def publish(ids: Sequence[UUID]) -> None:
        _send(app, CALL_BACK, ids, topology.CALLBACKS)

    return publish


def job_publisher(app: Celery) -> Callable[[Sequence[UUID]], None]:
    """A function that publishes jobs to the workers, for the sweep: `publish(ids)`."""

    def publish(ids: Sequence[UUID]) -> None:
        _send(app, RUN_JOB, ids, topology.MAINTENANCE)

    return publish


def _send(app: Celery, task: str, ids: Sequence[UUID], queue: str) -> None:
    app.send_task(
        task,
        args=[[str(value) for value in ids]],
        queue=queue,
        argsrepr=f"({len(ids)} ids)",
        ignore_result=app.conf.task_ignore_result,
        retry=True,
        retry_policy={"max_retries": 1, "interval_start": 0},
        timeout=PUBLISH_SECONDS,
        confirm_timeout=PUBLISH_SECONDS,
    )
