"""`notifier providers`: the health of the providers; pause, resume or weigh one."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument

from notifier.cli.actions import operator
from notifier.cli.context import wiring
from notifier.cli.options import AsJson, Why
from notifier.cli.output import hint, print_json, print_table, utc

if TYPE_CHECKING:
    from notifier.operations.providers import ProviderView, SenderView


Name = Annotated[str, Argument(help="Name of the provider, as in notifier.toml.")]


def show(context: typer.Context, as_json: AsJson = False) -> None:
    """Show the state and the last minute of each provider, and the senders that it refuses."""
    if context.invoked_subcommand is not None:
        return
    with wiring(context).services() as services:
        views = services.provider_operations.providers()
    if as_json:
        print_json(views)
        return
    print_table(
        ("provider", "kind", "state", "weight", "calls/min", "faults", "mean", "why"),
        [_row(view) for view in views],
    )
    senders = [_sender_row(view, sender) for view in views for sender in view.senders]
    if senders:
        print_table(("sender", "at", "state", "refusals", "since (UTC)", "why"), senders)
    if senders or any(view.state != "in use" for view in views):
        hint(
            "next: fix the cause, then `notifier providers resume NAME`; `notifier stuck` shows which "
            "notifications wait for it"
        )


def _sender_row(view: ProviderView, sender: SenderView) -> tuple[object, ...]:
    state = sender.state
    if state == "held back" and sender.open_for_seconds is not None:
        state = f"held back, next try in {sender.open_for_seconds:.0f} s"
    why = " ".join(filter(None, (sender.reason, sender.detail)))
    return sender.sender, view.name, state, sender.refusals, utc(sender.since), why


def _row(view: ProviderView) -> tuple[object, ...]:
    state = view.state
    if view.state == "open" and view.open_for_seconds is not None:
        state = f"open, next try in {view.open_for_seconds:.0f} s"
    why = " ".join(filter(None, (view.reason, view.detail)))
    mean = f"{view.seconds * 1000:.0f} ms" if view.calls else ""
    return view.name, view.kind, state, view.weight or None, view.calls, view.faults, mean, why


def pause(context: typer.Context, name: Name, why: Why = None) -> None:
    """Make no more calls to a provider. Notifications that only it can send will wait."""
    with wiring(context).services() as services:
        services.provider_operations.pause(name, operator=operator(), reason=why)
    hint(
        f"{name} is paused; workers follow within two seconds, and finish what they have in hand. "
        f"next: notifier providers resume {name}"
    )


def resume(context: typer.Context, name: Name, why: Why = None) -> None:
    """Call a provider again, and close its circuit and those of its senders. Notifications that wait for it are
    due soon."""
    from notifier.operations.explanations import resumed_in_words

    with wiring(context).services() as services:
        found = services.provider_operations.resume(name, operator=operator(), reason=why)
    hint(f"{resumed_in_words(name, found.count, found.within_seconds)} next: notifier providers")


def weigh(
    context: typer.Context,
    name: Name,
    weight: Annotated[
        int | None, Argument(min=0, max=1000, help="Share of the traffic; default: as configured.")
    ] = None,
    why: Why = None,
) -> None:
    """Change a provider's share of the traffic."""
    with wiring(context).services() as services:
        services.provider_operations.weigh(name, weight, operator=operator(), reason=why)
    hint(
        f"{name} has {'the configured weight' if weight is None else f'weight {weight}'}. next: notifier providers"
    )
