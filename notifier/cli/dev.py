"""`notifier demo`: runs the whole service on this machine for a minute, without any set-up."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer import Option

from notifier.cli.options import AsJson
from notifier.cli.output import hint, one_line, print_json, print_line, progress_bar, warn
from notifier.cli.up import program_to_type
from notifier.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from notifier.dev.demo import DemoOutcome, DemoReport, Planned
    from notifier.store.search import Story

#: The console of `up`, if the port is free.
_CONSOLE = "http://127.0.0.1:8080/"


def demo(
    folder: Annotated[Path | None, Option(help="Use this empty folder and keep it: mails, logs, data.")] = None,
    as_json: AsJson = False,
) -> None:
    """Run the whole service in a temporary folder, send a shop's examples through it, and show the outcome.

    Needs no settings and changes none of yours. Exits 0 only if every message ended as expected.
    """
    from notifier.dev.demo import run_demo

    if folder is not None and folder.exists() and any(folder.iterdir()):
        raise ConfigurationError(f"{folder} is not empty; give an empty folder, or leave --folder out")
    with _scratch(folder) as path, ExitStack() as stack:
        bar: Callable[[str, int], None] | None = None

        def show(done: int, total: int) -> None:
            nonlocal bar
            bar = bar or stack.enter_context(progress_bar(total))
            bar("messages", done)

        report = run_demo(path, say=lambda text: hint(f"· {text}"), progress=show)
    if as_json:
        print_json(_as_json(report))
    else:
        _print_report(report)
        if folder:
            hint(f"kept: mails in {folder / 'mail'}, logs in {folder / 'logs'}")
    raise typer.Exit(0 if report.ok else 1)


@contextmanager
def _scratch(folder: Path | None) -> Iterator[Path]:
    """The given folder, created if it is missing; or a temporary folder, which is deleted at the end."""
    from notifier.dev.machine import make_temporary_folder

    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        yield folder.absolute()
        return
    temporary = make_temporary_folder()
    try:
        yield temporary
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def _as_json(report: DemoReport) -> dict[str, Any]:
    return {
        "ok": report.ok,
        "notifications": [_outcome_json(outcome) for outcome in report.outcomes],
        "rejected": report.rejected,
        "duplicates": report.duplicates,
        "problems": list(report.problems),
        "seconds": round(report.seconds, 2),
    }


def _outcome_json(outcome: DemoOutcome) -> dict[str, Any]:
    found = outcome.story.notification if outcome.story else None
    planned = {name: getattr(outcome.planned, name) for name in ("channel", "template", "locale", "to")}
    reached = {"status": found and found.status, "reason": found and found.reason}
    return {"id": found and str(found.id), **planned, **reached, "attempts": found.attempt_count if found else 0}


def _print_report(report: DemoReport) -> None:
    for problem in report.problems:
        warn(f"✗ {problem}")
    if report.ok:
        print_line(f"everything ended as expected, in {report.seconds:.1f} s", "bold green")
    for outcome in report.outcomes:
        _print_summary_line(outcome)
    print_line(f"  {report.rejected} rejected message (malformed JSON), {report.duplicates} duplicate")
    for outcome in report.outcomes:
        if outcome.planned.is_told and outcome.story:
            _print_story(outcome.planned, outcome.story)
    if report.ok:
        hint(f"\nnext: `{program_to_type()} up` runs the same service and keeps it running, with its console")
        hint(f"at {_CONSOLE}")


def _print_story(planned: Planned, story: Story) -> None:
    from notifier.operations.timeline import timeline

    print_line(f"\n{planned.template} {planned.title}, to {planned.to}", "bold")
    steps = timeline(story)
    for step in steps:
        print_line(f"  +{(step.at - steps[0].at).total_seconds():.3f} s  {one_line(step.text)}")


def _print_summary_line(outcome: DemoOutcome) -> None:
    planned, story = outcome.planned, outcome.story
    status = story.notification.status if story else "missing"
    number = story.notification.attempt_count if story else 0
    attempts = "1 attempt" if number == 1 else f"{number} attempts"
    reason = f", {story.notification.reason}" if story and story.notification.reason else ""
    mark, style = ("✓", "green") if outcome.is_right else ("✗", "bold red")
    print_line(f"  {mark} {status:<9} {planned.template} {planned.title} ({attempts}{reason})", style)
