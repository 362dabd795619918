"""`notifier show`, `search` and `stuck`: what became of notifications."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import fields
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any

import typer

from notifier.cli import callbacks, held_suppressions, notification_actions
from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.options import FilterOptions, OfReason, Operand, PageOptions, grouped
from notifier.cli.output import (
    AsJson,
    hint,
    one_line,
    print_json,
    print_line,
    print_list,
    status_style,
    utc,
    when,
)
from notifier.cli.providers import print_circuit, steering
from notifier.cli.timeline import print_story, story_as_json
from notifier.domain.errors import NotFound
from notifier.domain.labels import REDACTED
from notifier.domain.statuses import FINAL_STATUSES, Channel, Reason, Status

if TYPE_CHECKING:
    from notifier.operations import Stuck
    from notifier.store.stuck import Late

PANEL = "Find out"
#: Callbacks of one notification: it has a dozen statuses to tell of.
CALLBACKS_SHOWN = 50
#: Ids of each cause that `stuck` shows to people, and prints as JSON.
SHOWN_IDS, JSON_IDS = 3, 1000


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command(rich_help_panel=PANEL)(show)
    app.command(rich_help_panel=PANEL)(search)
    app.command(rich_help_panel=notification_actions.PANEL)(stuck)


def show(context: typer.Context, notification: Operand, as_json: AsJson = False) -> None:
    """Show one notification: its status, why, everything that happened to it, and what its producer was told.

    Times are UTC.
    """
    from notifier.store.callbacks import CallbackFilter

    with wiring(context).services() as services:
        try:
            story = services.audit.story(notification)
        except NotFound as error:
            raise NotFound(
                f"{error}. It may still wait for an intake (notifier queues), or have been rejected "
                "(notifier rejected list)"
            ) from None
        made = services.callbacks.search(CallbackFilter(notification=notification), limit=CALLBACKS_SHOWN)
    if as_json:
        print_json(story_as_json(story))
        return
    print_story(story)
    if made:
        print_line("\ntold to its producer", "bold")
        callbacks.print_callbacks(made)
    if story.notification.status == Status.SUPPRESSED:
        hint("\nTo see why the recipient is suppressed, and since when: notifier suppressions show ADDRESS")
    if story.notification.status not in FINAL_STATUSES | {Status.SENT}:
        hint(f"\nIt is still on its way; look again: notifier show {notification}")


@grouped
def search(
    context: typer.Context,
    *,
    filters: FilterOptions,
    status: Annotated[Status | None, typer.Option(help="Only this status.")] = None,
    reason: OfReason = None,
    test: Annotated[
        bool | None,
        typer.Option("--test/--live", help="Only those sent with a test key, or only the others; default: both."),
    ] = None,
    page: PageOptions,
    as_json: AsJson = False,
) -> None:
    """Find notifications, newest first.

    All conditions must hold. Times are UTC.
    """
    wanted = filters.filter(status=status, reason=reason, is_test=test)
    with wiring(context).services() as services:
        found = services.audit.search(wanted, limit=page.limit, before=page.before)
    print_list(
        found,
        {
            "id": lambda n: n.id,
            "accepted": lambda n: when(n.accepted_at),
            "status": lambda n: f"{n.status} (test)" if n.is_test else n.status,
            "to": lambda n: n.recipient or REDACTED,
            "template": lambda n: n.template,
            "producer": lambda n: n.producer,
            "reference": lambda n: n.reference,
            "reason": lambda n: n.reason,
        },
        as_json=as_json,
        noun="notification",
        empty="nothing found" + ("; that was the last page" if page.before else ""),
        next_step="notifier show ID",
        droppable=("producer", "reference", "template", "reason"),
        styles={"status": lambda n: status_style(n.status)},
        following=page.following(found),
    )


def stuck(context: typer.Context, as_json: AsJson = False) -> None:
    """Show what is late and why, and which providers and senders are on hold. Exits 1 if anything is.

    Notifications that wait for their turn under a rate limit are shown, but are not an error.

    Times are UTC.
    """
    with notification_actions.operations(context) as found:
        late = found.stuck(ids=JSON_IDS if as_json else SHOWN_IDS)
    with callbacks.callback_operations(context) as made, wiring(context).services() as services:
        late_callbacks, held = made.stuck(), services.held.stuck()
    with steering(context) as providers:
        circuits = providers.open_circuits()
    explained = {(one.channel, one.reason) for one in circuits}
    everything: list[tuple[Any, Callable[[Any], None]]] = [
        *((one, partial(_print_stuck, explained=explained)) for one in late),
        *((one, callbacks.print_stuck) for one in late_callbacks),
        *((one, held_suppressions.print_stuck) for one in [held] if one),
    ]
    if as_json:
        rows = [{**_as_dict(one.late), "why": one.why, "fix": one.fix} for one, _ in everything]
        print_json([*map(_as_dict, circuits), *rows])
    elif not everything and not circuits:
        print_line("nothing is stuck")
    for circuit in () if as_json else circuits:
        print_circuit(circuit)
    for one, tell in () if as_json else everything:
        tell(one)
    if circuits or held or late_callbacks or any(one.late.cause != "rate_limited" for one in late):
        raise typer.Exit(FAILED)


def _print_stuck(one: Stuck[Late], explained: Collection[tuple[Channel | None, Reason | None]]) -> None:
    """`explained`: channel and reason of each open circuit, which says already what to do."""
    late = one.late
    print_line(f"{late.count} × {late.channel} {late.lane}: {one.why}", "bold")
    print_line(f"  since {utc(late.oldest)} UTC" + (f"; {one_line(late.detail)}" if late.detail else ""))
    for value in late.ids:
        print_line(f"  {value}")
    if late.count > len(late.ids):
        print_line(f"  and {late.count - len(late.ids)} more")
    cause = str(late.cause)
    if not any(channel in (None, late.channel) and str(reason) == cause for channel, reason in explained):
        hint(f"  next: {one.fix}")


def _as_dict(value: Any) -> dict[str, Any]:
    """The fields of a dataclass, unconverted."""
    return {field.name: getattr(value, field.name) for field in fields(value)}
