"""`python -m chaos`: see `--help`."""

from __future__ import annotations

import argparse
import os
import re
import secrets
import shutil
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from random import Random

from chaos import disk, endings, report, strange
from chaos.load import Mix
from chaos.report import Outcome
from chaos.runner import Runner
from chaos.scenarios import Scenario, long_form, short_form
from chaos.world import running_world
from notifier.dev.machine import make_temporary_folder
from tests.profiles import PROFILE
from tests.provisioning.commands import run_in_order, say

#: Most of them spend most of their time waiting.
_ENDINGS_AT_ONCE = 24


def main() -> int:
    """Run the suite. Returns 0 only if nothing was lost, nothing was doubled unrecorded, and no program ended by
    itself."""
    options = _options()
    scenarios = short_form(options.rate) if options.short else long_form()
    if options.only:
        wanted = re.compile(options.only, re.IGNORECASE)
        scenarios = [scenario for scenario in scenarios if wanted.search(scenario.name)]
    if options.list or not scenarios:
        say("\n".join(scenario.name for scenario in scenarios) or "no such scenario")
        return 0 if scenarios else 2
    return run_in_order(lambda: _run(scenarios, options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="make chaos", description="The fault suite of notifier.")
    parser.add_argument("--short", action="store_true", help="a few scenarios, under three minutes")
    parser.add_argument(
        "--rate", type=float, default=Mix().rate, help="messages a second in the short form (%(default)g)"
    )
    parser.add_argument("--only", metavar="PATTERN", help="only scenarios whose name fits: a regular expression")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000), help="repeats a run's choices")
    parser.add_argument("--list", action="store_true", help="name the scenarios and end")
    parser.add_argument("--output", type=Path, metavar="FILE", default=report.LATEST, help="where the JSON goes")
    parser.add_argument("--keep", type=Path, metavar="FOLDER", help="copy the programs' logs there")
    return parser.parse_args()


def _run(scenarios: Sequence[Scenario], options: argparse.Namespace) -> int:
    begun = time.monotonic()
    if not options.short:
        # Start programs as an operator does, not by forking a process that has imported everything.
        os.environ[PROFILE] = "full"
    say(f"seed {options.seed}: repeat these choices with --seed {options.seed}")
    wants_disk = any(scenario.needs_disk for scenario in scenarios)
    has_disk = wants_disk and disk.enter_private_namespace()
    absent = {
        scenario.name: "a small disk can be mounted by root on Linux only"
        for scenario in scenarios
        if scenario.needs_disk and not has_disk
    }
    absent |= {scenario.name: scenario.setup.lacks() for scenario in scenarios if scenario.setup.lacks()}
    scenarios = [scenario for scenario in scenarios if scenario.name not in absent]
    folder = make_temporary_folder()
    try:
        outcomes = _in_world(scenarios, options, folder, has_disk=has_disk)
    finally:
        if options.keep:
            shutil.copytree(folder / "logs", options.keep, dirs_exist_ok=True)
        shutil.rmtree(folder, ignore_errors=True)
    seconds = time.monotonic() - begun
    if not options.only or options.output != report.LATEST:
        # A run of a part of the suite does not count as the latest run.
        seed, short = options.seed, options.short
        report.write(options.output, outcomes, absent, seed=seed, short=short, seconds=seconds)
    is_right = _conclude(outcomes, absent, seconds)
    if not options.short and not options.only:
        say(f"strange messages: {strange.COUNT} on each broker")
        is_right = strange.tell(strange.attack_both(strange.COUNT, options.seed)) and is_right
        cases = endings.every_case()
        say(f"{len(cases)} endings")
        is_right = endings.run(cases, at_once=_ENDINGS_AT_ONCE) and is_right
    return 0 if is_right else 1


def _in_world(
    scenarios: Sequence[Scenario], options: argparse.Namespace, folder: Path, *, has_disk: bool
) -> list[Outcome]:
    rng = Random(options.seed)
    use_redis = any(scenario.broker == "redis" for scenario in scenarios)
    say("starting PostgreSQL, RabbitMQ" + (" and Valkey" if use_redis else ""))
    with running_world(folder, rng, use_disk=has_disk, use_redis=use_redis) as world:
        return Runner(world, options.seed, say, overlap=options.short).run(scenarios)


def _conclude(outcomes: Sequence[Outcome], absent: dict[str, str], seconds: float) -> bool:
    say(report.table(outcomes, absent))
    messages = sum(outcome.findings.messages for outcome in outcomes)
    is_right = all(outcome.is_right for outcome in outcomes)
    verdict = "every promise was kept" if is_right else "NOT every promise was kept"
    say(f"{messages} messages in {seconds:.0f} s: {verdict}")
    return is_right


if __name__ == "__main__":
    sys.exit(main())
