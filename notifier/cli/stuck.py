"""`notifier stuck`: what is late, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

import typer

from notifier.cli import output
from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.options import AsJson
from notifier.cli.output import hint, one_line, print_json, print_line, utc, warn

if TYPE_CHECKING:
    from notifier.operations import Stuck
    from notifier.operations.providers import OpenCircuit
    from notifier.store.stuck import Late

#: Ids of each cause that people see, and that JSON has.
SHOWN_IDS, JSON_IDS = 3, 1000


def stuck(context: typer.Context, as_json: AsJson = False) -> None:
    """Show what is late and why, which providers and senders are on hold, and whether many sends failed within the
    last hour. Exits 1 if anything is.

    Notifications that a rate limit delays are shown, but are not an error.
    """
    from notifier.operations.failed_lately import failed_lately

    with wiring(context).services() as services:
        late = services.operations.stuck(ids=JSON_IDS if as_json else SHOWN_IDS)
        callbacks, suppressions = services.callback_operations.stuck(), services.held.stuck()
        circuits = services.provider_operations.open_circuits()
        unfound = services.unfound_by_address()
        failing = failed_lately(services.minute_counts).failing
    held = [suppressions] if suppressions else []
    if as_json:
        everything: list[Any] = [*failing, *late, *callbacks, *held]
        rows = [{**output.as_json(one.late), "why": one.why, "fix": one.fix} for one in everything]
        print_json([*circuits, *rows])
    else:
        for circuit in circuits:
            _print(circuit.why, _circuit(circuit), circuit.fix)
        for share in failing:
            _print(share.why, (), share.fix)
        for one in late:
            # The lines on an open circuit already say what to do.
            is_explained = any(
                circuit.channel in (None, one.late.channel) and str(circuit.reason) == str(one.late.cause)
                for circuit in circuits
            )
            title = f"{one.late.count} × {one.late.channel} {one.late.lane}: {one.why}"
            _print(title, _notifications(one), "" if is_explained else one.fix)
        for endpoint in callbacks:
            title = f"{endpoint.late.count} × callbacks of {endpoint.late.endpoint}: {endpoint.why}"
            _print(title, [f"since {utc(endpoint.late.oldest)} UTC"], endpoint.fix)
        for holding in held:
            alarms = (
                f"{alarm.scope}: since {utc(alarm.since)} UTC, until {utc(alarm.until)} at least"
                for alarm in holding.late.alarms
            )
            _print(holding.why, alarms, holding.fix)
        if not (circuits or failing or late or callbacks or held):
            print_line("nothing is stuck")
        if unfound:
            warn(f"{unfound[0]}. next: {unfound[1]}")
    if circuits or failing or held or callbacks or any(one.late.cause != "rate_limited" for one in late):
        raise typer.Exit(FAILED)


def _print(title: str, lines: Iterable[str], fix: str) -> None:
    print_line(title, "bold")
    for line in lines:
        print_line(f"  {line}")
    if fix:
        hint(f"  next: {fix}")


def _circuit(one: OpenCircuit) -> Iterator[str]:
    until = f", next try {utc(one.until)}" if one.until else ""
    yield f"since {utc(one.since)} UTC{until}" + (f"; {one_line(one.detail)}" if one.detail else "")
    yield f"{one.waiting} wait for it" + (f", of {', '.join(one.producers)}" if one.producers else "")


def _notifications(one: Stuck[Late]) -> Iterator[str]:
    late = one.late
    yield f"since {utc(late.oldest)} UTC" + (f"; {one_line(late.detail)}" if late.detail else "")
    yield from map(str, late.ids)
    if late.count > len(late.ids):
        yield f"and {late.count - len(late.ids)} more"
