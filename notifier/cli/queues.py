"""`notifier queues`: shows how many messages wait in each queue, and creates missing queues."""

from __future__ import annotations

import typer

from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.options import AsJson
from notifier.cli.output import hint, print_json, print_line, print_table


def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Show every queue and how many messages wait in it. Exits 1 if one is missing."""
    if context.invoked_subcommand:
        return
    from notifier.broker.inspection import Broker, producer_queues
    from notifier.broker.topology import work_queues

    url = wiring(context).settings().require("broker_url")
    with Broker.connect(url) as broker:
        states = [broker.state(queue) for queue in (*producer_queues(), *work_queues())]
    missing = [state for state in states if state.messages is None]
    if as_json:
        print_json(states)
    else:
        rows = [(one.queue, "missing" if one.messages is None else one.messages, one.consumers) for one in states]
        styles = ["red" if one.messages is None else "" for one in states]
        print_table(("queue", "messages", "readers"), rows, column_styles={1: styles})
        if missing:
            hint(f"{len(missing)} queues are missing. next: notifier queues declare")
    if missing:
        raise typer.Exit(FAILED)


def declare(context: typer.Context) -> None:
    """Create the exchanges and queues that are missing. Safe to repeat; Redis needs none."""
    from notifier.broker.inspection import Broker, producer_queues, where
    from notifier.broker.topology import work_queues

    url = wiring(context).settings().require("broker_url")
    with Broker.connect(url) as broker:
        if broker.is_redis:
            hint("a Redis-protocol broker creates its lists on first use: nothing to declare")
            return
        broker.declare()
    print_line(f"{len(producer_queues()) + len(work_queues())} queues are declared on {where(url)}")
    hint("next: notifier queues")
