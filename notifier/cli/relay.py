"""`notifier relay`: publishes what a producer wrote into its outbox."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Option

from notifier.cli.context import wiring
from notifier.cli.options import AsJson, MetricsPort
from notifier.cli.output import hint, print_json, print_line
from notifier.cli.services import serve_metrics

if TYPE_CHECKING:
    from notifier.client.relay import Outbox, OutboxRow, Pair, Passed


def relay(
    context: typer.Context,
    database_url: Annotated[
        str,
        Option(
            envvar="NOTIFIER_OUTBOX_URL",
            metavar="URL",
            show_default=False,
            show_envvar=True,
            help="The producer's own database, as an SQLAlchemy URL.",
        ),
    ],
    table: Annotated[
        str, Option(help="The table of the outbox, with its schema if it has one.")
    ] = "notifier_outbox",
    once: Annotated[bool, Option("--once", help="Publish what is there now, then exit.")] = False,
    batch: Annotated[int, Option(min=1, max=1000, help="Rows per transaction.")] = 500,
    idle_seconds: Annotated[float, Option(min=0.01, help="Pause while the outbox is empty.")] = 0.5,
    timeout_seconds: Annotated[float, Option(min=0.1, help="Deadline for one publish.")] = 5.0,
    metrics_port: MetricsPort = None,
    as_json: AsJson = False,
) -> None:
    """Publish the messages that a producer wrote into its outbox. Any number of these programs can run.

    Waits without limit for a broker or a database that is down. Stops on SIGTERM or Ctrl-C, once the current
    batch is done.
    """
    settings = wiring(context).settings()
    broker_url = settings.require("broker_url")
    serve_metrics("relay", settings, metrics_port)
    from notifier.broker.publisher import Wire
    from notifier.client.outbox import SqlOutbox, make_engine
    from notifier.client.relay import Relay
    from notifier.config.unknown_variables import warn_of_unknown_variables
    from notifier.runtime.shutdown import stop_on_signals

    stop = stop_on_signals(settings.grace_seconds)
    warn_of_unknown_variables(settings)
    engine = make_engine(database_url)
    outbox = CountedOutbox(SqlOutbox(engine, table))
    with Wire(broker_url, timeout_seconds=timeout_seconds, broker_user=settings.broker_user) as wire:
        worker = Relay(outbox, wire, batch_rows=batch, idle_seconds=idle_seconds)
        if once:
            count = worker.drain()
            print_json({"published": count}) if as_json else print_line(f"{count} published")
        else:
            hint(f"publishing what comes into {table}; Ctrl-C stops")
            worker.run(stop)
    engine.dispose()


@dataclass(frozen=True, slots=True)
class CountedOutbox:
    """Counts rows that left the outbox, after that is committed."""

    outbox: Outbox

    def pass_on(
        self, limit: int, pairs: Sequence[Pair], publish: Callable[[Sequence[OutboxRow]], Passed]
    ) -> Passed:
        from notifier.telemetry.metrics import RELAYED

        passed = self.outbox.pass_on(limit, pairs, publish)
        RELAYED.inc(len(passed.published))
        return passed
