"""`notifier queues dead`: messages that the broker gave up on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from notifier.cli.actions import SelectionEnding, confirm, operator
from notifier.cli.context import wiring
from notifier.cli.options import Limit, Raw, Why, Yes
from notifier.cli.output import (
    AsJson,
    hint,
    is_terminal,
    one_line,
    print_content,
    print_json,
    print_list,
    print_pairs,
    utc,
    when,
)
from notifier.domain.errors import NotFound

if TYPE_CHECKING:
    from notifier.broker.dead_letters import DeadLetter, RawPublisher
    from notifier.operations import Replays

#: Dead letters that are searched for one of a given id.
SEARCHED_LETTERS = 10_000

DeadIds = Annotated[
    list[str] | None, typer.Argument(metavar="ID…", help="IDs as shown by `list`.", show_default=False)
]
All = Annotated[bool, typer.Option("--all", help="Every message of the dead queue.")]


def add_to_queues(queues: typer.Typer) -> None:
    """Add `notifier queues dead`."""
    dead = typer.Typer(
        no_args_is_help=True, help="Messages that RabbitMQ gave up on because they were redelivered too often."
    )
    dead.command("list")(dead_list)
    dead.command("show")(dead_show)
    dead.command("replay")(dead_replay)
    dead.command("purge")(dead_purge)
    queues.add_typer(dead, name="dead")


def dead_list(context: typer.Context, limit: Limit = 50, as_json: AsJson = False) -> None:
    """List the messages that the broker gave up on, oldest first. They stay where they are.

    Times are UTC.
    """
    try:
        with requeueing(context) as broker:
            found = broker.dead_letters(limit)
    except NotFound as none:
        found = []
        hint(str(none))
    print_list(
        found,
        {
            "id": lambda letter: letter.id,
            "received": lambda letter: letter.died_at and when(letter.died_at),
            "queue": lambda letter: letter.queue,
            "reason": lambda letter: letter.reason,
            "bytes": lambda letter: len(letter.raw.body),
        },
        as_json=as_json,
        to_json=_as_dict,
        noun="dead letter",
        empty="the dead queue is empty",
        next_step="notifier queues dead show ID, then replay or purge",
        droppable=("bytes", "reason"),
    )


def dead_show(
    context: typer.Context,
    letter: Annotated[str, typer.Argument(metavar="ID", help="ID as shown by `list`.", show_default=False)],
    raw: Raw = False,
    as_json: AsJson = False,
) -> None:
    """Show one message that the broker gave up on. It stays where it is."""
    with requeueing(context) as broker:
        found = next((one for one in broker.dead_letters(SEARCHED_LETTERS) if one.id == letter), None)
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
    """Publish messages again to the queues they came from, and remove them from the dead queue."""
    ending = SelectionEnding(
        "replay", "replayed", "notifier rejected list --limit 10, which shows those that are still wrong"
    )
    _empty(context, ids, everything, ending, why=why, yes=yes, as_json=as_json)


def dead_purge(
    context: typer.Context,
    ids: DeadIds = None,
    everything: All = False,
    why: Why = None,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Delete messages of the dead queue for good."""
    ending = SelectionEnding("delete", "deleted")
    _empty(context, ids, everything, ending, why=why, yes=yes, as_json=as_json)


def _empty(
    context: typer.Context,
    ids: list[str] | None,
    everything: bool,
    ending: SelectionEnding,
    *,
    why: str | None,
    yes: bool,
    as_json: bool,
) -> None:
    if bool(ids) == everything:
        raise typer.BadParameter("choose messages: give IDs, or --all")
    with replays(context) as found, requeueing(context) as broker:
        # Before anything is recorded or asked: is there such a queue at all?
        waiting = broker.dead_letter_count()
        if everything and waiting > 1 and not yes and is_terminal(sys.stdin):
            confirm(f"{ending.verb} {waiting}?")
        act = found.replay_dead if ending.verb == "replay" else found.purge_dead
        ending.report(act(ids or None, broker, operator=operator(), reason=why), as_json=as_json)


@contextmanager
def replays(context: typer.Context) -> Iterator[Replays]:
    """The actions, on the configured database."""
    from notifier.operations import Replays
    from notifier.store.operator_actions import Operating
    from notifier.store.rejected import Rejections

    with wiring(context).services() as services:
        yield Replays(Operating(services.engine, services.hash_key), Rejections(services.engine, services.vault))


@contextmanager
def requeueing(context: typer.Context) -> Iterator[RawPublisher]:
    """A connection to the configured broker."""
    from notifier.broker.dead_letters import RawPublisher

    settings = wiring(context).settings()
    with RawPublisher.connect(settings.require("broker_url"), known_as=settings.broker_user) as broker:
        yield broker


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

    print_pairs(
        [
            ("id", found.id),
            ("died", f"{utc(found.died_at)} UTC" if found.died_at else ""),
            ("queue", found.queue or "not known"),
            ("reason", found.reason),
            ("published by", one_line(f"broker user {found.raw.broker_user}" if found.raw.broker_user else "")),
            ("size", f"{len(found.raw.body)} bytes"),
            ("unreadable", found.problem or ""),
        ]
    )
    print_content(producers_own(found.raw.headers), found.raw.body)
    hint(f"\nnext: notifier queues dead replay {found.id}, or purge")
