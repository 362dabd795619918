"""`notifier providers`: the health of the providers; pause, resume or weigh one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from notifier.cli.actions import operator
from notifier.cli.context import wiring
from notifier.cli.options import Why
from notifier.cli.output import AsJson, hint, one_line, print_json, print_line, print_table, utc

if TYPE_CHECKING:
    from notifier.operations.providers import OpenCircuit, ProviderOperations, ProviderView, SenderView

PANEL = "Act"

Name = Annotated[str, typer.Argument(help="Name of the provider, as in notifier.toml.", show_default=False)]


def register(app: typer.Typer) -> None:
    """Add these commands."""
    providers = typer.Typer(
        help="Health of the providers; pause, resume or weigh one.", invoke_without_command=True
    )
    providers.callback()(list_providers)
    providers.command("pause")(pause)
    providers.command("resume")(resume)
    providers.command("weigh")(weigh)
    app.add_typer(providers, name="providers", rich_help_panel=PANEL)


@contextmanager
def steering(context: typer.Context) -> Iterator[ProviderOperations]:
    """What is known and done about providers, on the configured database."""
    from notifier.operations.providers import ProviderOperations
    from notifier.store.operator_actions import Operating

    with wiring(context).services() as services:
        tables = services.settings.provider_tables()
        operating = Operating(services.engine, services.hash_key)
        yield ProviderOperations(services.health, services.circuits, operating, tables)


def list_providers(context: typer.Context, as_json: AsJson = False) -> None:
    """Show each provider: in use, paused, or circuit open; its last minute; and the senders that it refuses."""
    if context.invoked_subcommand is not None:
        return
    with steering(context) as found:
        views = found.providers()
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


def _sender_row(view: ProviderView, sender: SenderView) -> tuple[str, ...]:
    state = sender.state
    if state == "held back" and sender.open_for_seconds is not None:
        state = f"held back, next try in {sender.open_for_seconds:.0f} s"
    why = " ".join(filter(None, (sender.reason, sender.detail)))
    return sender.sender, view.name, state, str(sender.refusals), utc(sender.since), why


def _row(view: ProviderView) -> tuple[str, ...]:
    state = view.state
    if view.state == "open" and view.open_for_seconds is not None:
        state = f"open, next try in {view.open_for_seconds:.0f} s"
    why = " ".join(filter(None, (view.reason, view.detail)))
    mean = f"{view.seconds * 1000:.0f} ms" if view.calls else ""
    return view.name, view.kind, state, str(view.weight or ""), str(view.calls), str(view.faults), mean, why


def pause(context: typer.Context, name: Name, why: Why = None) -> None:
    """Make no more calls to a provider. Notifications that only it can send will wait."""
    with steering(context) as found:
        found.pause(name, operator=operator(), reason=why)
    hint(f"{name} is paused; workers follow within two seconds. next: notifier providers resume {name}")


def resume(context: typer.Context, name: Name, why: Why = None) -> None:
    """Call a provider again, and close its circuit and those of its senders."""
    with steering(context) as found:
        found.resume(name, operator=operator(), reason=why)
    hint(f"{name} is in use again. next: notifier providers")


def weigh(
    context: typer.Context,
    name: Name,
    weight: Annotated[
        int | None, typer.Argument(min=0, max=1000, help="Share of the traffic; default: the configured one.")
    ] = None,
    why: Why = None,
) -> None:
    """Change a provider's share of the traffic."""
    with steering(context) as found:
        found.weigh(name, weight, operator=operator(), reason=why)
    hint(
        f"{name} has {'the configured weight' if weight is None else f'weight {weight}'}. next: notifier providers"
    )


def print_circuit(one: OpenCircuit) -> None:
    """Say whose circuit is open, and whom it stops, for `notifier stuck`."""
    print_line(one.why, "bold")
    until = f", next try {utc(one.until)}" if one.until else ""
    print_line(f"  since {utc(one.since)} UTC{until}" + (f"; {one_line(one.detail)}" if one.detail else ""))
    whose = f", of {', '.join(one.producers)}" if one.producers else ""
    print_line(f"  {one.waiting} wait for it{whose}")
    hint(f"  next: {one.fix}")
