"""The programs of the service: `notifier intake`, `worker`, `beat` and `api`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

from typer import Option

from notifier.cli.arguments import read_choices
from notifier.cli.options import MetricsPort
from notifier.cli.output import hint
from notifier.domain.errors import MissingPackage, add_extra
from notifier.domain.statuses import Channel, Lane

if TYPE_CHECKING:
    from notifier.config.settings import Settings


def serve_metrics(program: str, settings: Settings, port: int | None = None) -> None:
    """Serve `/metrics` and `/healthz` until the process ends, on this port or otherwise the settings' port, if
    there is one.

    Raises:
        ConfigurationError: the port is taken.
    """
    port = port or settings.metrics_port
    if port is None:
        return
    from notifier.telemetry.server import MetricsServer

    MetricsServer(settings.metrics_host, port, program)


def trace_notifications(program: str) -> None:
    """Record spans until the process ends, if the variables OTEL_* ask for them."""
    from notifier.config.logs import log
    from notifier.telemetry.tracing import start_tracing

    problem = start_tracing(program)
    if problem is not None:
        log.warning("traces.off", reason=problem)


def program_settings(program: str, *, needs_database: bool = False, use_running: bool = True) -> Settings:
    from notifier.config.logs import configure
    from notifier.config.settings import load_settings
    from notifier.config.unknown_variables import warn_of_unknown_variables
    from notifier.runtime.connection_limit import raise_file_limit

    settings = load_settings(use_running=use_running)
    configure(settings.log_level, settings.log_format, program=program)
    warn_of_unknown_variables(settings)
    raise_file_limit()
    if needs_database:
        settings.require("database_url")
    return settings


def intake(metrics_port: MetricsPort = None) -> None:
    """Move producers' messages from the broker into the database. Any number of these programs can run.

    Stops on SIGTERM or Ctrl-C, once the current batch is recorded.
    """
    settings = program_settings("intake")
    serve_metrics("intake", settings, metrics_port)
    trace_notifications("intake")
    from notifier.bootstrap import Services
    from notifier.config.database_pools import INTAKE_POOL
    from notifier.intake import make_reader
    from notifier.intake.producers import warn_of_producers
    from notifier.operations.rate_history import RateRecorder
    from notifier.runtime.garbage_collection import tune_gc
    from notifier.runtime.shutdown import stop_on_signals
    from notifier.worker.app import make_app
    from notifier.worker.tasks import task_publisher

    warn_of_producers(settings.structure, settings.require("broker_url"))
    stop = stop_on_signals(settings.grace_seconds)
    services = Services(settings, pool_size=INTAKE_POOL, application="notifier intake")
    process = services.intake(task_publisher(make_app(settings))).process
    services.wait_for_tables(stop)
    reader = make_reader(settings.require("broker_url"))
    tune_gc()
    rates = RateRecorder(services.minute_counts).start()
    reader.run(process, stop)
    rates.close()
    services.close()


def worker(
    lanes: Annotated[str, Option(help="Lanes to deliver, separated by commas.")] = "urgent,normal,bulk",
    channels: Annotated[str, Option(help="Channels to deliver, separated by commas.")] = "email,sms",
    callbacks: Annotated[
        bool | None,
        Option(
            "--callbacks/--no-callbacks",
            help="Also call producers' endpoints; default: yes, unless it delivers only urgent.",
        ),
    ] = None,
    name: Annotated[str, Option(help="Name of this worker; %h is the host.")] = "",
    metrics_port: MetricsPort = None,
) -> None:
    """Deliver notifications. Use one process for each group of lanes, so that bulk does not delay urgent ones.

    Stops on SIGTERM, once the deliveries in progress are finished and recorded.
    """
    chosen_lanes = read_choices(Lane, lanes, "--lanes")
    chosen_channels = read_choices(Channel, channels, "--channels")
    settings = program_settings("worker", needs_database=True)
    serve_metrics("worker", settings, metrics_port)
    trace_notifications("worker")
    from notifier.worker.run import run_worker

    takes_callbacks = chosen_lanes != [Lane.URGENT] if callbacks is None else callbacks
    # Two workers with one name cannot run on one broker.
    name = name or f"{'-'.join(chosen_lanes) or 'callbacks'}-{os.getpid()}@%h"
    run_worker(settings, chosen_lanes, chosen_channels, name, takes_callbacks=takes_callbacks)


def beat(metrics_port: MetricsPort = None) -> None:
    """Start the sweep every second, and the daily jobs. Two at once do no harm."""
    settings = program_settings("beat")
    serve_metrics("beat", settings, metrics_port)
    from notifier.worker.run import run_beat

    run_beat(settings)


def flower(
    host: Annotated[str, Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, Option(min=1, max=65535, help="Port to listen on.")] = 5555,
) -> None:
    """Show workers and tasks in the browser, with a read-only Celery Flower.

    FLOWER_BASIC_AUTH is the login, as user:password; without it a password is made for this run.
    """
    settings = program_settings("flower")
    from notifier.worker.flower import run_flower

    run_flower(settings, host, port, announce=hint)


def api() -> None:
    """Answer HTTP requests: send, search, retry. Any number of these programs can run, behind a proxy with TLS.

    Stops on SIGTERM or Ctrl-C, once the requests in progress are answered.
    """
    from notifier.dev.local import has_web

    if not has_web():
        raise MissingPackage(f"the HTTP API needs more packages: {add_extra('web')}")
    settings = program_settings("api", needs_database=True)
    trace_notifications("api")
    from notifier.api.server import serve
    from notifier.console.app import add_console
    from notifier.worker.app import make_app
    from notifier.worker.tasks import task_publisher

    serve(settings, task_publisher(make_app(settings)), add_console)
