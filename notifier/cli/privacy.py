"""`notifier db new-key`, `reseal` and `retention`: keys that seal personal data, and how long data is kept."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument, Option

from notifier.cli.actions import operator
from notifier.cli.context import wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.options import AsJson, DryRun, Now, check_now
from notifier.cli.output import hint, print_json, print_line, print_table, progress_bar, warn

if TYPE_CHECKING:
    from notifier.operations.retention import RetentionRun
    from notifier.store.re_encryption import Resealed


def new_key(
    key_id: Annotated[str | None, Argument(metavar="[ID]", help="A new name; default: today's date.")] = None,
    as_json: AsJson = False,
) -> None:
    """Create a key for NOTIFIER_ENCRYPTION_KEYS and print it. It is stored nowhere: store it yourself."""
    from notifier.security import encryption

    try:
        made = encryption.new_key(key_id or f"{datetime.now(UTC):%Y-%m-%d}")
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="ID") from None
    if as_json:
        print_json({"id": made.partition(":")[0], "key": made})
        return
    print_line(made)
    hint("put it first in NOTIFIER_ENCRYPTION_KEYS, with a comma after it, for every program")
    hint("sealed data opens only with its key: keep a copy apart from the backups of the database")
    hint("next, when all programs have it: notifier db reseal")


def reseal(
    context: typer.Context,
    rehash: Annotated[
        bool, Option("--rehash", help="Recreate all hashes: NOTIFIER_HASH_KEY has changed.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Encrypt everything that is not yet under the newest key, and add the hashes that searches use.

    Safe while everything runs, and safe to repeat: notifications on their way are left for the next run. Exits 1
    as long as something needs an older key.
    """
    from notifier.operations.results import recorded
    from notifier.store.operator_actions import ActionCounts
    from notifier.store.re_encryption import Resealing

    with wiring(context).services() as services:
        resealing = Resealing(services.engine, services.personal_data)
        is_on = services.sealer.is_on
        with (
            recorded(services.operator_actions, operator(), "reseal", {"rehash": rehash}) as note,
            progress_bar(resealing.estimate() or None, hidden=as_json) as show,
        ):

            def progress(far: Resealed) -> None:
                note(ActionCounts(far.seen, far.changed, 0, far.busy + far.locked))
                show(f"{far.changed} written", far.seen)

            try:
                done = resealing.run(rehash=rehash, progress=progress)
            except KeyboardInterrupt:
                hint("Stopped early; what was written stays. Run it again to go on.")
                raise
    if as_json:
        print_json(done)
    else:
        _print_resealed(done, is_on=is_on)
    if done.busy or done.locked:
        raise typer.Exit(FAILED)


def _print_resealed(done: Resealed, *, is_on: bool) -> None:
    print_line(f"{done.changed} rows written, {done.seen} looked at")
    if done.suppressions:
        print_line(f"{done.suppressions} suppressions moved to the new hash of their recipients")
    if not is_on:
        hint("NOTIFIER_ENCRYPTION_KEYS is not set: hashes were added, and nothing was sealed")
    if done.busy:
        warn(f"{done.busy} are on their way now and were left alone. next: notifier db reseal, again")
    if done.locked:
        keys = ", ".join(key or "(damaged)" for key in done.missing_keys)
        warn(f"{done.locked} are sealed under a key that is missing: add {keys} to NOTIFIER_ENCRYPTION_KEYS")
    if is_on and not done.busy and not done.locked:
        hint("everything is under the first key: remove the older ones when no backup needs them")


def retention(context: typer.Context, now: Now = False, dry_run: DryRun = False, as_json: AsJson = False) -> None:
    """Show or apply the retention of notifier.toml: redact, delete and drop old data."""
    from notifier.operations.results import recorded
    from notifier.store.operator_actions import ActionCounts

    check_now(now=now, dry_run=dry_run)
    with wiring(context).services() as services:
        tables = services.settings.structure.retention
        if dry_run:
            kept = services.retention_job.preview()
        else:
            job = services.retention_job
            with (
                recorded(services.operator_actions, operator(), "retention", {"tables": job.tables}) as note,
                services.upkeep.recorded("retention"),
                progress_bar(hidden=as_json) as show,
            ):

                def progress(far: RetentionRun) -> None:
                    note(ActionCounts(far.total, far.total), dropped=far.dropped)
                    show(f"{far.total} done", 0)

                kept = job.run(progress=progress)
    if as_json:
        print_json({"dry_run": dry_run, "result": kept})
        return
    _print_retention(kept, list(map(str, tables)), "would be " if dry_run else "")
    if not tables:
        hint("notifier.toml has no [retention]: notifications are kept for ever")
    elif dry_run:
        hint("next: notifier db retention --now, or wait for the night")


def _print_retention(kept: RetentionRun, channels: Sequence[str], verb: str) -> None:
    counts = (kept.redacted, kept.deleted, kept.rejected)
    rows = [(channel, *(count.get(channel, 0) for count in counts)) for channel in channels]
    if rows:
        headers = ("channel", f"{verb}redacted", f"{verb}deleted", f"rejected messages {verb}deleted")
        print_table(headers, rows)
    if kept.dropped:
        print_line(f"months {verb}dropped: {', '.join(kept.dropped)}")
    if kept.held:
        warn(f"old but kept, because something in them has not ended: {', '.join(kept.held)}")
        hint("next: notifier search --status unknown, and --status scheduled")
    if kept.in_use:
        warn(f"tables were in use: {', '.join(kept.in_use)}. The next run tries again")
    if kept.wiped:
        print_line(f"the secrets of {kept.wiped} unsent messages are wiped")
