"""`notifier queues dead`: messages that the broker gave up on."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Argument, Option

from notifier.cli.actions import SelectionEnding, confirm, operator
from notifier.cli.context import wiring
from notifier.cli.options import AsJson, Limit, Raw, Why, Yes, grouped
from notifier.cli.output import (
    columns,
    hint,
    is_terminal,
    one_line,
    print_content,
    print_json,
    print_list,
    print_pairs,
    utc,
)
from notifier.domain.errors import NotFound

if TYPE_CHECKING:
    from notifier.broker.dead_letters import DeadLetter, RawPublisher

#: How many dead letters are searched for one id.
SEARCHED_LETTERS = 10_000


@dataclass(frozen=True, slots=True)
class DeadOptions:
    """Which messages of the dead queue, and how to act on them."""

    ids: Annotated[list[str] | None, Argument(metavar="ID…", help="IDs as shown by `list`.")] = None
    everything: Annotated[bool, Option("--all", help="Every message of the dead queue.")] = False
    why: Why = None
    yes: Yes = False
    as_json: AsJson = False


def list_(context: typer.Context, limit: Limit = 50, as_json: AsJson = False) -> None:
    """List the messages that the broker gave up on, oldest first. They stay where they are."""
    try:
        with requeueing(context) as broker:
            found = broker.dead_letters(limit)
    except NotFound as none:
        found = []
        hint(str(none))
    print_list(
        found,
        {**columns("id", "received=died_at", "queue", "reason"), "bytes": lambda letter: len(letter.raw.body)},
        as_json=as_json,
        to_json=_as_dict,
        noun="dead letter",
        empty="the dead queue is empty",
        next_step="notifier queues dead show ID, then replay or purge",
        droppable=("bytes", "reason"),
    )


def show(
    context: typer.Context,
    letter: Annotated[str, Argument(metavar="ID", help="ID as shown by `list`.")],
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


@grouped
def replay(context: typer.Context, *, options: DeadOptions) -> None:
    """Publish messages again to the queues they came from, and remove them from the dead queue."""
    next_step = "notifier rejected list --limit 10, which shows those that are still wrong"
    _empty(context, options, SelectionEnding("replay", "replayed", next_step))


@grouped
def purge(context: typer.Context, *, options: DeadOptions) -> None:
    """Delete messages of the dead queue for good."""
    _empty(context, options, SelectionEnding("delete", "deleted"))


def _empty(context: typer.Context, options: DeadOptions, ending: SelectionEnding) -> None:
    if bool(options.ids) == options.everything:
        raise typer.BadParameter("choose messages: give IDs, or --all")
    with wiring(context).services() as services, requeueing(context) as broker:
        # Checks whether there is such a queue, before anything is recorded or asked.
        waiting = broker.dead_letter_count()
        if options.everything and waiting > 1 and not options.yes and is_terminal(sys.stdin):
            confirm(f"{ending.verb} {waiting}?")
        replays = services.replays
        act = replays.replay_dead if ending.verb == "replay" else replays.purge_dead
        result = act(options.ids or None, broker, operator=operator(), reason=options.why)
        ending.report(result, as_json=options.as_json)


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
