"""`notifier providers`: how the providers are, and an operator's word on each."""

from __future__ import annotations

import getpass
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated

import typer

from notifier.cli.output import AsJson, hint, print_json, print_table
from notifier.cli.wiring import wiring

if TYPE_CHECKING:
    from notifier.operations.steering import ProviderView, Steering

PANEL = "Act"

Name = Annotated[str, typer.Argument(help="Name of the provider, as in notifier.toml.", show_default=False)]
Why = Annotated[str | None, typer.Option(metavar="TEXT", help="Why; kept in the record.")]


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
def _steering(context: typer.Context) -> Iterator[Steering]:
    from notifier.operations.steering import Steering
    from notifier.store.operating import Operating

    with wiring(context).services() as services:
        tables = services.settings.provider_tables()
        yield Steering(services.health, Operating(services.engine, services.hash_key), tables)


def list_providers(context: typer.Context, as_json: AsJson = False) -> None:
    """Show each provider: in use, paused, or its circuit open; and its calls of the last minute."""
    if context.invoked_subcommand is not None:
        return
    with _steering(context) as steering:
        views = steering.providers()
    if as_json:
        print_json(views)
        return
    print_table(
        ("provider", "kind", "state", "weight", "calls/min", "faults", "mean", "why"),
        [_row(view) for view in views],
    )
    if any(view.state != "in use" for view in views):
        hint("next: mend it, then `notifier providers resume NAME`; `notifier stuck` shows what waits for it")


def _row(view: ProviderView) -> tuple[str, ...]:
    state = view.state
    if view.state == "open" and view.open_for_seconds is not None:
        state = f"open, next try in {view.open_for_seconds:.0f} s"
    why = " ".join(filter(None, (view.reason, view.detail)))
    mean = f"{view.seconds * 1000:.0f} ms" if view.calls else ""
    return view.name, view.kind, state, str(view.weight or ""), str(view.calls), str(view.faults), mean, why


def pause(context: typer.Context, name: Name, why: Why = None) -> None:
    """Make no more calls to a provider. What only it could send waits."""
    with _steering(context) as steering:
        steering.pause(name, operator=getpass.getuser(), reason=why)
    hint(f"{name} is paused; workers obey within two seconds. next: notifier providers resume {name}")


def resume(context: typer.Context, name: Name, why: Why = None) -> None:
    """Call a provider again, and close its circuit."""
    with _steering(context) as steering:
        steering.resume(name, operator=getpass.getuser(), reason=why)
    hint(f"{name} is in use again. next: notifier providers")


def weigh(
    context: typer.Context,
    name: Name,
    weight: Annotated[
        int | None, typer.Argument(min=0, max=1000, help="Share of the traffic; left out: the configured one.")
    ] = None,
    why: Why = None,
) -> None:
    """Give a provider another share of the traffic."""
    with _steering(context) as steering:
        steering.weigh(name, weight, operator=getpass.getuser(), reason=why)
    hint(
        f"{name} has {'the configured weight' if weight is None else f'weight {weight}'}. next: notifier providers"
    )
