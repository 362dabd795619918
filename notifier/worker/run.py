"""Runs a worker or Beat as a program until a signal ends it."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Sequence
from threading import Event
from typing import Any

from celery import signals
from celery.exceptions import SecurityWarning
from celery.utils.nodenames import host_format

from notifier.broker import topology
from notifier.config.logs import log
from notifier.config.settings import Settings
from notifier.domain.statuses import Channel, Lane
from notifier.operations.rate_history import RateRecorder
from notifier.runtime.garbage_collection import tune_gc
from notifier.runtime.shutdown import Shutdown
from notifier.worker.app import make_app
from notifier.worker.process import OrderlyBeat, OrderlyWorker
from notifier.worker.tasks import Process


def run_worker(
    settings: Settings,
    lanes: Sequence[Lane],
    channels: Sequence[Channel],
    name: str,
    *,
    takes_callbacks: bool = True,
    upkeep: bool = True,
) -> None:
    """Run one worker process until SIGTERM or SIGINT. Work in flight is finished first.

    `upkeep`: it also sweeps, and does the nightly work.
    """
    shutdown = Shutdown(settings.grace_seconds)
    stop = shutdown.listen()
    only_callbacks = takes_callbacks and not lanes and not upkeep
    process = Process(settings, only_callbacks=only_callbacks, stop=stop)
    app = make_app(settings, process)
    # Now, not at the first notification, so that a wrong secret or provider option ends the program and is named.
    process.prepare(delivers=bool(lanes), takes_callbacks=takes_callbacks)
    _wait_for_tables(process, stop)
    _keep_our_logging()
    # Celery warns of running as root, because pickled messages could do anything. Ours are JSON; others are
    # refused.
    warnings.simplefilter("ignore", SecurityWarning)
    signals.worker_ready.connect(_tune, weak=False)
    log.info("worker.start", lanes=[str(lane) for lane in lanes], count=settings.worker_threads)
    worker = OrderlyWorker(
        shutdown,
        app=app,
        hostname=host_format(name),
        pool="threads",
        concurrency=settings.worker_threads,
        queues=_queues(lanes, channels, takes_callbacks=takes_callbacks, upkeep=upkeep),
        loglevel=settings.log_level.upper(),
        without_gossip=True,
        without_mingle=True,
        task_events=True,
        quiet=True,
    )
    if stop.is_set():
        process.stop()
        return
    rates = RateRecorder(process.services.minute_counts).start()
    worker.start()
    rates.close()
    sys.exit(worker.exitcode)


def _wait_for_tables(process: Process, stop: Event) -> None:
    process.services.wait_for_tables(stop)
    problem = process.services.hash_key_problem()
    if problem:
        log.error("suppressions.other_hash_key", reason=problem)


def _queues(
    lanes: Sequence[Lane], channels: Sequence[Channel], *, takes_callbacks: bool, upkeep: bool
) -> list[str]:
    queues = [topology.deliver_queue_name(*pair) for pair in topology.pairs(tuple(channels)) if pair[1] in lanes]
    queues += [topology.CALLBACKS] if takes_callbacks else []
    queues += [topology.MAINTENANCE] if upkeep else []
    return queues


def _tune(**_: Any) -> None:
    """Runs before the first task, on Celery's signal `worker_ready`."""
    tune_gc()


def _keep_our_logging() -> None:
    """Give the signal a receiver, because otherwise Celery sets up logging of its own."""
    signals.setup_logging.connect(_logging_is_set_up, weak=False)


def _logging_is_set_up(**_: Any) -> None:
    """Nothing to do: `config.logs.configure` has set it up."""


def run_beat(settings: Settings) -> None:
    """Run Beat until SIGTERM or SIGINT. Several at the same time do no harm."""
    shutdown = Shutdown(settings.grace_seconds)
    stop = shutdown.listen()
    app = make_app(settings)
    _keep_our_logging()
    beat = OrderlyBeat(shutdown, app=app, quiet=True, loglevel=settings.log_level.upper())
    if not stop.is_set():
        log.info("beat.start")
        beat.run()
