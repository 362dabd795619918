"""`notifier stuck`: what is late, which providers and senders are held back, and what to do about each."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import typer

from notifier.cli.callbacks import callback_operations, tell_stuck
from notifier.cli.failing import FAILED
from notifier.cli.operating import PANEL, as_dict, operations
from notifier.cli.output import AsJson, hint, one_line, print_json, print_line, utc
from notifier.cli.providers import steering, tell_circuit

if TYPE_CHECKING:
    from notifier.operations import Stuck

#: Ids of each cause that `stuck` shows to people, and prints as JSON.
SHOWN_IDS, JSON_IDS = 3, 1000


def register(app: typer.Typer) -> None:
    """Add this family's command."""
    app.command(rich_help_panel=PANEL)(stuck)


def stuck(context: typer.Context, as_json: AsJson = False) -> None:
    """Show what is late, and why, and which providers and senders are held back. Exits 1 if anything is.

    What waits for its turn under a limit is shown, and no fault.

    Times are UTC.
    """
    with operations(context) as found:
        late = found.stuck(ids=JSON_IDS if as_json else SHOWN_IDS)
    with callback_operations(context) as callbacks:
        untold = callbacks.stuck()
    with steering(context) as providers:
        circuits = providers.open_circuits()
    if as_json:
        everything: list[Any] = [*late, *untold]
        rows = [{**as_dict(one.late), "why": one.why, "fix": one.fix} for one in everything]
        print_json([*map(as_dict, circuits), *rows])
    elif not late and not untold and not circuits:
        print_line("nothing is stuck")
    for circuit in () if as_json else circuits:
        tell_circuit(circuit)
    for one in () if as_json else late:
        _tell_stuck(one)
    for endpoint in () if as_json else untold:
        tell_stuck(endpoint)
    if untold or circuits or any(one.late.cause != "rate_limited" for one in late):
        raise typer.Exit(FAILED)


def _tell_stuck(one: Stuck) -> None:
    late = one.late
    print_line(f"{late.count} × {late.channel} {late.lane}: {one.why}", "bold")
    print_line(f"  since {utc(late.oldest)} UTC" + (f"; {one_line(late.detail)}" if late.detail else ""))
    for value in late.ids:
        print_line(f"  {value}")
    if late.count > len(late.ids):
        print_line(f"  and {late.count - len(late.ids)} more")
    hint(f"  next: {one.fix}")
