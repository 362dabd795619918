"""`notifier doctor`: a checklist of everything that can be wrong."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import typer

from notifier.cli.context import Wiring, wiring
from notifier.cli.exit_codes import FAILED
from notifier.cli.options import AsJson
from notifier.cli.output import hint, one_line, print_json, print_parts
from notifier.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from notifier.cli.check_result import Check


def doctor(context: typer.Context, as_json: AsJson = False) -> None:
    """Check everything that can be wrong, and say how to fix it.

    Exits 1 if something is wrong.
    """
    checks = []
    for check in _checks(wiring(context)):
        checks.append(check)
        if not as_json:
            mark = ("✗ ", "bold red") if not check.ok else ("! ", "bold yellow") if check.fix else ("✓ ", "green")
            fix = f" → {one_line(check.fix)}" if check.fix else ""
            print_parts(mark, (check.name, "bold"), (f": {one_line(check.detail)}", ""), (fix, "cyan"))
    wrong = sum(not check.ok for check in checks)
    if as_json:
        print_json(checks)
    else:
        hint(f"\n{_summary(checks)}")
    if wrong:
        raise typer.Exit(FAILED)


def _summary(checks: Sequence[Check]) -> str:
    """The last line, which is often the only one that people read. So it mentions warnings."""
    wrong = sum(not check.ok for check in checks)
    warnings = sum(check.ok and bool(check.fix) for check in checks)
    if not wrong and not warnings:
        return "everything is right"
    named = {0: "no warnings", 1: "1 warning (!)"}.get(warnings, f"{warnings} warnings (!)")
    return f"{len(checks)} checks, {wrong or 'none'} failed, {named}"


def _checks(world: Wiring) -> Iterator[Check]:
    """The checks one by one, because asking an unreachable provider takes seconds."""
    from notifier.cli.check_result import Check
    from notifier.cli.checks import all_checks
    from notifier.cli.machine_checks import check_secrets
    from notifier.config.unknown_variables import unknown_variables

    try:
        settings = world.settings()
    except ConfigurationError as error:
        yield Check("settings", False, str(error), "correct it; everything else depends on the settings")
        return
    found = f"{settings.config} and the environment" if settings.config else "readable"
    yield Check("settings", True, f"{found}; templates in {settings.templates}")
    for problem in unknown_variables(settings):
        what, _, fix = problem.rpartition(": ")
        yield Check("settings", True, what, fix)
    yield from check_secrets()
    with world.services() as services:
        yield from all_checks(services)
