"""`notifier suppressions`: who must not be sent to, since when, and why."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from notifier.cli import held_suppressions
from notifier.cli.actions import operator
from notifier.cli.arguments import channel_of, read_future
from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED, report
from notifier.cli.files import opened_csv, written
from notifier.cli.held_suppressions import OfProvider, OfSender
from notifier.cli.options import ActionOptions, DryRun, OfChannel, PageOptions, Since, Until, Why, grouped
from notifier.cli.output import AsJson, clean, count, hint, print_json, print_line, print_list, utc, when
from notifier.domain.errors import Fault, InvalidMessage
from notifier.domain.labels import SUPPRESSIONS
from notifier.domain.statuses import SuppressionReason

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
OfScope = Annotated[str | None, typer.Option(help="Only this scope: global, sender:IDENTITY or category:NAME.")]
OfReason = Annotated[SuppressionReason | None, typer.Option(help="Only this reason.")]
Ended = Annotated[bool, typer.Option("--ended", help="Include those that have ended.")]


@dataclass(frozen=True, slots=True)
class SuppressionOptions:
    """Conditions on suppressions that `list` and `lift` share."""

    channel: OfChannel = None
    scope: OfScope = None
    source: Annotated[str | None, typer.Option(help="Who made it, for example bounce or provider:twilio.")] = None
    since: Since = None
    until: Until = None


def register(app: typer.Typer) -> None:
    """Add this family's commands."""
    suppressions = typer.Typer(no_args_is_help=True, help="Recipients to whom nothing must be sent.")
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
        report("the input is not valid; nothing was done")
        for fault in error.faults:
            sys.stderr.write(f"  {clean(str(fault))}\n")
        raise typer.Exit(FAILED) from None


@grouped
def list_suppressions(
    context: typer.Context,
    *,
    filters: SuppressionOptions,
    reason: OfReason = None,
    ended: Ended = False,
    page: PageOptions,
    as_json: AsJson = False,
) -> None:
    """List suppressions, newest first, as hashes: addresses are not stored.

    Times are UTC.
    """
    from notifier.store.suppressions import SuppressionFilter

    wanted = SuppressionFilter(**asdict(filters), reason=reason, with_ended=ended)
    with _suppressions(context) as suppressions:
        found, following = suppressions.page(wanted, limit=page.limit, before=page.before)
    print_list(
        found,
        {
            "since": lambda one: when(one.created_at),
            "channel": lambda one: one.channel,
            "scope": lambda one: one.scope,
            "reason": lambda one: one.reason,
            "source": lambda one: one.source,
            "until": lambda one: utc(one.expires_at),
            "state": lambda one: one.state,
            "hash": lambda one: one.address_hash[:12],
            "detail": lambda one: one.detail,
        },
        as_json=as_json,
        noun="suppression",
        empty="nothing found; that was the last page" if page.before else "no suppression matches",
        next_step="notifier suppressions show ADDRESS",
        droppable=("detail", "hash", "source", "state"),
        following=following,
    )


def show(context: typer.Context, address: Address, channel: OfChannel = None, as_json: AsJson = False) -> None:
    """Show whether a recipient is suppressed, and the whole history: since when, why, who ended it.

    Times are UTC.
    """
    with _suppressions(context) as suppressions:
        found = suppressions.find(channel or channel_of(address), address)
    if as_json:
        print_json(found)
        return
    if not found:
        hint("not suppressed, and never was")
        return
    is_active = any(one.state == "active" for one in found)
    print_line("suppressed" if is_active else "no longer suppressed", "bold")
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
        typer.Option(parser=read_future, metavar="TIME", help="When it ends: 90d (from now), or a time."),
    ] = None,
    channel: OfChannel = None,
    why: Why = None,
    as_json: AsJson = False,
) -> None:
    """Send nothing more to a recipient."""
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
    hint("suppressed from now on" if is_new else "already suppressed with this scope")
    hint("next: notifier suppressions show ADDRESS")


@grouped
def lift(
    context: typer.Context,
    address: Annotated[
        str | None, typer.Argument(help="Address or number.", metavar="[ADDRESS]", show_default=False)
    ] = None,
    *,
    reason: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Only this reason; or, in several words, the same as --why."),
    ] = None,
    filters: SuppressionOptions,
    provider: OfProvider = None,
    sender: OfSender = None,
    other_keys: Annotated[
        bool, typer.Option("--other-keys", help="Lift all that were made under a hash key that is lost.")
    ] = False,
    options: ActionOptions,
) -> None:
    """End the suppression of an address, or all that one --source made --since a time. They stay on record.

    Without --scope, for an address, the global one is lifted. Exits 1 if there was none.
    """
    bulk = filters.source is not None
    if [address is not None, other_keys, bulk].count(True) != 1:
        raise typer.BadParameter("give one of them: --source, an address, or --other-keys", param_hint="ADDRESS")
    of_reason, why = _reason_or_why(reason, options.why, may_be_why=bulk)
    options = replace(options, why=why)
    if bulk:
        from notifier.store.suppressions import SuppressionFilter

        wanted = SuppressionFilter(**asdict(filters), reason=of_reason, provider=provider, sender=sender)
        held_suppressions.lift_all(context, wanted, options)
        return
    if options.dry_run or filters.since or filters.until or provider or sender:
        raise typer.BadParameter("--dry-run, --since, --until, --provider and --sender go with --source")
    _lift_one(context, address, filters, of_reason, options)


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
        f"{reason!r} is none of {known}; to say why you do it, use --why", param_hint="--reason"
    )


def _lift_one(
    context: typer.Context,
    address: str | None,
    filters: SuppressionOptions,
    reason: SuppressionReason | None,
    options: ActionOptions,
) -> None:
    """One recipient's, or those under a key that is lost."""
    source = f"operator:{operator()}"
    with _suppressions(context) as suppressions:
        if address is None:
            lifted = suppressions.lift_other_keys(source=source, detail=options.why)
        else:
            found = suppressions.lift(
                channel=filters.channel or channel_of(address),
                address=address,
                scope=filters.scope or "global",
                source=source,
                reason=reason,
                detail=options.why,
            )
            lifted = int(found)
    if options.as_json:
        print_json({"lifted": lifted})
    if not lifted:
        hint("there was none with this scope and reason. next: notifier suppressions show ADDRESS")
        raise typer.Exit(FAILED)
    hint(f"{lifted} lifted" if address is None else "lifted: messages are sent again")
    hint("next: notifier retry ID, for what was suppressed meanwhile and is still wanted")


def import_file(
    context: typer.Context,
    file: Annotated[Path, typer.Argument(help="A CSV file, or a list; - for standard input.", show_default=False)],
    reason: Annotated[
        SuppressionReason, typer.Option(help="For lines that give none.")
    ] = SuppressionReason.MANUAL,
    scope: Scope = "global",
    channel: OfChannel = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Add every recipient in a file. Bad lines are reported one by one, and the others are added.

    Exits 1 if a line is wrong.
    """

    from notifier.feedback.suppression_csv import SuppressionDefaults

    bad = BadSuppressions(as_json=as_json)
    defaults = SuppressionDefaults(f"import:{operator()}", channel, scope, reason)
    with wiring(context).services() as services, _refusing(), opened_csv(file) as text:
        done = services.suppression_files.read(text, defaults, bad.add, dry_run=dry_run)
    if as_json:
        print_json({"new": done.new, "known": done.known, "ended": done.ended, "bad": bad.kept})
    else:
        if done.bad > SHOWN_BAD:
            print_line(f"and {done.bad - SHOWN_BAD} more bad lines")
        verb = "would be added" if dry_run else "added"
        print_line(f"{done.new} {verb}, {done.known} were there, {done.ended} had ended, {done.bad} bad", "bold")
    if done.bad:
        hint("correct the bad lines and import the file again: nobody is added twice")
        raise typer.Exit(FAILED)
    hint("next: notifier suppressions list")


class BadSuppressions:
    """Bad lines of a file: all of them for JSON; the first of them to people, at once."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self.kept: list[Bad] = []

    def add(self, one: Bad) -> None:
        """Keep it, and print it."""
        if not self._as_json and len(self.kept) == SHOWN_BAD:
            return
        self.kept.append(one)
        for fault in () if self._as_json else one.faults:
            print_line(clean(f"line {one.line}: {_fault(fault)}"), "red")


def _fault(fault: Fault) -> str:
    return f"{fault.field or 'line'}: {fault.problem}. {fault.fix}."


def export(
    context: typer.Context,
    channel: OfChannel = None,
    scope: OfScope = None,
    reason: OfReason = None,
    ended: Ended = False,
    output: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Where to write; default: standard output."),
    ] = None,
) -> None:
    """Write suppressions as CSV, as hashes. `import` can read it again under the same hash key."""
    from notifier.feedback.suppression_csv import write_csv
    from notifier.store.suppressions import SuppressionFilter

    wanted = SuppressionFilter(channel, scope, reason, with_ended=ended)
    exported = -1
    with _suppressions(context) as suppressions, written(output, "--output", newline="") as file:
        for part in write_csv(suppressions.all(wanted)):
            file.write(part)
            exported += part.count("\r\n")
    hint(f"{count(exported, 'suppression')} exported; keep the hash key as long as the file")
