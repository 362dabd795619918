"""`notifier rejected replay|purge` and `notifier queues dead`: what never became a notification."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer

from notifier.cli.arguments import read_id, read_past
from notifier.cli.context import wiring
from notifier.cli.operating import DryRun, Ending, Since, Until, Why, Yes, carry_out, operator
from notifier.cli.output import (
    AsJson,
    hint,
    is_terminal,
    one_line,
    print_json,
    print_line,
    print_pairs,
    print_table,
    utc,
    when,
)
from notifier.domain.errors import NotFound

if TYPE_CHECKING:
    from notifier.broker.dead_letters import DeadLetter, Requeueing
    from notifier.operations import ActionCounts, ActionResult, RejectedSelection, Replays

#: Dead letters that are looked through for one of a given id.
LOOKED_THROUGH = 10_000

RejectedIds = Annotated[
    list[UUID] | None,
    typer.Argument(parser=read_id, metavar="ID…", help="Ids of rejected messages.", show_default=False),
]
Code = Annotated[str | None, typer.Option(help="One of its reasons has this code, as unknown_template.")]
Producer = Annotated[str | None, typer.Option(help="Who it says it is from.")]
DeadIds = Annotated[
    list[str] | None, typer.Argument(metavar="ID…", help="Ids as `list` shows them.", show_default=False)
]
All = Annotated[bool, typer.Option("--all", help="All that are there.")]


def add_to_rejected(rejected: typer.Typer) -> None:
    """Add what changes something to `notifier rejected`."""
    rejected.command("replay")(rejected_replay)
    rejected.command("purge")(rejected_purge)


def add_to_queues(queues: typer.Typer) -> None:
    """Add `notifier queues dead`."""
    dead = typer.Typer(no_args_is_help=True, help="What RabbitMQ gave up on: given back too often.")
    dead.command("list")(dead_list)
    dead.command("show")(dead_show)
    dead.command("replay")(dead_replay)
    dead.command("purge")(dead_purge)
    queues.add_typer(dead, name="dead")


def rejected_replay(
    context: typer.Context,
    ids: RejectedIds = None,
    since: Since = None,
    until: Until = None,
    code: Code = None,
    producer: Producer = None,
    again: Annotated[bool, typer.Option("--again", help="Also those that were replayed before.")] = False,
    why: Why = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Publish rejected messages again, byte for byte, when what was wrong with them is mended here.

    A message that is still wrong is rejected again. One that was accepted meanwhile is a duplicate, and not sent.
    """
    selection = _selected(ids, since=since, until=until, code=code, producer=producer)
    end = Ending("replayed", "replay", as_json=as_json)

    with replays(context) as found:

        def look() -> ActionResult:
            return found.replay_rejected(selection, _never, operator=operator(), again=again, dry_run=True)

        def act(progress: Callable[[ActionCounts], None]) -> ActionResult:
            with requeueing(context) as broker:
                return found.replay_rejected(
                    selection,
                    broker.publish,
                    operator=operator(),
                    reason=why,
                    again=again,
                    progress=progress,
                )

        end.tell(carry_out(look, act, end, asks=not ids and not yes, dry_run=dry_run))


def rejected_purge(
    context: typer.Context,
    ids: RejectedIds = None,
    older_than: Annotated[
        datetime | None,
        typer.Option(parser=read_past, metavar="TIME", help="Received before that: 30d, 2026-11-22 or RFC 3339."),
    ] = None,
    code: Code = None,
    producer: Producer = None,
    why: Why = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete rejected messages for good."""
    selection = _selected(ids, until=older_than, code=code, producer=producer)
    end = Ending("deleted", "delete", as_json=as_json)
    with replays(context) as found:

        def look() -> ActionResult:
            return found.purge_rejected(selection, operator=operator(), dry_run=True)

        def act(progress: Callable[[ActionCounts], None]) -> ActionResult:
            return found.purge_rejected(selection, operator=operator(), reason=why, progress=progress)

        end.tell(carry_out(look, act, end, asks=not ids and not yes, dry_run=dry_run))


def dead_list(
    context: typer.Context,
    limit: Annotated[int, typer.Option(min=1, max=1000, help="So many at the most.")] = 50,
    as_json: AsJson = False,
) -> None:
    """List the messages that the broker gave up on, the oldest first. They stay where they are.

    Times are UTC.
    """
    try:
        with requeueing(context) as broker:
            found = broker.dead_letters(limit)
    except NotFound as none:
        found = []
        hint(str(none))
    if as_json:
        print_json([_as_dict(letter) for letter in found])
        return
    if not found:
        hint("the dead queue is empty")
        return
    headers = ("id", "received", "queue", "reason", "bytes")
    rows = [
        (
            letter.id,
            when(letter.died_at) if letter.died_at else "",
            letter.queue,
            letter.reason,
            str(len(letter.raw.body)),
        )
        for letter in found
    ]
    print_table(headers, rows, droppable=("bytes", "reason"))
    hint("next: notifier queues dead show ID, then replay or purge")


def dead_show(
    context: typer.Context,
    letter: Annotated[str, typer.Argument(metavar="ID", help="Id as `list` shows it.", show_default=False)],
    raw: Annotated[bool, typer.Option("--raw", help="Write its bytes to standard output, as they came.")] = False,
    as_json: AsJson = False,
) -> None:
    """Show one message that the broker gave up on. It stays where it is."""
    with requeueing(context) as broker:
        found = next((one for one in broker.dead_letters(LOOKED_THROUGH) if one.id == letter), None)
    if found is None:
        raise NotFound(f"there is no dead letter {letter}; see: notifier queues dead list")
    if raw:
        sys.stdout.buffer.write(found.raw.body)
    elif as_json:
        print_json(_as_dict(found))
    else:
        _print_letter(found)


def dead_replay(
    context: typer.Context,
    ids: DeadIds = None,
    everything: All = False,
    why: Why = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Publish messages again to the queues they died in, and take them out of the dead queue."""
    _work_off(context, ids, everything, "replayed", "replay", why=why, yes=yes, as_json=as_json)


def dead_purge(
    context: typer.Context,
    ids: DeadIds = None,
    everything: All = False,
    why: Why = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete messages of the dead queue for good."""
    _work_off(context, ids, everything, "deleted", "delete", why=why, yes=yes, as_json=as_json)


def _work_off(
    context: typer.Context,
    ids: list[str] | None,
    everything: bool,
    done: str,
    command: str,
    *,
    why: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    if bool(ids) == everything:
        raise typer.BadParameter("say which: ids, or --all")
    end = Ending(done, command, as_json=as_json)
    wanted: Sequence[str] | None = ids or None
    with replays(context) as found, requeueing(context) as broker:
        # Before anything is recorded or asked: is there such a queue at all?
        waiting = broker.dead_letter_count()
        if wanted is None and waiting > 1 and not yes and is_terminal(sys.stdin):
            typer.confirm(f"{command} {waiting}?", err=True, abort=True)
        act = found.replay_dead if command == "replay" else found.purge_dead
        end.tell(act(wanted, broker, operator=operator(), reason=why))


@contextmanager
def replays(context: typer.Context) -> Iterator[Replays]:
    """The actions, on the configured database."""
    from notifier.operations import Replays
    from notifier.store.operator_actions import Operating
    from notifier.store.rejected import Rejections

    with wiring(context).services() as services:
        yield Replays(Operating(services.engine, services.hash_key), Rejections(services.engine, services.vault))


@contextmanager
def requeueing(context: typer.Context) -> Iterator[Requeueing]:
    """A connection to the configured broker."""
    from notifier.broker.dead_letters import Requeueing

    settings = wiring(context).settings()
    with Requeueing.connect(settings.require("broker_url"), known_as=settings.broker_user) as broker:
        yield broker


def _selected(ids: list[UUID] | None, **conditions: Any) -> RejectedSelection:
    from notifier.operations import RejectedSelection

    is_filter = any(value is not None for value in conditions.values())
    if bool(ids) == is_filter:
        raise typer.BadParameter("say which: ids, or conditions as --code; not both")
    return RejectedSelection(tuple(ids or ()), **conditions)


def _never(raw: object) -> None:
    """A dry run publishes nothing."""


def _as_dict(letter: DeadLetter) -> dict[str, Any]:
    from notifier.broker.dead_letters import producers_own

    return {
        "id": letter.id,
        "queue": letter.queue,
        "reason": letter.reason,
        "died_at": letter.died_at,
        "broker_user": letter.raw.broker_user,
        "problem": letter.problem,
        "headers": {name: one_line(str(value)) for name, value in producers_own(letter.raw.headers).items()},
        "body": letter.raw.body,
    }


def _print_letter(found: DeadLetter) -> None:
    from notifier.broker.dead_letters import producers_own
    from notifier.cli.search import body_lines

    print_pairs(
        [
            ("id", found.id),
            ("died", f"{utc(found.died_at)} UTC" if found.died_at else ""),
            ("queue", found.queue or "not known"),
            ("reason", found.reason),
            ("published by", one_line(f"broker user {found.raw.broker_user}" if found.raw.broker_user else "")),
            ("size", f"{len(found.raw.body)} bytes"),
            *([("unreadable", found.problem)] if found.problem else []),
        ]
    )
    headers = producers_own(found.raw.headers)
    if headers:
        print_line("\nheaders", "bold")
        print_pairs((f"  {one_line(name)}", one_line(str(value))) for name, value in headers.items())
    print_line("\nbody", "bold")
    for line in body_lines(found.raw.body):
        print_line(f"  {line}")
    hint(f"\nnext: notifier queues dead replay {found.id}, or purge")
