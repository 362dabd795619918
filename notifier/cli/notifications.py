"""`notifier show` and `search`: what became of notifications."""

from __future__ import annotations

from typing import Annotated

import typer
from typer import Option

from notifier.cli import callbacks
from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.options import AsJson, FilterOptions, OfReason, OperandStart, PageOptions, grouped, one_of
from notifier.cli.output import columns, hint, print_json, print_line, print_list, status_style, warn
from notifier.cli.timeline import print_story, story_as_json
from notifier.domain.errors import NotFound
from notifier.domain.labels import REDACTED
from notifier.domain.statuses import FINAL_STATUSES, Status

#: A notification has at most a dozen statuses to report.
CALLBACKS_SHOWN = 50


def show(context: typer.Context, notification: OperandStart, as_json: AsJson = False) -> None:
    """Show one notification: its status, its timeline, and the callbacks to its producer."""
    from notifier.store.callbacks import CallbackFilter

    with wiring(context).services() as services:
        try:
            story = services.audit.story(services.audit.id_between(notification.first, notification.last))
        except NotFound as error:
            raise NotFound(
                f"{error}. It may still wait for an intake (notifier queues), or have been rejected "
                "(notifier rejected list)"
            ) from None
        wanted = CallbackFilter(notification=story.notification.id)
        made = services.callbacks.search(wanted, limit=CALLBACKS_SHOWN)
    if as_json:
        print_json(story_as_json(story))
        return
    print_story(story)
    if made:
        print_line("\ncallbacks to its producer", "bold")
        callbacks.print_callbacks(made)
    if story.notification.status == Status.SUPPRESSED:
        hint("\nTo see why the recipient is suppressed, and since when: notifier suppressions show ADDRESS")
    if story.notification.status not in FINAL_STATUSES | {Status.SENT}:
        hint(f"\nIt is still on its way; look again: notifier show {story.notification.id}")


@grouped
def search(
    context: typer.Context,
    *,
    filters: FilterOptions,
    status: Annotated[Status | None, one_of(Status, "STATUS", "Only this status")] = None,
    reason: OfReason = None,
    test: Annotated[
        bool | None,
        Option("--test/--live", help="Only those sent with a test key, or only the others; default: both."),
    ] = None,
    page: PageOptions,
    as_json: AsJson = False,
) -> None:
    """Find notifications, newest first.

    All conditions must match. Exits 1 if nothing is found by an address because of another NOTIFIER_HASH_KEY.
    """
    wanted = filters.filter(status=status, reason=reason, is_test=test)
    with wiring(context).services() as services:
        found = services.audit.search(wanted, limit=page.limit, before=page.before)
        unfound = services.unfound_by_address() if wanted.recipient else None
    print_list(
        found,
        {
            **columns("id", "accepted=accepted_at"),
            "status": lambda n: f"{n.status} (test)" if n.is_test else n.status,
            "to": lambda n: n.recipient or REDACTED,
            **columns("template", "producer", "reference", "reason"),
        },
        as_json=as_json,
        noun="notification",
        empty="nothing found" + ("; that was the last page" if page.before else ""),
        next_step="notifier show ID",
        droppable=("producer", "reference", "template"),
        shortens_ids=True,
        styles={"status": lambda n: status_style(n.status)},
        following=page.following(found),
    )
    if unfound:
        warn(f"{unfound[0]}. next: {unfound[1]}")
        if not found and not page.before:
            raise typer.Exit(FAILED)
