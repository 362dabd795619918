"""The Celery application: tasks, queues, Beat's schedule. Celery is imported here, by `task_consumer`, by
`remote_control` and by `worker_process` only.

Tasks carry ids and nothing else. A task that is lost, repeated or late does no harm: the claim decides who
delivers, and the sweep issues work again. So `countdown`, `eta` and `retry()` are not used.

`celery -A notifier.worker.app …` works too: Flower and `celery inspect` use it.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from threading import Event, Lock
from typing import Any
from uuid import UUID

from celery import Celery, signals
from celery.app.amqp import AMQP
from celery.schedules import crontab, schedule
from celery.utils.nodenames import host_format

from notifier.bootstrap import CallbackLoop, DeliveryLoop, Services, settle
from notifier.broker import amqp_transport, redis_transport, topology
from notifier.config.logs import configure, log
from notifier.config.settings import Settings, load_settings
from notifier.delivery.sweep import dispatch_callbacks
from notifier.domain.statuses import Channel, Lane
from notifier.operations.upkeep import NIGHTLY
from notifier.runtime.shutdown import Shutdown
from notifier.worker import task_consumer
from notifier.worker.process import ImpatientEvents, OrderlyBeat, OrderlyWorker
from notifier.worker.remote_control import QuestionsControl

#: Ids of one deliver task: enough to pay Celery's cost once, few enough to spread over threads.
IDS_PER_TASK = 100
#: Deadline of publishing one task, its confirmation included. Seconds.
PUBLISH_SECONDS = 5
#: Beat wakes the sweep so often. Seconds.
TICK_SECONDS = 1.0
#: RabbitMQ drops a tick that nobody took within this long: the next one does the same. Seconds.
TICK_EXPIRES_SECONDS, MINUTE_EXPIRES_SECONDS, DAILY_EXPIRES_SECONDS = 10, 60, 3600

DELIVER, RECONCILE, DISPATCH = "notifier.deliver", "notifier.reconcile", "notifier.dispatch_due"
CALL_BACK = "notifier.call_back"
PARTITIONS, STATISTICS = "notifier.ensure_partitions", "notifier.log_statistics"
RETENTION, LATE_UPKEEP = "notifier.retention", "notifier.run_late_upkeep"


def make_app(settings: Settings, process: _Process | None = None) -> Celery:
    """The Celery application for these settings; its tasks work with `process`.

    Raises:
        ConfigurationError: without a broker URL.
    """
    broker = topology.verified(settings.require("broker_url"))
    amqp = _RedisAMQP if topology.is_redis(broker) else _RabbitAMQP
    app = Celery("notifier", amqp=amqp, control=QuestionsControl, events=ImpatientEvents, set_as_current=True)
    app.conf.update(_configuration(settings, broker))
    _add_tasks(app, process or _Process(settings))
    return app


class _RedisAMQP(AMQP):  # type: ignore[misc]  # Celery ships no types
    """Where Celery takes every connection to the broker from."""

    Connection = redis_transport.Connection


class _RabbitAMQP(AMQP):  # type: ignore[misc]
    """The same for RabbitMQ."""

    Connection = amqp_transport.Connection


def _configuration(settings: Settings, broker: str) -> dict[str, Any]:
    backend = settings.result_backend.get_secret_value() if settings.result_backend else None
    return {
        "broker_url": broker,
        "broker_transport_options": topology.transport_options(broker, timeout_seconds=PUBLISH_SECONDS),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_heartbeat": 20,
        "result_backend": backend,
        "task_ignore_result": backend is None,
        "result_expires": 3600,
        # A result is for who wants it: it does not keep a task, nor the worker's end.
        "result_backend_transport_options": {"retry_policy": {"timeout": PUBLISH_SECONDS}},
        # JSON in, JSON out, nothing else is even looked at.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "timezone": "UTC",
        "enable_utc": True,
        "task_queues": topology.work_queues(),
        "worker_consumer": f"{task_consumer.__name__}:TaskConsumer",
        "task_default_queue": topology.MAINTENANCE,
        "task_create_missing_queues": False,
        "task_acks_late": True,
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": False,
        # An exclusive control queue is locked by our own half-open connection until the broker notices, and a
        # worker that cannot have it ends. Durable, because newer brokers refuse queues that are neither; when it
        # is not used any more it expires.
        "control_queue_exclusive": False,
        "control_queue_durable": True,
        # Its gradual way back after a reconnect reads the connection from two threads at once: the worker stalls.
        "worker_enable_prefetch_count_reduction": False,
        "worker_enable_remote_control": settings.worker_questions,
        "worker_send_task_events": True,
        "task_send_sent_event": False,
        "beat_schedule": _schedule(),
        "beat_scheduler": "celery.beat:Scheduler",
        "beat_max_loop_interval": 1,
    }


def _schedule() -> dict[str, Any]:
    """Every entry may run twice, late or not at all once: two Beats do no harm."""
    # Not Celery's `expires`: that is a moment of Beat's clock, which the worker compares with its own.
    # `expiration` is a span that RabbitMQ measures. Redis does not know it: see `_Process.may_sweep`.
    tick = {"queue": topology.MAINTENANCE, "expiration": TICK_EXPIRES_SECONDS}
    minutely = {"queue": topology.MAINTENANCE, "expiration": MINUTE_EXPIRES_SECONDS}
    daily = {"queue": topology.MAINTENANCE, "expiration": DAILY_EXPIRES_SECONDS}
    # One clock for all of them: Celery keeps the entries in one order of times.
    now = _steady_clock()
    every, at_night = schedule(timedelta(seconds=TICK_SECONDS), nowfun=now), crontab(hour=3, minute=7, nowfun=now)
    # After the partitions, and away from what reports at midnight.
    later_at_night = crontab(hour=3, minute=37, nowfun=now)
    after_midnight, each_minute = crontab(hour=0, minute=5, nowfun=now), schedule(timedelta(minutes=1), nowfun=now)
    return {
        "dispatch-due": {"task": DISPATCH, "schedule": every, "options": tick},
        "partitions": {"task": PARTITIONS, "schedule": at_night, "options": daily},
        "retention": {"task": RETENTION, "schedule": later_at_night, "options": daily},
        "statistics": {"task": STATISTICS, "schedule": after_midnight, "options": daily},
        "late-upkeep": {"task": LATE_UPKEEP, "schedule": each_minute, "options": minutely},
    }


def _steady_clock() -> Callable[[], datetime]:
    """A clock that shows the time of now and goes on steadily: setting the machine's clock does not move it.

    By the machine's own, a Beat whose clock is set back an hour would send nothing for an hour.
    """
    began_at, began = datetime.now(UTC), time.monotonic()
    return lambda: began_at + timedelta(seconds=time.monotonic() - began)


def _add_tasks(app: Celery, process: _Process) -> None:
    _add_callbacks(app, process)
    if not process.only_callbacks:
        _add_deliveries(app, process)
        _add_upkeep(app, process)
    signals.worker_shutdown.connect(process.stop, weak=False)


def _add_callbacks(app: Celery, process: _Process) -> None:
    @app.task(name=CALL_BACK, shared=False)  # type: ignore[untyped-decorator]
    def call_back(ids: list[str]) -> None:
        """Begin to tell producers of these. It ends before the calls do: see `callbacks.running`."""
        process.callbacks.runner.start([UUID(value) for value in ids])


def _add_deliveries(app: Celery, process: _Process) -> None:
    """What is done with notifications whose ids a task carries, and what gives those tasks out."""
    publish_deliver, publish_reconcile = task_publisher(app), task_publisher(app, RECONCILE)
    publish_callbacks = callback_publisher(app)

    @app.task(name=DELIVER, shared=False)  # type: ignore[untyped-decorator]
    def deliver(ids: list[str]) -> dict[str, int]:
        """Deliver these notifications. Returns counts, for whoever looks the result up."""
        summary = process.delivery.deliverer.deliver([UUID(value) for value in ids])
        return {"claimed": summary.claimed, "sent": summary.sent, "other": summary.other}

    @app.task(name=RECONCILE, shared=False)  # type: ignore[untyped-decorator]
    def reconcile(ids: list[str]) -> int:
        """Find out what became of these: calls that ended without an answer, or no receipt came."""
        wanted = [UUID(value) for value in ids]
        return process.delivery.reconciler.reconcile(wanted) + process.delivery.asker.ask(wanted)

    @app.task(name=DISPATCH, shared=False)  # type: ignore[untyped-decorator]
    def dispatch_due() -> int:
        """Give out what is due: scheduled, retrying, lost, or left by a dead worker."""
        if not process.may_sweep():
            return 0
        services = process.services
        due = services.dispatcher(publish_deliver, publish_reconcile).dispatch_due()
        return due + dispatch_callbacks(services.callbacks, publish_callbacks)


def _add_upkeep(app: Celery, process: _Process) -> None:
    """What is done at night."""

    @app.task(name=PARTITIONS, shared=False)  # type: ignore[untyped-decorator]
    def upkeep() -> dict[str, Any]:
        """Make the partitions of the coming months, and drop counts and files that nobody needs any more."""
        return process.services.upkeep.run(NIGHTLY)

    @app.task(name=RETENTION, shared=False)  # type: ignore[untyped-decorator]
    def retention() -> dict[str, Any]:
        """Redact, delete and drop what is old enough; what there is no time for waits for the next night."""
        return process.services.upkeep.run(["retention"])

    @app.task(name=STATISTICS, shared=False)  # type: ignore[untyped-decorator]
    def log_statistics() -> dict[str, Any]:
        """Yesterday's notifications by channel and status, in the log and as the task's result."""
        return process.services.upkeep.run(["statistics"])

    @app.task(name=LATE_UPKEEP, shared=False)  # type: ignore[untyped-decorator]
    def run_late_upkeep() -> dict[str, Any]:
        """One step that was not done at its hour: Beat was down then, or it failed."""
        return process.services.upkeep.run_late()


class _Process:
    """What a worker process holds: connections to the database, and two loops, each made by its first task."""

    def __init__(self, settings: Settings, *, only_callbacks: bool = False, stop: Event | None = None) -> None:
        self._stop = stop
        #: It has no other task, so that it never needs a provider's secret.
        self.only_callbacks = only_callbacks
        application = "notifier callbacks" if only_callbacks else "notifier worker"
        self.services = Services(settings, pool_size=settings.worker_threads + 2, application=application)
        self._delivery: DeliveryLoop | None = None
        self._callbacks: CallbackLoop | None = None
        self._making = Lock()
        self._sweep_from = time.monotonic()

    def prepare(self, *, delivers: bool, takes_callbacks: bool) -> None:
        """Make what its tasks need before the first one comes, and nothing else: what only calls producers'
        endpoints reads no provider's secret.

        Raises:
            ConfigurationError: a provider's option, or a secret of callbacks, is missing or wrong.
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

        While no worker runs, a Redis-protocol broker keeps every tick. One sweep then does the work of them all.
        """
        with self._making:
            now = time.monotonic()
            if now < self._sweep_from:
                return False
            self._sweep_from = now + TICK_SECONDS / 2
            return True

    @property
    def delivery(self) -> DeliveryLoop:
        # Several task threads may come first at once.
        with self._making:
            if self._delivery is None:
                self._delivery = DeliveryLoop(self.services, self._stop)
            return self._delivery

    @property
    def callbacks(self) -> CallbackLoop:
        with self._making:
            if self._callbacks is None:
                self._callbacks = CallbackLoop(self.services)
            return self._callbacks

    def stop(self, **_: Any) -> None:
        """After the last task: Celery's signal `worker_shutdown`."""
        with self._making:
            if self._callbacks is not None:
                self._callbacks.stop()
            if self._delivery is not None:
                self._delivery.stop()
            self.services.close()


def task_publisher(app: Celery, task: str = DELIVER) -> Callable[[Channel, Lane, Sequence[UUID]], None]:
    """What intake and sweep use to hand ids to the workers: `publish(channel, lane, ids)`."""

    def publish(channel: Channel, lane: Lane, ids: Sequence[UUID]) -> None:
        for start in range(0, len(ids), IDS_PER_TASK):
            _send(app, task, ids[start : start + IDS_PER_TASK], topology.deliver_queue_name(channel, lane))

    return publish


def callback_publisher(app: Celery) -> Callable[[Sequence[UUID]], None]:
    """What the sweep uses to hand the callbacks of one endpoint to the workers: `publish(ids)`."""

    def publish(ids: Sequence[UUID]) -> None:
        _send(app, CALL_BACK, ids, topology.CALLBACKS)

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


def run_worker(
    settings: Settings,
    lanes: Sequence[Lane],
    channels: Sequence[Channel],
    name: str,
    *,
    takes_callbacks: bool = True,
    upkeep: bool = True,
) -> None:
    """Run one worker process until SIGTERM or SIGINT; what is in flight is finished first.

    `upkeep`: it sweeps, too, and does what is done at night.
    """
    shutdown = Shutdown(settings.grace_seconds)
    stop = shutdown.listen()
    only_callbacks = takes_callbacks and not lanes and not upkeep
    process = _Process(settings, only_callbacks=only_callbacks, stop=stop)
    app = make_app(settings, process)
    # Now, not with the first notification: a wrong secret or provider option ends the program with its name.
    process.prepare(delivers=bool(lanes), takes_callbacks=takes_callbacks)
    process.services.wait_for_tables(stop)
    problem = process.services.hash_key_problem()
    if problem:
        log.error("suppressions.other_hash_key", reason=problem)
    _keep_our_logging()
    signals.worker_ready.connect(_settle, weak=False)
    queues = [topology.deliver_queue_name(*pair) for pair in topology.pairs(tuple(channels)) if pair[1] in lanes]
    queues += [topology.CALLBACKS] if takes_callbacks else []
    queues += [topology.MAINTENANCE] if upkeep else []
    log.info("worker.start", lanes=[str(lane) for lane in lanes], count=settings.worker_threads)
    worker = OrderlyWorker(
        shutdown,
        app=app,
        hostname=host_format(name),
        pool="threads",
        concurrency=settings.worker_threads,
        queues=queues,
        loglevel=settings.log_level.upper(),
        without_gossip=True,
        without_mingle=True,
        task_events=True,
        quiet=True,
    )
    if stop.is_set():
        process.stop()
        return
    worker.start()
    sys.exit(worker.exitcode)


def _settle(**_: Any) -> None:
    """Before the first task: Celery's signal `worker_ready`."""
    settle()


def _keep_our_logging() -> None:
    """A receiver of this signal is what keeps Celery from setting up logging of its own."""
    signals.setup_logging.connect(_logging_is_set_up, weak=False)


def _logging_is_set_up(**_: Any) -> None:
    """Done by `telemetry.configure`."""


def run_beat(settings: Settings) -> None:
    """Run Beat until it is stopped. Any number may run at once."""
    shutdown = Shutdown(settings.grace_seconds)
    stop = shutdown.listen()
    app = make_app(settings)
    _keep_our_logging()
    beat = OrderlyBeat(shutdown, app=app, quiet=True, loglevel=settings.log_level.upper())
    if not stop.is_set():
        log.info("beat.start")
        beat.run()


def app_from_environment() -> Celery:
    """The application for Celery's own commands."""
    settings = load_settings()
    configure(settings.log_level, settings.log_format)
    return make_app(settings)
