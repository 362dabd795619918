"""`notifier schedule`: shows the steps of upkeep and when they run, and runs one by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer
from typer import Argument

from notifier.cli.actions import operator
from notifier.cli.context import wiring
from notifier.cli.options import AsJson, Why
from notifier.cli.output import columns, count, one_line, print_json, print_line, print_list


def list_(context: typer.Context, as_json: AsJson = False) -> None:
    """List the nightly work, and heartbeats: when, next run, last success, last failure and why.

    Beat also starts the sweep every second, and a late step every minute.
    """
    with wiring(context).services() as services:
        found = [*services.upkeep.schedule(services.settings.timezone), *services.heartbeats.schedule()]
    print_list(
        found,
        columns(
            "name",
            "when",
            "next run=next_run_at",
            "last success=last_success_at",
            "last failure=last_failure_at",
            "failure",
        ),
        as_json=as_json,
        noun="step",
        empty="there are no steps",
        next_step="notifier schedule run NAME",
        droppable=("last failure", "next run", "when"),
        styles={"name": lambda step: "yellow" if step.is_late else ""},
    )


def run(
    context: typer.Context,
    name: Annotated[str, Argument(metavar="NAME", help="Name of a step, as shown by `notifier schedule list`.")],
    why: Why = None,
    as_json: AsJson = False,
) -> None:
    """Run one step now, and say what it did.

    The run is recorded like one that Beat started, and leaves an operator record.
    """
    with wiring(context).services() as services:
        done = services.upkeep.run_by_hand(name, operator=operator(), reason=why)
    if as_json:
        print_json({"step": name, "done": done})
        return
    print_line(f"{name} is done")
    for line in _lines(done):
        print_line(f"  {one_line(line)}")


def _lines(done: Any) -> list[str]:
    """What a step did: a count of rows; names or counts, one on a line; or results by name."""
    if isinstance(done, int):
        return [count(done, "row")]
    if isinstance(done, Mapping):
        return [f"{name}: {_words(value)}" for name, value in done.items() if value]
    return [_words(one) for one in done]


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {one}" for name, one in value.items())
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
