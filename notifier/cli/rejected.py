"""`notifier rejected`: messages that the intake could not accept, and what operators do with them."""

from __future__ import annotations

import sys
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from typer import Option

from notifier.cli.actions import SelectionEnding, run_action
from notifier.cli.context import wiring
from notifier.cli.dead_letters import requeueing
from notifier.cli.options import (
    ActionOptions,
    AsJson,
    OfProducer,
    Operand,
    PageOptions,
    Raw,
    Since,
    Until,
    grouped,
    ids_of,
    past,
)
from notifier.cli.output import (
    columns,
    hint,
    one_line,
    print_content,
    print_json,
    print_line,
    print_list,
    print_pairs,
    stored_size,
    utc,
)

if TYPE_CHECKING:
    from notifier.operations import ActionResult, RejectedSelection
    from notifier.store.search import RejectedView


RejectedIds = Annotated[list[UUID] | None, ids_of("rejected messages")]
Code = Annotated[str | None, Option(help="Only those with this fault code, for example unknown_template.")]


@grouped
def list_(context: typer.Context, *, page: PageOptions, as_json: AsJson = False) -> None:
    """List the messages that were not accepted, newest first."""
    with wiring(context).services() as services:
        found = services.audit.rejected(limit=page.limit, before=page.before)
    print_list(
        found,
        {**columns("id", "received=received_at", "queue", "producer", "bytes=body_size"), "why": _why},
        as_json=as_json,
        noun="rejected message",
        empty="nothing found; that was the last page" if page.before else "no message was rejected",
        next_step="notifier rejected show ID",
        droppable=("bytes", "producer", "queue"),
        following=page.following(found),
    )


def show(context: typer.Context, message: Operand, raw: Raw = False, as_json: AsJson = False) -> None:
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
    print_pairs(
        [
            ("id", found.id),
            ("received", f"{utc(found.received_at)} UTC"),
            ("queue", found.queue),
            ("producer", one_line(found.producer or "not readable")),
            ("published by", one_line(f"broker user {found.broker_user}" if found.broker_user else "")),
            ("size", stored_size(found.body_size, len(found.body))),
            ("position", "" if found.entry is None else f"entry {found.entry} of its batch, counted from 0"),
            ("redelivered", "yes: the same bytes may be listed twice" if found.redelivered else ""),
            ("replayed", _replayed(found)),
        ]
    )
    print_line("\nwhy", "bold")
    for fault in found.faults:
        sentence = f"{fault.get('field') or 'body'}: {fault.get('problem', '')}. {fault.get('fix', '')}."
        print_line(f"  {one_line(sentence)}", "red")
    print_content(found.headers, found.body)
    hint("\nIt was not sent. Correct the producer and send it again. The bytes: add --raw")


def _replayed(found: RejectedView) -> str:
    by = f"; operator record {found.replay_id}" if found.replay_id else ""
    if found.claimed_at is not None:
        return f"begun {utc(found.claimed_at)} UTC, {'interrupted' if found.is_interrupted else 'under way'}{by}"
    return f"{utc(found.replayed_at)} UTC{by}" if found.replayed_at else ""


def _why(found: RejectedView) -> str:
    first = found.faults[0] if found.faults else {}
    more = f" (and {len(found.faults) - 1} more)" if len(found.faults) > 1 else ""
    return f"{first.get('field') or 'body'}: {first.get('problem', '')}{more}"


@grouped
def replay(
    context: typer.Context,
    ids: RejectedIds = None,
    *,
    since: Since = None,
    until: Until = None,
    code: Code = None,
    producer: OfProducer = None,
    again: Annotated[bool, Option("--again", help="Include those that were replayed before.")] = False,
    options: ActionOptions,
) -> None:
    """Publish rejected messages again, byte for byte, once the cause is fixed on this side.

    Messages that are still wrong are rejected again. Messages accepted in the meantime are duplicates and are not
    sent.
    """
    selection = _selection(ids, since=since, until=until, code=code, producer=producer)
    with wiring(context).services() as services:
        act = partial(services.replays.replay_rejected, selection, again=again)

        def perform(**how: Any) -> ActionResult:
            if how.get("dry_run"):
                return act(lambda _: None, **how)
            with requeueing(context) as broker:
                return act(broker.publish, **how)

        next_step = "notifier rejected list --limit 10, which shows those that are still wrong"
        run_action(perform, SelectionEnding("replay", "replayed", next_step), options, asks=not ids)


@grouped
def purge(
    context: typer.Context,
    ids: RejectedIds = None,
    *,
    older_than: Annotated[datetime | None, past("Received before: 30d (ago), 2026-11-22 or RFC 3339.")] = None,
    code: Code = None,
    producer: OfProducer = None,
    options: ActionOptions,
) -> None:
    """Delete rejected messages for good."""
    selection = _selection(ids, until=older_than, code=code, producer=producer)
    with wiring(context).services() as services:
        ending = SelectionEnding("delete", "deleted")
        run_action(partial(services.replays.purge_rejected, selection), ending, options, asks=not ids)


def _selection(ids: list[UUID] | None, **conditions: Any) -> RejectedSelection:
    from notifier.operations import RejectedSelection

    has_conditions = any(value is not None for value in conditions.values())
    if bool(ids) == has_conditions:
        raise typer.BadParameter("choose messages: give IDs, or conditions such as --code; not both")
    return RejectedSelection(tuple(ids or ()), **conditions)
