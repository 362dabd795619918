"""`python -m bench`: see `--help`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import model, report
from bench.ground import provisioned
from bench.machine import machine
from bench.scenarios import FULL_SECONDS, Bench, Sizes
from tests.provisioning.commands import run_in_order, say

SCENARIOS = (
    *("throughput", "with_100ms_server", "sms", "workers", "model"),
    *("latency", "http", "client", "steady", "growth"),
)
_ROUNDS, _ROWS = 3, 10_000_000


def main() -> int:
    """Measure, or report an earlier measurement. Returns 0 if everything could be done, whatever the figures
    say."""
    options = _options()
    if options.report:
        found = json.loads(options.output.read_text("utf-8"))
        _report(found)
        _compare(_read(options.against), found)
        return 0
    return run_in_order(lambda: _run(options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make bench", description="How fast notifier is, beside its peers.")
    parser.add_argument(
        "--seconds", type=float, default=FULL_SECONDS, help="length of one measurement of throughput"
    )
    parser.add_argument("--rounds", type=int, default=_ROUNDS, help="how often everybody is measured")
    parser.add_argument("--rows", type=int, help="notifications in the database at the end of the growth")
    parser.add_argument("--only", choices=SCENARIOS, action="append", help="this scenario, and --only more")
    parser.add_argument("--output", type=Path, metavar="FILE", default=report.LATEST, help="where the JSON goes")
    parser.add_argument("--folder", type=Path, help="where the data of the servers goes; default: a temporary one")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="copy the programs' logs there")
    parser.add_argument(
        "--against",
        type=Path,
        metavar="FILE",
        default=report.LATEST,
        help="the JSON of another run, whose ratios are put beside; default: the latest",
    )
    parser.add_argument("--report", action="store_true", help="pictures and tables anew, out of the JSON")
    options = parser.parse_args()
    if options.seconds <= 0 or options.rounds < 1:
        parser.error("--seconds and --rounds are positive")
    if options.rows is None:
        options.rows = round(min(_ROWS, max(10_000, _ROWS * options.seconds / FULL_SECONDS)))
    if options.only and options.output == report.LATEST:
        # A part of a run does not count as the latest run.
        options.output = None
    return options


def _run(options: argparse.Namespace) -> int:
    begun, before = time.monotonic(), _read(options.against)
    sizes = Sizes(options.seconds, options.rounds, options.rows)
    chosen: Sequence[str] = options.only or SCENARIOS
    with provisioned(options.folder, options.keep) as ground:
        facts = machine(ground)
        say(", ".join(f"{name} {value}" for name, value in facts.items()))
        bench = Bench(ground, sizes, say)
        for name in SCENARIOS:
            if name in chosen:
                say(f"{name} ({time.monotonic() - begun:.0f} s so far)")
                bench.run(name)
        for name, why in bench.results.absent.items():
            say(f"absent: {name}: {why}")
        found = report.content(bench.results, sizes, facts, time.monotonic() - begun)
    if options.output:
        report.write(options.output, found)
    say(f"{report.table(found)}\n\n{report.target_table(found)}")
    if options.output == report.LATEST:
        _report(found)
    _compare(before, found)
    for name, what in bench.results.failed.items():
        say(f"FAILED: {name}: {what}")
    say(f"{time.monotonic() - begun:.0f} s")
    return 1 if bench.results.failed else 0


def _report(found: dict[str, Any]) -> None:
    from bench import pictures

    try:
        for path in pictures.draw(found):
            say(f"drawn: {path}")
    except ModuleNotFoundError as error:
        say(f"no pictures: {error.name} is not installed (requirements/bench.txt)")
    pages = report.put_into_pages(report.table(found))
    report.put_into_pages(report.target_table(found), (report.PERFORMANCE,), report.TARGET_MARKS)
    if found.get("model"):
        pages += report.put_into_pages(model.table(found["model"]), (model.PAGE,), (model.BEGIN, model.END))
    for page in pages:
        say(f"written: {page}")


def _read(path: Path) -> dict[str, Any] | None:
    return json.loads(path.read_text("utf-8")) if path.exists() else None


def _compare(before: dict[str, Any] | None, found: dict[str, Any]) -> None:
    """Compare only runs of equal length, because a longer run has other ratios."""
    if before and before["date"] != found["date"] and before["seconds"] == found["seconds"]:
        say(report.compare(before, found))


if __name__ == "__main__":
    sys.exit(main())
