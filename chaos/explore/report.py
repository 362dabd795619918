"""The report at the end of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from chaos.explore.kept import KEPT
from chaos.explore.schedule import Outcome
from chaos.explore.search import Tally

_LINE = "{:<28} {:>9} {:>9} {:>8} {:>9} {:>7} {:>6}  {}"


def is_right(tallies: Sequence[Tally]) -> bool:
    return not any(tally.faults for tally in tallies)


def kept(outcomes: Mapping[str, Outcome]) -> str:
    """The results for the schedules that once broke a promise."""
    lines = []
    for token, outcome in outcomes.items():
        if outcome.broken:
            lines.append(f"NOT KEPT AGAIN  {token}: {KEPT[token]}")
            lines += [f"  {broken}" for broken in outcome.broken]
    return "\n".join(lines) or f"{len(outcomes)} schedules that broke a promise once keep it"


def table(tallies: Sequence[Tally], seconds: float) -> str:
    """The table by scenario, the totals, and the faults with their steps."""
    lines = [_LINE.format("scenario", "schedules", "distinct", "random", "pruned", "whole", "a s", "broken")]
    for tally in tallies:
        whole = f"≤ {tally.complete_to}" if tally.complete_to >= 0 else "-"
        pace = f"{tally.schedules / max(tally.seconds, 0.001):.0f}"
        broken = ", ".join(f"{fault.promise}" for fault in tally.faults) or "-"
        counts = (tally.schedules, tally.distinct, tally.at_random, tally.pruned)
        lines.append(_LINE.format(tally.scenario, *counts, whole, pace, broken))
    schedules = sum(tally.schedules for tally in tallies)
    distinct = sum(tally.distinct for tally in tallies)
    failing = sum(tally.failing for tally in tallies)
    diverged = sum(tally.diverged for tally in tallies)
    if diverged:
        lines.append(f"{diverged} schedules went otherwise than before with the same choices, and are not counted")
    lines += _faults(tallies)
    verdict = "every promise was kept" if is_right(tallies) else f"NOT every promise was kept: {failing} schedules"
    lines.append(f"{schedules} schedules, {distinct} of them distinct, in {seconds:.0f} s: {verdict}")
    return "\n".join(lines)


def _faults(tallies: Sequence[Tally]) -> list[str]:
    lines = []
    for tally in tallies:
        for fault in tally.faults:
            lines += ["", f"{tally.scenario}: {fault.detail}"]
            lines += [f"  {line}" for line in fault.lines]
            lines += [f"  make explore ARGS='--replay {tally.scenario}:{fault.token}'", ""]
    return lines
