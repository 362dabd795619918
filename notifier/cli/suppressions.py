"""`notifier suppressions`: who must not be sent to, since when, and why."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from notifier.cli import held_suppressions
from notifier.cli.actions import operator
from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.files import opened, written
from notifier.cli.held_suppressions import OfProvider, OfSender
from notifier.cli.options import (
    ActionOptions,
    AsJson,
    ChannelOfRecipient,
    DryRun,
    OfChannel,
    PageOptions,
    Since,
    Until,
    Why,
    future,
    grouped,
    one_of,
)
from notifier.cli.output import clean, columns, count, hint, print_json, print_line, print_list, utc
from notifier.domain.assumed_channel import by_recipient
from notifier.domain.labels import SUPPRESSIONS
from notifier.domain.statuses import SuppressionReason

if TYPE_CHECKING:
    from notifier.feedback.suppression_csv import Bad
    from notifier.store.suppressions import SuppressionView


#: Bad lines of a file that are shown to people; `--json` has all.
SHOWN_BAD = 50

Address = Annotated[str, Argument(help="E-mail address, or number as +15550100123.", metavar="ADDRESS")]
Scope = Annotated[str, Option(help="global, sender:IDENTITY or category:NAME.")]
OfScope = Annotated[str | None, Option(help="Only this scope: global, sender:IDENTITY or category:NAME.")]
OfReason = Annotated[SuppressionReason | None, one_of(SuppressionReason, "REASON", "Only this reason")]
Ended = Annotated[bool, Option("--ended", help="Include those that have ended.")]


@dataclass(frozen=True, slots=True)
class SuppressionOptions:
    """Conditions on suppressions that `list` and `lift` share."""

    channel: OfChannel = None
    scope: OfScope = None
    source: Annotated[str | None, Option(help="Who made it, for example bounce or provider:twilio.")] = None
    since: Since = None
    until: Until = None


@grouped
def list_(
    context: typer.Context,
    *,
    filters: SuppressionOptions,
    reason: OfReason = None,
    ended: Ended = False,
    page: PageOptions,
    as_json: AsJson = False,
) -> None:
    """List suppressions, newest first, as hashes: addresses are not stored."""
    from notifier.store.suppressions import SuppressionFilter

    wanted = SuppressionFilter(**asdict(filters), reason=reason, with_ended=ended)
    with wiring(context).services() as services:
        found, following = services.suppressions.page(wanted, limit=page.limit, before=page.before)
    print_list(
        found,
        {
            **columns("since=created_at", "channel", "scope", "reason", "source"),
            "until": lambda one: utc(one.expires_at),
            **columns("state"),
            "hash": lambda one: one.address_hash[:12],
            **columns("detail"),
        },
        as_json=as_json,
        noun="suppression",
        empty="nothing found; that was the last page" if page.before else "no suppression matches",
        next_step="notifier suppressions show ADDRESS",
        droppable=("detail", "hash", "source", "state"),
        following=following,
    )


def show(
    context: typer.Context, address: Address, channel: ChannelOfRecipient = None, as_json: AsJson = False
) -> None:
    """Show whether a recipient is suppressed, with the history: since when, why, who ended it."""
    with wiring(context).services() as services:
        found = services.suppressions.find(channel or by_recipient(address), address)
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
    cause = [f"{what} {name}" for what, name in (("provider", one.provider), ("sender", one.sender)) if name]
    for name, value in (
        ("why", one.detail),
        ("notification", one.notification_id and str(one.notification_id)),
        ("because of", " and ".join(cause)),
        ("ends", utc(one.expires_at)),
        ("ended", f"{utc(one.lifted_at)} by {one.lifted_by}" if one.lifted_at else ""),
        ("because", one.lifted_detail),
    ):
        if value:
            print_line(f"    {name}: {clean(value)}")


def add(
    context: typer.Context,
    address: Address,
    reason: Annotated[SuppressionReason, one_of(SuppressionReason, "REASON", "Why")] = SuppressionReason.MANUAL,
    scope: Scope = "global",
    expires: Annotated[datetime | None, future("When it ends: 90d (from now), or a time.")] = None,
    channel: ChannelOfRecipient = None,
    why: Why = None,
    as_json: AsJson = False,
) -> None:
    """Send nothing more to a recipient."""
    with wiring(context).services() as services:
        is_new = services.suppressions.add(
            channel=channel or by_recipient(address),
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
    address: Annotated[str | None, Argument(help="Address or number.", metavar="[ADDRESS]")] = None,
    *,
    reason: Annotated[
        str | None, Option(metavar="REASON", help="Only this reason; several words count as --why.")
    ] = None,
    filters: SuppressionOptions,
    provider: OfProvider = None,
    sender: OfSender = None,
    other_keys: Annotated[bool, Option("--other-keys", help="Lift all made under a lost hash key.")] = False,
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
    """`--reason` names one of the closed list; several words are the operator's reason for doing it."""
    if reason is None:
        return None, why
    if reason in list(SuppressionReason):
        return SuppressionReason(reason), why
    if may_be_why and " " in reason.strip() and why is None:
        return None, reason.strip()
    known = ", ".join(SuppressionReason)
    raise typer.BadParameter(
        f"{reason!r} is not one of {known}; to say why you do it, use --why", param_hint="--reason"
    )


def _lift_one(
    context: typer.Context,
    address: str | None,
    filters: SuppressionOptions,
    reason: SuppressionReason | None,
    options: ActionOptions,
) -> None:
    """Lift one recipient's suppression, or all those under a lost key."""
    source = f"operator:{operator()}"
    with wiring(context).services() as services:
        if address is None:
            lifted = services.suppressions.lift_other_keys(source=source, detail=options.why)
        else:
            found = services.suppressions.lift(
                channel=filters.channel or by_recipient(address),
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
        hint("no suppression has this scope and reason. next: notifier suppressions show ADDRESS")
        raise typer.Exit(FAILED)
    hint(f"{lifted} lifted" if address is None else "lifted: messages are sent again")
    hint("next: notifier retry ID, for notifications that were suppressed in the meantime and are still wanted")


def import_(
    context: typer.Context,
    file: Annotated[Path, Argument(help="A CSV file, or a list; - for standard input.")],
    reason: Annotated[
        SuppressionReason, one_of(SuppressionReason, "REASON", "For lines without one")
    ] = SuppressionReason.MANUAL,
    scope: Scope = "global",
    channel: ChannelOfRecipient = None,
    dry_run: DryRun = False,
    as_json: AsJson = False,
) -> None:
    """Add every recipient in a file. Bad lines are reported one by one, and the others are added.

    Exits 1 if a line is wrong.
    """
    from notifier.feedback.suppression_csv import SuppressionDefaults

    bad: list[Bad] = []

    def on_bad_line(one: Bad) -> None:
        """Report one bad line. JSON shows all of them at the end; people see the first ones at once."""
        if as_json or len(bad) < SHOWN_BAD:
            bad.append(one)
            for fault in () if as_json else one.faults:
                print_line(
                    clean(f"line {one.line}: {fault.field or 'line'}: {fault.problem}. {fault.fix}."), "red"
                )

    defaults = SuppressionDefaults(f"import:{operator()}", channel, scope, reason)
    with wiring(context).services() as services, opened(file, newline="") as text:
        done = services.suppression_files.read(text, defaults, on_bad_line, dry_run=dry_run)
    if as_json:
        print_json({"new": done.new, "known": done.known, "ended": done.ended, "bad": bad})
    else:
        if done.bad > SHOWN_BAD:
            print_line(f"and {done.bad - SHOWN_BAD} more bad lines")
        verb = "would be added" if dry_run else "added"
        print_line(f"{done.new} {verb}, {done.known} were there, {done.ended} had ended, {done.bad} bad", "bold")
    if done.bad:
        hint("correct the bad lines and import the file again: nobody is added twice")
        raise typer.Exit(FAILED)
    hint("next: notifier suppressions list")


def export(
    context: typer.Context,
    channel: OfChannel = None,
    scope: OfScope = None,
    reason: OfReason = None,
    ended: Ended = False,
    output: Annotated[
        Path | None, Option("--output", "-o", metavar="FILE", help="Default: standard output.")
    ] = None,
) -> None:
    """Write suppressions as CSV, as hashes. `import` can read it again under the same hash key."""
    from notifier.feedback.suppression_csv import write_csv
    from notifier.store.suppressions import SuppressionFilter

    wanted = SuppressionFilter(channel, scope, reason, with_ended=ended)
    exported = -1
    with wiring(context).services() as services, written(output, "--output", newline="") as file:
        for part in write_csv(services.suppressions.all(wanted)):
            file.write(part)
            exported += part.count("\r\n")
    hint(f"{count(exported, 'suppression')} exported; keep the hash key as long as the file")
