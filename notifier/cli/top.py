"""`notifier top`: shows live what waits and which providers are called."""

from __future__ import annotations

import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from notifier.cli.context import wiring
from notifier.cli.options import AsJson
from notifier.cli.output import console, hint, is_terminal, one_line, print_json, print_line, print_table, utc
from notifier.domain.errors import ConfigurationError, ServiceUnavailable
from notifier.domain.statuses import Outcome, Status

if TYPE_CHECKING:
    from rich.console import Group

    from notifier.broker.inspection import QueueState
    from notifier.cli.operator_services import OperatorServices
    from notifier.operations.providers import OpenCircuit
    from notifier.store.metrics import Gauges

BROKER_SECONDS = 1.0
_STATUSES = (Status.QUEUED, Status.SENDING, Status.RETRYING, Status.SCHEDULED, Status.UNKNOWN)
_OUTCOMES = tuple(Outcome)


@dataclass(frozen=True, slots=True)
class Moment:
    """The state of the service at one time."""

    at: datetime
    gauges: Gauges
    circuits: Sequence[OpenCircuit]
    #: Empty if there is a `broker_problem`, or we may not look at any.
    queues: Sequence[QueueState]
    #: Why the queues are unknown: no broker is set, it is unreachable, or it did not answer in time. None: they
    #: are known.
    broker_problem: str | None


@dataclass(frozen=True, slots=True)
class Section:
    """One table of the view."""

    headers: tuple[str, ...]
    rows: list[tuple[object, ...]]


def top(
    context: typer.Context,
    every: Annotated[float, Option(min=0.5, max=3600, help="Seconds between two updates.")] = 2.0,
    once: Annotated[bool, Option("--once", help="Look once; the default in a pipe and with --json.")] = False,
    as_json: AsJson = False,
) -> None:
    """Watch the backlog, the calls to providers, open circuits and the broker's queues. Ctrl-C ends it."""
    with wiring(context).services() as services:
        if as_json:
            print_json(_look(services))
        elif once or not is_terminal(sys.stdout):
            for section in _sections(_look(services)):
                print_table(section.headers, section.rows)
                print_line()
        else:
            _watch(services, every)


def _watch(services: OperatorServices, every: float) -> None:
    from rich.live import Live

    with Live(console=console(sys.stdout), screen=True, auto_refresh=False) as live:
        try:
            while True:
                try:
                    live.update(_screen(_look(services)), refresh=True)
                except ServiceUnavailable as error:
                    # It may come back, and people who watch want to see that.
                    live.update(str(error), refresh=True)
                time.sleep(every)
        except KeyboardInterrupt:
            pass
    hint("for what is late, and what to do: notifier stuck")


def _look(services: OperatorServices) -> Moment:
    from notifier.broker.inspection import queue_states
    from notifier.store.metrics import GaugeRepository

    queues: list[QueueState] = []
    problem = None
    try:
        queues = queue_states(services.settings.require("broker_url"), seconds=BROKER_SECONDS)
    except (ServiceUnavailable, ConfigurationError) as error:
        problem = str(error)
    gauges = GaugeRepository(services.engine).read()
    return Moment(datetime.now(UTC), gauges, services.provider_operations.open_circuits(), queues, problem)


def _sections(moment: Moment) -> Iterator[Section]:
    gauges = moment.gauges
    yield Section(("waits", *_STATUSES, "oldest"), list(_lanes(gauges)))
    yield Section(("calls of the last hour", *_OUTCOMES), list(_calls(gauges)))
    late = f"{gauges.due}, for {gauges.oldest_due_seconds:.0f} s" if gauges.due else 0
    callbacks = sum(one.waiting for one in gauges.callbacks)
    parked = sum(one.parked for one in gauges.callbacks)
    yield Section(
        ("due", "rejected in the last hour", "callbacks waiting", "parked"),
        [(late, gauges.rejected, callbacks, parked)],
    )
    if moment.circuits:
        rows: list[tuple[object, ...]] = [
            (one.provider, one.sender, utc(one.since), one.waiting, one_line(one.why)) for one in moment.circuits
        ]
        yield Section(("open circuit", "sender", "since (UTC)", "waiting", "why"), rows)
    used = [(one.queue, one.messages, one.consumers) for one in moment.queues if one.messages or one.consumers]
    why_none = moment.broker_problem or ("all are empty" if moment.queues else "we may look at none")
    yield Section(("queue", "messages", "readers"), [*used] or [(why_none, None, None)])


def _lanes(gauges: Gauges) -> Iterator[tuple[object, ...]]:
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for one in gauges.waiting:
        counts[f"{one.channel} {one.lane}"][one.status] = one.count
    oldest = {f"{one.channel} {one.lane}": f"{max(0.0, one.seconds):.0f} s" for one in gauges.oldest_queued}
    for lane in sorted(counts):
        yield (lane, *(counts[lane].get(status, 0) for status in _STATUSES), oldest.get(lane))
    if not counts:
        yield ("nothing", *(0 for _ in _STATUSES), None)


def _calls(gauges: Gauges) -> Iterator[tuple[object, ...]]:
    counts: dict[str, dict[str, int]] = defaultdict(dict)
    for one in gauges.calls:
        counts[one.provider][one.outcome] = one.count
    for provider in sorted(counts):
        yield (provider, *(counts[provider].get(outcome, 0) for outcome in _OUTCOMES))
    if not counts:
        yield ("none", *(0 for _ in _OUTCOMES))


def _screen(moment: Moment) -> Group:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[Any] = [Text(f"notifier at {utc(moment.at)} UTC; Ctrl-C ends", style="dim")]
    for section in _sections(moment):
        table = Table(box=None, header_style="bold", padding=(1, 2, 0, 0))
        for place, header in enumerate(section.headers):
            table.add_column(header, justify="right" if place else "left", overflow="fold")
        for row in section.rows:
            table.add_row(*("" if cell is None else str(cell) for cell in row))
        parts.append(table)
    return Group(*parts)
