"""Runs every operator action in the same way: a dry run, or confirmation, progress, report and operator record."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import typer

from notifier.cli.exit_codes import FAILED
from notifier.cli.options import ActionOptions
from notifier.cli.output import (
    hint,
    is_terminal,
    one_line,
    print_json,
    print_line,
    print_table,
    progress_bar,
    status_style,
    warn,
)
from notifier.domain.errors import ServiceUnavailable
from notifier.domain.labels import REASONS

if TYPE_CHECKING:
    from notifier.operations import ActionCounts, ActionResult

#: Maximum number of skipped items shown to people; `--json` has all.
SHOWN_SKIPPED = 20

R = TypeVar("R")


def operator() -> str:
    """Who acts: the account of this process, by its uid, whatever LOGNAME says.

    Without an account name it is "uid 1234", as in many containers. Behind sudo it is "root (sudo: ann)": only a
    root process can choose SUDO_USER, and root could use any account anyway.
    """
    uid = os.getuid()
    before_sudo = _account(os.environ.get("SUDO_USER", "")) if uid == 0 else None
    name = _account(uid) or f"uid {uid}"
    return f"{name} (sudo: {before_sudo})" if before_sudo else name


def _account(which: int | str) -> str | None:
    """The name of an account, given its uid or name. None: there is none, or its name looks like one of our
    additions to names, such as "(OIDC)"."""
    import pwd  # only POSIX systems have it, but this module is imported elsewhere as well

    try:
        name = (pwd.getpwuid(which) if isinstance(which, int) else pwd.getpwnam(which)).pw_name
    except (KeyError, ValueError):
        return None
    return None if "(" in name else name


def run_action(
    perform: Callable[..., R], ending: ActionEnding[R], options: ActionOptions, *, asks: bool = True
) -> R:
    """Carry an action out, or only look if `--dry-run` is given; then report.

    `perform` is called with `operator`, and with `dry_run=True` or with `reason` and `progress`. `asks`: somebody
    at a terminal must confirm, unless `--yes` is given.
    """
    perform = partial(perform, operator=operator())
    if options.dry_run:
        result = perform(dry_run=True)
    else:
        has_to_ask = asks and not options.yes and is_terminal(sys.stdin)
        total = _confirmed(perform(dry_run=True), ending, options) if has_to_ask else None
        with progress_bar(total, hidden=options.as_json) as show:

            def progress(tally: ActionCounts) -> None:
                show(f"{tally.changed} {ending.done}", tally.matched)

            try:
                result = perform(reason=options.why, progress=progress)
            except (KeyboardInterrupt, ServiceUnavailable):
                hint(f"Stopped early; the pages up to here are {ending.done}. Run it again to go on.")
                raise
    ending.report(result, as_json=options.as_json)
    return result


def _confirmed(found: R, ending: ActionEnding[R], options: ActionOptions) -> int:
    """How many items it will look at, after somebody has agreed."""
    if ending.count(found) >= ending.asks_from:
        if not options.as_json:
            ending.preview(found)
        confirm(ending.question(found))
    return ending.total(found)


def confirm(question: str) -> None:
    """End the command unless the answer is yes."""
    if not typer.confirm(question, err=True):
        hint("nothing was done")
        raise typer.Exit(FAILED)


class ActionEnding(Generic[R]):
    """What an operator reads before an action is confirmed, and when it is done. This class is for results with a
    `record_id`; results of notifications and rejected messages have a subclass."""

    def __init__(self, verb: str, done: str, next_step: str = "", *, asks_from: int = 2) -> None:
        """`next_step` is shown if anything was changed. Fewer than `asks_from` items need no confirmation."""
        self.verb, self.done, self.next_step, self.asks_from = verb, done, next_step, asks_from

    def count(self, result: Any) -> int:
        return int(result.changed)

    def total(self, result: Any) -> int:
        """How many items are looked at, for the progress bar."""
        return self.count(result)

    def question(self, result: R) -> str:
        return f"{self.verb} {self.count(result)}?"

    def has_failed(self, result: Any) -> bool:
        """Whether the command must exit with 1."""
        return False

    def preview(self, result: R) -> None:
        print_line(f"{self.count(result)} would be {self.done}")

    def outcome(self, result: R) -> None:
        print_line(f"{self.count(result)} {self.done}")

    def advise(self, result: R) -> None:
        if self.next_step and self.count(result):
            hint(f"next: {self.next_step}")

    def report(self, result: Any, *, as_json: bool) -> None:
        """Print the result. Exits with 1 if the action failed."""
        if as_json:
            print_json(result)
        elif result.record_id is None:
            self.preview(result)
        else:
            self.outcome(result)
            hint(f"operator record {result.record_id}")
            self.advise(result)
        if self.has_failed(result):
            raise typer.Exit(FAILED)


class SelectionEnding(ActionEnding["ActionResult"]):
    """For actions on notifications, rejected messages and suppressions, which share one type of result."""

    def total(self, result: ActionResult) -> int:
        return result.matched

    def has_failed(self, result: ActionResult) -> bool:
        """Whether an item that was named by its id was skipped."""
        return bool(result.skipped)

    def preview(self, result: ActionResult) -> None:
        if result.groups:
            rows = [
                (
                    g.count,
                    g.status,
                    g.reason,
                    g.provider,
                    g.template,
                    g.expired or None,
                    REASONS.get(g.reason or ""),
                )
                for g in result.groups
            ]
            styles = {1: [status_style(one.status) for one in result.groups]}
            headers = ("count", "status", "reason", "provider", "template", "expired", "in words")
            print_table(headers, rows, styles, droppable=("in words", "provider"))
        if result.codes:
            print_table(("count", "first reason"), [(one.count, one.code) for one in result.codes])
        _print_skipped(result)
        print_line(_counts(result, f"would be {self.done}"))

    def outcome(self, result: ActionResult) -> None:
        print_line(_counts(result, self.done))
        _print_skipped(result)


def _counts(result: ActionResult, verb: str) -> str:
    parts = [f"{result.changed} {verb}"]
    if result.expired:
        parts.append(f"{result.expired} skipped because of their expires_at")
    others = result.matched - result.changed - result.expired
    if others:
        parts.append(f"{others} left alone")
    if result.suppressed:
        parts.append(f"{result.suppressed} of them would end as suppressed")
    return ", ".join(parts)


def _print_skipped(result: ActionResult) -> None:
    for skipped in result.skipped[:SHOWN_SKIPPED]:
        warn(f"{one_line(skipped.id)}  {one_line(skipped.why)}")
    more = len(result.skipped) - SHOWN_SKIPPED
    if more > 0:
        warn(f"… and {more} more; --json has all of them")
