"""`notifier recurring`: notifications that are sent again and again, by a plan, to a list of recipients."""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from uuid import UUID

import typer
from typer import Argument, Option

from notifier.cli.actions import SHOWN_SKIPPED, confirm, operator
from notifier.cli.arguments import GivenContext, read_context
from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.options import AsJson, DryRun, Variables, Why, Yes, future, grouped
from notifier.cli.output import (
    clean,
    columns,
    count,
    hint,
    is_terminal,
    print_json,
    print_line,
    print_list,
    print_pairs,
    print_table,
    utc,
    warn,
)
from notifier.cli.publish import Format, WrittenAs, file_format
from notifier.domain.errors import Fault, InvalidMessage
from notifier.domain.labels import run_in_words
from notifier.domain.local_days import local_time
from notifier.domain.statuses import Channel, Lane

if TYPE_CHECKING:
    from collections.abc import Iterator

    from notifier.cli.operator_services import OperatorServices
    from notifier.operations.recurring import ListedRecipients
    from notifier.store.recurring import ListedRecipient, PastRun, RecurringView

#: Past runs that `show` prints; --json has all runs that are kept.
SHOWN_RUNS = 10

Name = Annotated[str, Argument(metavar="NAME", help="Its name, or its ID.")]
OfProducer = Annotated[
    str | None, Option(help="The service it is sent for; needed if several have one of that name.")
]
List = Annotated[
    Path,
    Option(
        "--recipients",
        metavar="FILE",
        help="A .csv, .jsonl or .ndjson file with a column `to`; - for standard input.",
    ),
]


@dataclass(frozen=True)
class PlanOptions:
    cron: Annotated[str, Option(help="Minute, hour, day, month, weekday: '30 9 * * 1-5'.")]
    recipients: List
    template: Annotated[str, Option(help="Name of the template.")]
    channel: Annotated[Channel, Option(help="email or sms.")]
    written_as: WrittenAs = None
    zone: Annotated[str | None, Option(help="Time zone, such as Europe/Berlin; default: NOTIFIER_TIMEZONE.")] = (
        None
    )
    until: Annotated[datetime | None, future("Not after: 30d (from now), 2026-11-22 or RFC 3339.")] = None
    lane: Annotated[Lane, Option(help="How urgent the messages are.")] = Lane.BULK
    producer: Annotated[str, Option(help="The service it is sent for.")] = "cli"
    sender: Annotated[str | None, Option(help="Name of a sender identity in notifier.toml.")] = None
    locale: Annotated[str | None, Option(help="Language for lines without one.")] = None
    values: Variables = None


@grouped
def add(
    context: typer.Context,
    name: Annotated[str, Argument(help="A name for it: letters, digits, '.', '_' and '-'.")],
    *,
    plan: PlanOptions,
    why: Why = None,
    as_json: AsJson = False,
) -> None:
    """Send a template to a list of recipients on a schedule.

    The file has a line for each recipient; columns other than `to` and `locale` are variables for that recipient.
    """
    from notifier.domain.recurrence import Recurrence
    from notifier.store.recurring import RecurringPlan

    with wiring(context).services() as services:
        recurrence = Recurrence(plan.cron, plan.zone or services.settings.timezone.key, plan.until)
        typed = _typing(services, plan.channel, plan.template)
        made = RecurringPlan(
            producer=plan.producer,
            name=name,
            recurrence=recurrence,
            channel=plan.channel,
            lane=plan.lane,
            template=plan.template,
            context=typed(read_context(plan.values or ())),
            locale=plan.locale,
            sender=plan.sender,
        )
        listed = _read_list(plan.recipients, plan.written_as, typed)
        with _lines_named(listed):
            found = services.recurring.add(made, listed, operator=operator(), reason=why)
        times = services.recurring.times(services.recurring.view(found.id))
    _print_listed(found, as_json=as_json)
    if not as_json:
        print_line(f"next: {local_time(times[0], recurrence.zone)}")
        hint(f"next: notifier recurring show {name}")


def list_(context: typer.Context, producer: OfProducer = None, as_json: AsJson = False) -> None:
    """List recurring notifications: plan, next time in its zone, last run, recipients, state."""
    with wiring(context).services() as services:
        found = services.recurring.views(producer)
    print_list(
        found,
        {
            **columns("name"),
            "producer": lambda view: f"{view.producer}{' (test)' if view.is_test else ''}",
            **columns("cron", "zone"),
            "next": _next,
            "last run": lambda view: view.run_at and run_in_words(view.run_accepted, view.run_refused),
            **columns("recipients", "state"),
        },
        as_json=as_json,
        noun="recurring notification",
        empty="there are no recurring notifications. next: notifier recurring add NAME --help",
        next_step="notifier recurring show NAME",
        droppable=("producer", "zone", "recipients", "cron"),
        styles={"state": lambda view: "yellow" if view.note or view.run_refused else ""},
    )


def show(context: typer.Context, name: Name, producer: OfProducer = None, as_json: AsJson = False) -> None:
    """Show one: what it sends, its next five times, its last run."""
    with wiring(context).services() as services:
        story = services.recurring.story(_find(services, name, producer))
    if as_json:
        print_json(story)
        return
    view, times = story.recurring, story.times
    print_pairs(
        [
            *(("id", view.id), ("name", view.name), ("state", view.state), ("producer", view.producer)),
            *(("channel", view.channel), ("lane", view.lane), ("template", view.template)),
            *(("sender", view.sender), ("locale", view.locale), ("recipients", view.recipients)),
            *(("plan", f"{view.cron}  {view.zone}"), ("in words", view.recurrence.in_words())),
            *(("until", view.until and utc(view.until)), ("last run", _last_run(view)), ("note", view.note)),
        ]
    )
    for fault in view.run_faults:
        told = Fault(fault["field"], fault["code"], fault["problem"], fault["fix"])
        warn(f"line {fault['line']}: {clean(str(told))}")
    if times and view.state != "paused":
        print_line()
        print_table(("next", "UTC"), [(local_time(moment, view.zone), utc(moment)) for moment in times])
    if story.runs:
        print_line()
        rows = [
            (local_time(run.run_at, view.zone), _result(run), run.note or "") for run in story.runs[:SHOWN_RUNS]
        ]
        print_table(("past runs", "result", "note"), rows)
    hint(f"next: notifier search --reference {view.name}")


def pause(context: typer.Context, name: Name, producer: OfProducer = None, why: Why = None) -> None:
    """Send nothing until it is resumed. A run in progress stops after its current portion."""
    with wiring(context).services() as services:
        services.recurring.pause(_find(services, name, producer).id, operator=operator(), reason=why)
    hint(f"{name} is paused. next: notifier recurring resume {name}")


def resume(context: typer.Context, name: Name, producer: OfProducer = None, why: Why = None) -> None:
    """Go on with its next time. Times missed in the meantime are not made up for."""
    with wiring(context).services() as services:
        services.recurring.resume(_find(services, name, producer).id, operator=operator(), reason=why)
    hint(f"{name} goes on. next: notifier recurring show {name}")


def remove(
    context: typer.Context, name: Name, producer: OfProducer = None, why: Why = None, yes: Yes = False
) -> None:
    """Delete it and its list. Notifications that it has sent stay."""
    with wiring(context).services() as services:
        view = _find(services, name, producer)
        _ask(f"delete {name} and its list of {view.recipients}?", yes=yes)
        services.recurring.remove(view.id, operator=operator(), reason=why)
    hint(f"{name} is deleted")


def run(
    context: typer.Context, name: Name, producer: OfProducer = None, why: Why = None, yes: Yes = False
) -> None:
    """Send it once now, outside its schedule. A worker begins within a minute."""
    with wiring(context).services() as services:
        view = _find(services, name, producer)
        _ask(f"send {name} to {count(view.recipients, 'recipient')} now?", yes=yes)
        services.recurring.run(view.id, operator=operator(), reason=why)
    hint(f"{name} is sent within a minute. next: notifier recurring show {name}")


def recipients(
    context: typer.Context,
    name: Name,
    file: Annotated[Path, Option("--file", metavar="FILE", help="The new list, in the format of `add`.")],
    written_as: WrittenAs = None,
    producer: OfProducer = None,
    why: Why = None,
    as_json: AsJson = False,
) -> None:
    """Replace its list of recipients. The old list is deleted."""
    with wiring(context).services() as services:
        view = _find(services, name, producer)
        listed = _read_list(file, written_as, _typing(services, view.channel, view.template))
        with _lines_named(listed):
            found = services.recurring.replace_list(view.id, listed, operator=operator(), reason=why)
    _print_listed(found, as_json=as_json)


def forget(
    context: typer.Context,
    address: Annotated[str, Argument(metavar="ADDRESS", help="E-mail address or number.")],
    why: Why = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Remove a recipient from every list; with --dry-run, say which lists they are on."""
    with wiring(context).services() as services:
        found = services.recurring.lists_of(address)
        if not dry_run:
            services.recurring.forget(address, operator=operator(), reason=why)
    print_list(
        found,
        columns("name", "producer", "template"),
        as_json=as_json,
        noun="list",
        empty="on no list",
        next_step="" if dry_run else "notifier search --recipient ADDRESS, for what was sent",
    )


def _find(services: OperatorServices, name: str, producer: str | None) -> RecurringView:
    try:
        return services.recurring.view(UUID(name))
    except ValueError:
        return services.recurring.find(name, producer)


def _ask(question: str, *, yes: bool) -> None:
    if not yes and is_terminal(sys.stdin):
        confirm(question)


def _typing(
    services: OperatorServices, channel: Channel, template: str
) -> Callable[[GivenContext], dict[str, Any]]:
    """A function that gives plain text the types that the template declares."""
    from notifier.cli.template_types import VariableTypes

    types = VariableTypes(services.settings.templates)
    return lambda given: types.typed(channel, template, given.values, given.texts)


def _read_list(
    file: Path, written_as: Format | None, typed: Callable[[GivenContext], dict[str, Any]]
) -> list[ListedRecipient]:
    """The recipients in a file. If lines cannot be read, the command names all of them and ends."""
    from pydantic import ValidationError

    from notifier.cli.files import opened
    from notifier.cli.message_files import UnreadableFile, read_csv, read_json_lines
    from notifier.domain.validation import faults_of
    from notifier.operations.recurring import RecipientLine

    is_csv = file_format(file, written_as) is Format.CSV
    found: list[ListedRecipient] = []
    bad: list[tuple[int, Fault]] = []
    with opened(file, newline="" if is_csv else "\n") as text:
        try:
            for line in read_csv(text, RecipientLine.model_fields) if is_csv else read_json_lines(text):
                try:
                    listed = RecipientLine.model_validate(line.entry).listed(line.number)
                except ValidationError as error:
                    bad += [(line.number, fault) for fault in line.faults or map(_of_list, faults_of(error))]
                else:
                    bad += [(line.number, fault) for fault in line.faults]
                    context = typed(GivenContext(dict(listed.context), line.texts))
                    found.append(replace(listed, context=context))
        except UnreadableFile as error:
            raise typer.BadParameter(str(error), param_hint="FILE") from None
    for number, fault in bad[:SHOWN_SKIPPED]:
        warn(f"{file}:{number}: {clean(str(fault))}")
    if bad:
        warn(f"{len(bad)} faults in all; nothing was changed")
        raise typer.Exit(FAILED)
    return found


def _of_list(fault: Fault) -> Fault:
    """The fault in the words of a list, whose lines have fewer fields than a message."""
    if fault.code != "unknown_field":
        return fault
    fix = "Remove it; if it is a variable of the template, move it into context"
    return replace(fault, problem="is not a field of a list", fix=fix)


@contextmanager
def _lines_named(listed: Sequence[ListedRecipient]) -> Iterator[None]:
    """Faults name lines of the file instead of positions in the list."""
    try:
        yield
    except InvalidMessage as error:
        raise InvalidMessage([_of_line(fault, listed) for fault in error.faults]) from None


def _of_line(fault: Fault, listed: Sequence[ListedRecipient]) -> Fault:
    first, _, rest = fault.field.partition(".")
    index, _, name = rest.partition(".")
    if first != "recipients" or not index:
        return fault
    return replace(fault, field=f"line {listed[int(index)].position}, {name}")


def _print_listed(found: ListedRecipients, *, as_json: bool) -> None:
    if as_json:
        print_json(found)
        return
    print_line(f"{count(found.recipients, 'recipient')} on the list")
    for one in found.refused[:SHOWN_SKIPPED]:
        warn(f"line {one.line}: {clean(str(one.faults[0]))}")
    if found.refused:
        warn(f"{len(found.refused)} of them would be refused today; they are kept, and tried with each run")
    hint(f"operator record {found.record_id}")


def _next(view: RecurringView) -> str | None:
    return None if view.next_at is None or view.state == "paused" else local_time(view.next_at, view.zone)


def _result(run: PastRun) -> str:
    return run_in_words(run.accepted, run.refused) + (", by hand" if run.by_hand else "")


def _last_run(view: RecurringView) -> str | None:
    if view.run_at is None:
        return None
    so_far = "" if view.run_finished_at is not None else f" of {view.recipients}, under way"
    return f"{local_time(view.run_at, view.zone)}: {run_in_words(view.run_accepted, view.run_refused)}{so_far}"
