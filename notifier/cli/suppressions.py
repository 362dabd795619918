"""`notifier suppressions`: who must not be sent to, since when, and why."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from notifier.cli import held_suppressions
from notifier.cli.arguments import channel_of, read_future
from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED, report
from notifier.cli.held_suppressions import OfProvider, OfSender
from notifier.cli.labels import SUPPRESSIONS
from notifier.cli.operating import DryRun, OfChannel, Since, Until, Why, Yes, operator
from notifier.cli.output import AsJson, clean, hint, print_json, print_line, print_table, utc, when
from notifier.cli.publish import opened_csv
from notifier.cli.search import Before, Limit
from notifier.domain.errors import Fault, InvalidMessage
from notifier.domain.statuses import Channel, SuppressionReason

if TYPE_CHECKING:
    from notifier.feedback.suppression_csv import Bad
    from notifier.feedback.suppressions import Suppressions
    from notifier.store.suppressions import SuppressionView

PANEL = "Act"

#: Bad lines of a file that are shown to people; `--json` has them all.
SHOWN_BAD = 50

Address = Annotated[
    str, typer.Argument(help="E-mail address, or number as +15550100123.", metavar="ADDRESS", show_default=False)
]
Scope = Annotated[str, typer.Option(help="global, sender:IDENTITY or category:NAME.")]
OfReason = Annotated[SuppressionReason | None, typer.Option(help="Only those of this reason.")]
Ended = Annotated[bool, typer.Option("--ended", help="Those that have ended, too.")]


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    suppressions = typer.Typer(no_args_is_help=True, help="Recipients who must not be sent to.")
    suppressions.command("list")(list_suppressions)
    suppressions.command("show")(show)
    suppressions.command("add")(add)
    suppressions.command("lift")(lift)
    held_suppressions.add_to_suppressions(suppressions)
    suppressions.command("import")(import_file)
    suppressions.command("export")(export)
    app.add_typer(suppressions, name="suppressions", rich_help_panel=PANEL)


@contextmanager
def _suppressions(context: typer.Context) -> Iterator[Suppressions]:
    with wiring(context).services() as services, _refusing():
        yield services.suppressions


@contextmanager
def _refusing() -> Iterator[None]:
    try:
        yield
    except InvalidMessage as error:
        report("that is not right; nothing was done")
        for fault in error.faults:
            sys.stderr.write(f"  {clean(str(fault))}\n")
        raise typer.Exit(FAILED) from None


def list_suppressions(
    context: typer.Context,
    channel: OfChannel = None,
    scope: Annotated[str | None, typer.Option(help="global, sender:IDENTITY or category:NAME.")] = None,
    reason: OfReason = None,
    source: Annotated[str | None, typer.Option(help="Who said so, as provider:twilio.")] = None,
    since: Since = None,
    until: Until = None,
    ended: Ended = False,
    limit: Limit = 50,
    before: Before = None,
    as_json: AsJson = False,
) -> None:
    """List suppressions, newest first, as hashes: addresses are not kept.

    Times are UTC.
    """
    from notifier.store.suppressions import SuppressionFilter

    wanted = SuppressionFilter(channel, scope, reason, source, since, until, with_ended=ended)
    with _suppressions(context) as suppressions:
        found, following = suppressions.page(wanted, limit=limit, before=before)
    if as_json:
        print_json(found)
        return
    if not found:
        hint("nothing found; that was the last page" if before else "nobody is suppressed like that")
        return
    headers = ("since", "channel", "scope", "reason", "source", "until", "state", "hash", "detail")
    print_table(headers, [_row(one) for one in found], droppable=("detail", "hash", "source", "state"))
    more = f"; the next page: the same with --before {following}" if following else ""
    hint(f"{_count(len(found), 'suppression')}{more}\nnext: notifier suppressions show ADDRESS")


def _row(one: SuppressionView) -> tuple[str, ...]:
    return (
        when(one.created_at),
        one.channel,
        one.scope,
        one.reason,
        one.source,
        utc(one.expires_at),
        one.state,
        one.address_hash[:12],
        one.detail or "",
    )


def show(context: typer.Context, address: Address, channel: OfChannel = None, as_json: AsJson = False) -> None:
    """Tell whether somebody is suppressed, and everything there ever was: since when, why, who ended it.

    Times are UTC.
    """
    with _suppressions(context) as suppressions:
        found = suppressions.find(channel or channel_of(address), address)
    if as_json:
        print_json(found)
        return
    if not found:
        hint("they are not suppressed, and never were")
        return
    is_active = any(one.state == "active" for one in found)
    print_line("suppressed" if is_active else "not suppressed any more", "bold")
    for one in found:
        _print_entry(one)
    hint("next: notifier suppressions lift ADDRESS --scope SCOPE" if is_active else "")


def _print_entry(one: SuppressionView) -> None:
    words = SUPPRESSIONS.get(one.reason, one.reason)
    print_line(f"{utc(one.created_at)}  {one.state}  {one.scope}: {words} ({one.reason}), by {clean(one.source)}")
    for name, value in (
        ("why", one.detail),
        ("notification", one.notification_id and str(one.notification_id)),
        ("because of", " and ".join(filter(None, (one.provider and f"provider {one.provider}", _sender(one))))),
        ("ends", utc(one.expires_at)),
        ("ended", f"{utc(one.lifted_at)} by {one.lifted_by}" if one.lifted_at else ""),
        ("because", one.lifted_detail),
    ):
        if value:
            print_line(f"    {name}: {clean(value)}")


def _sender(one: SuppressionView) -> str:
    return f"sender {one.sender}" if one.sender else ""


def add(
    context: typer.Context,
    address: Address,
    reason: Annotated[SuppressionReason, typer.Option(help="Why.")] = SuppressionReason.MANUAL,
    scope: Scope = "global",
    expires: Annotated[
        datetime | None,
        typer.Option(parser=read_future, metavar="TIME", help="It ends then: 90d from now, or a time."),
    ] = None,
    channel: OfChannel = None,
    why: Why = None,
    as_json: AsJson = False,
) -> None:
    """Send nothing to somebody any more."""
    with _suppressions(context) as suppressions:
        is_new = suppressions.add(
            channel=channel or channel_of(address),
            address=address,
            scope=scope,
            reason=reason,
            source=f"operator:{operator()}",
            expires_at=expires,
            detail=why,
        )
    if as_json:
        print_json({"new": is_new})
    hint("suppressed from now on" if is_new else "they were suppressed like that already")
    hint("next: notifier suppressions show ADDRESS")


def lift(
    context: typer.Context,
    address: Annotated[
        str | None, typer.Argument(help="Address or number.", metavar="[ADDRESS]", show_default=False)
    ] = None,
    scope: Annotated[
        str | None, typer.Option(help="global (default for an address), sender:IDENTITY or category:NAME.")
    ] = None,
    reason: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Only those of this reason; or, in words, why they are lifted."),
    ] = None,
    source: Annotated[
        str | None, typer.Option(help="Instead: all that this one made, as bounce or provider:smtp.")
    ] = None,
    since: Since = None,
    until: Until = None,
    provider: OfProvider = None,
    sender: OfSender = None,
    other_keys: Annotated[
        bool,
        typer.Option("--other-keys", help="Instead: all that were made under a hash key that is lost."),
    ] = False,
    channel: OfChannel = None,
    why: Why = None,
    dry_run: DryRun = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """End a suppression, or all that one source made since a time: they may be sent to again. Stays on record.

    Exits 1 if there was none.
    """
    if [address is not None, other_keys, source is not None].count(True) != 1:
        raise typer.BadParameter("give one of them: --source, an address, or --other-keys", param_hint="ADDRESS")
    of_reason, why = _reason_or_why(reason, why, may_be_why=source is not None)
    if source is not None:
        from notifier.store.suppressions import SuppressionFilter

        wanted = SuppressionFilter(
            channel, scope, of_reason, source, since, until, provider=provider, sender=sender
        )
        held_suppressions.lift_all(context, wanted, why, dry_run=dry_run, yes=yes, as_json=as_json)
        return
    if dry_run or since or until or provider or sender:
        raise typer.BadParameter("--dry-run, --since, --until, --provider and --sender go with --source")
    _lift_one(context, address, scope or "global", of_reason, channel, why, as_json=as_json)


def _reason_or_why(
    reason: str | None, why: str | None, *, may_be_why: bool
) -> tuple[SuppressionReason | None, str | None]:
    """`--reason` names one of the closed list; several words are why it is done."""
    if reason is None:
        return None, why
    if reason in list(SuppressionReason):
        return SuppressionReason(reason), why
    if may_be_why and " " in reason.strip() and why is None:
        return None, reason.strip()
    known = ", ".join(SuppressionReason)
    raise typer.BadParameter(
        f"{reason!r} is none of {known}; why you do it goes into --why", param_hint="--reason"
    )


def _lift_one(
    context: typer.Context,
    address: str | None,
    scope: str,
    reason: SuppressionReason | None,
    channel: Channel | None,
    why: str | None,
    *,
    as_json: bool,
) -> None:
    """One recipient's, or those under a key that is lost."""
    source = f"operator:{operator()}"
    with _suppressions(context) as suppressions:
        if address is None:
            count = suppressions.lift_other_keys(source=source, detail=why)
        else:
            of = channel or channel_of(address)
            given = {"channel": of, "address": address, "scope": scope}
            count = int(suppressions.lift(**given, source=source, reason=reason, detail=why))  # type: ignore[arg-type]
    if as_json:
        print_json({"lifted": count})
    if not count:
        hint("there was none of that scope and reason. next: notifier suppressions show ADDRESS")
        raise typer.Exit(FAILED)
    hint(f"{count} lifted" if address is None else "lifted: they may be sent to again")
    hint("next: notifier retry ID, for what was suppressed meanwhile and is still wanted")


def import_file(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A CSV file, or a list; - is standard input.", show_default=False)],
    reason: Annotated[SuppressionReason, typer.Option(help="Of lines that give none.")] = SuppressionReason.MANUAL,
    scope: Scope = "global",
    channel: OfChannel = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Add everybody in a file. What is wrong is told line by line, and everything else is added.

    Exits 1 if a line is wrong.
    """
    from notifier.feedback.suppression_csv import SuppressionDefaults

    bad: list[Bad] = []
    shown = 0

    def tell(one: Bad) -> None:
        nonlocal shown
        shown += 1
        if as_json:
            bad.append(one)
        elif shown <= SHOWN_BAD:
            for fault in one.faults:
                print_line(clean(f"line {one.line}: {_fault(fault)}"), "red")

    defaults = SuppressionDefaults(f"import:{operator()}", channel, scope, reason)
    with wiring(context).services() as services, _refusing(), opened_csv(file) as text:
        done = services.suppression_files.read(text, defaults, tell, dry_run=dry_run)
    if as_json:
        print_json({"new": done.new, "known": done.known, "ended": done.ended, "bad": bad})
    else:
        if shown > SHOWN_BAD:
            print_line(f"and {shown - SHOWN_BAD} more bad lines")
        verb = "would be added" if dry_run else "added"
        print_line(f"{done.new} {verb}, {done.known} were there, {done.ended} had ended, {done.bad} bad", "bold")
    if done.bad:
        hint("correct the bad lines and import the file again: nobody is added twice")
        raise typer.Exit(FAILED)
    hint("next: notifier suppressions list")


def _fault(fault: Fault) -> str:
    return f"{fault.field or 'line'}: {fault.problem}. {fault.fix}."


def export(
    context: typer.Context,
    channel: OfChannel = None,
    scope: Annotated[str | None, typer.Option(help="global, sender:IDENTITY or category:NAME.")] = None,
    reason: OfReason = None,
    ended: Ended = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", metavar="FILE", help="Where to; default: standard output.")
    ] = None,
) -> None:
    """Write suppressions as CSV, as hashes. `import` reads it again, under the same hash key."""
    from notifier.feedback.suppression_csv import write_csv
    from notifier.store.suppressions import SuppressionFilter

    wanted = SuppressionFilter(channel, scope, reason, with_ended=ended)
    count = -1
    with _suppressions(context) as suppressions, _written(output) as file:
        for part in write_csv(suppressions.all(wanted)):
            file.write(part)
            count += part.count("\r\n")
    hint(f"{_count(count, 'suppression')} exported; keep the hash key as long as the file")


@contextmanager
def _written(path: Path | None) -> Iterator[TextIO]:
    if path is None:
        yield sys.stdout
        return
    try:
        file = path.open("w", encoding="utf-8", newline="")
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror}", param_hint="--output") from None
    with file:
        yield file


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"
