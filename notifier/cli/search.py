"""`notifier show`, `search` and `rejected`: what became of messages."""

from __future__ import annotations

import sys
from datetime import datetime
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

from notifier.cli import dead_letters
from notifier.cli.arguments import read_id, read_past
from notifier.cli.callbacks import print_callbacks
from notifier.cli.context import wiring
from notifier.cli.labels import REDACTED
from notifier.cli.output import (
    AsJson,
    clean,
    hint,
    one_line,
    print_json,
    print_line,
    print_pairs,
    print_table,
    status_style,
    utc,
    when,
)
from notifier.cli.timeline import print_story, story_as_json
from notifier.domain.errors import NotFound
from notifier.domain.statuses import FINAL_STATUSES, Channel, Reason, Status

if TYPE_CHECKING:
    from notifier.store.search import RejectedView

PANEL = "Find out"
#: Callbacks of one notification: it has a dozen statuses to tell of.
_TOLD = 50

Limit = Annotated[int, typer.Option(min=1, max=1000, help="So many at the most.")]
Before = Annotated[
    UUID | None,
    typer.Option(
        parser=read_id, metavar="ID", help="The page after the one that ended with this id.", show_default=False
    ),
]


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    app.command(rich_help_panel=PANEL)(show)
    app.command(rich_help_panel=PANEL)(search)
    rejected = typer.Typer(no_args_is_help=True, help="Messages that were not accepted, with every reason.")
    rejected.command("list")(rejected_list)
    rejected.command("show")(rejected_show)
    dead_letters.add_to_rejected(rejected)
    app.add_typer(rejected, name="rejected", rich_help_panel=PANEL)


def show(
    context: typer.Context,
    notification: Annotated[
        UUID, typer.Argument(parser=read_id, help="Id of the notification.", metavar="ID", show_default=False)
    ],
    as_json: AsJson = False,
) -> None:
    """Tell the story of one notification: where it stands, why, how it came there, and what its producer was told.

    Times are UTC.
    """
    from notifier.store.callbacks import CallbackFilter

    with wiring(context).services() as services:
        try:
            story = services.audit.story(notification)
        except NotFound as error:
            raise NotFound(
                f"{error}. It may still wait for an intake (notifier queues), or have been refused "
                "(notifier rejected list)"
            ) from None
        told = services.callbacks.search(CallbackFilter(notification=notification), limit=_TOLD)
    if as_json:
        print_json(story_as_json(story))
        return
    print_story(story)
    if told:
        print_line("\ntold to its producer", "bold")
        print_callbacks(told)
    if story.notification.status == Status.SUPPRESSED:
        hint("\nWhy they are suppressed, and since when: notifier suppressions show ADDRESS")
    if story.notification.status not in FINAL_STATUSES | {Status.SENT}:
        hint(f"\nIt is under way; look again: notifier show {notification}")


def search(
    context: typer.Context,
    recipient: Annotated[
        str | None, typer.Option(help="Address or number; a display name does not matter.")
    ] = None,
    reference: Annotated[str | None, typer.Option(help="The producer's own reference.")] = None,
    producer: Annotated[str | None, typer.Option(help="The service that sent it.")] = None,
    channel: Annotated[Channel | None, typer.Option()] = None,
    status: Annotated[Status | None, typer.Option()] = None,
    reason: Annotated[Reason | None, typer.Option(help="Why it is where it is, as invalid_recipient.")] = None,
    template: Annotated[str | None, typer.Option(help="Name of the template.")] = None,
    provider: Annotated[str | None, typer.Option(help="The provider that took it.")] = None,
    since: Annotated[
        datetime | None,
        typer.Option(parser=read_past, metavar="TIME", help="2h, 3d (ago), 2026-11-22 or RFC 3339."),
    ] = None,
    until: Annotated[
        datetime | None, typer.Option(parser=read_past, metavar="TIME", help="Before that; written the same.")
    ] = None,
    test: Annotated[
        bool | None, typer.Option("--test/--live", help="Sent with a test key, or not; default: both.")
    ] = None,
    limit: Limit = 50,
    before: Before = None,
    as_json: AsJson = False,
) -> None:
    """Find notifications, newest first.

    All conditions must hold. Times are UTC.
    """
    from notifier.store.search import Filter

    wanted = Filter(
        recipient=recipient,
        reference=reference,
        producer=producer,
        channel=channel,
        status=status,
        reason=reason,
        template=template,
        provider=provider,
        since=since,
        until=until,
        is_test=test,
    )
    with wiring(context).services() as services:
        found = services.audit.search(wanted, limit=limit, before=before)
    if as_json:
        print_json(found)
        return
    if not found:
        hint("nothing found" + ("; that was the last page" if before else ""))
        return
    headers = ("id", "accepted", "status", "to", "template", "producer", "reference", "reason")
    rows = [
        (
            str(n.id),
            when(n.accepted_at),
            f"{n.status} (test)" if n.is_test else n.status,
            n.recipient or REDACTED,
            n.template,
            n.producer,
            n.reference or "",
            n.reason or "",
        )
        for n in found
    ]
    styles = {2: [status_style(n.status) for n in found]}
    print_table(headers, rows, styles, droppable=("producer", "reference", "template", "reason"))
    more = f"; the next page: the same with --before {found[-1].id}" if len(found) == limit else ""
    hint(f"{_count(len(found), 'notification')}{more}\nnext: notifier show ID")


def rejected_list(
    context: typer.Context, limit: Limit = 50, before: Before = None, as_json: AsJson = False
) -> None:
    """List the messages that were not accepted, newest first.

    Times are UTC.
    """
    with wiring(context).services() as services:
        found = services.audit.rejected(limit=limit, before=before)
    if as_json:
        print_json(found)
        return
    if not found:
        hint("no message was rejected" if before is None else "nothing found; that was the last page")
        return
    headers = ("id", "received", "queue", "producer", "bytes", "why")
    rows = [(str(r.id), when(r.received_at), r.queue, r.producer or "", str(r.body_size), _why(r)) for r in found]
    print_table(headers, rows, droppable=("bytes", "producer", "queue"))
    more = f"; the next page: the same with --before {found[-1].id}" if len(found) == limit else ""
    hint(f"{_count(len(found), 'rejected message')}{more}\nnext: notifier rejected show ID")


def rejected_show(
    context: typer.Context,
    message: Annotated[
        UUID, typer.Argument(parser=read_id, help="Id of the rejected message.", metavar="ID", show_default=False)
    ],
    raw: Annotated[
        bool, typer.Option("--raw", help="Write the kept bytes to standard output, as they came.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Show one rejected message: every reason, its headers and its body."""
    with wiring(context).services() as services:
        found = services.audit.rejected_message(message)
    if raw:
        sys.stdout.buffer.write(found.body)
    elif as_json:
        print_json(found)
    else:
        _print_rejected(found)


def _print_rejected(found: RejectedView) -> None:
    kept = "" if len(found.body) == found.body_size else f", the first {len(found.body)} of them kept"
    print_pairs(
        [
            ("id", str(found.id)),
            ("received", f"{utc(found.received_at)} UTC"),
            ("queue", found.queue),
            ("producer", one_line(found.producer or "not readable")),
            ("published by", one_line(f"broker user {found.broker_user}" if found.broker_user else "")),
            ("size", f"{found.body_size} bytes{kept}"),
            ("position", "" if found.entry is None else f"entry {found.entry} of its batch, counted from 0"),
            ("redelivered", "yes: the same bytes may be listed twice" if found.redelivered else ""),
        ]
    )
    print_line("\nwhy", "bold")
    for fault in found.faults:
        print_line(f"  {one_line(_sentence(fault))}", "red")
    if found.headers:
        print_line("\nheaders", "bold")
        print_pairs((f"  {one_line(name)}", one_line(str(value))) for name, value in found.headers.items())
    print_line("\nbody", "bold")
    for line in body_lines(found.body):
        print_line(f"  {line}")
    hint(
        f"\nIt was not sent. Mend the producer and send again. Its bytes: notifier rejected show {found.id} --raw"
    )


def body_lines(body: bytes) -> list[str]:
    """The body as text with control characters spelled out, or as a hex dump where it is not UTF-8."""
    try:
        return clean(body.decode()).splitlines() or ["(empty)"]
    except UnicodeDecodeError:
        return [_hex_line(body, start) for start in range(0, len(body), 16)]


def _hex_line(body: bytes, start: int) -> str:
    row = body[start : start + 16]
    shown = "".join(chr(byte) if 0x20 <= byte < 0x7F else "." for byte in row)
    return f"{start:08x}  {row.hex(' '):<47}  {shown}"


def _why(found: RejectedView) -> str:
    first = found.faults[0] if found.faults else {}
    more = f" (and {len(found.faults) - 1} more)" if len(found.faults) > 1 else ""
    return f"{first.get('field') or 'body'}: {first.get('problem', '')}{more}"


def _sentence(fault: dict[str, str]) -> str:
    return f"{fault.get('field') or 'body'}: {fault.get('problem', '')}. {fault.get('fix', '')}."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
