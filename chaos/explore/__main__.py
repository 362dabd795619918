"""`python -m chaos.explore`: see `--help`."""

from __future__ import annotations

import argparse
import os
import re
import secrets
import sys
from collections.abc import Sequence

from chaos.explore import report
from chaos.explore.mutations import MUTATIONS
from chaos.explore.runner import Job, explore_all, prove, replay
from chaos.explore.scenarios import SCENARIOS
from tests.provisioning.commands import run_in_order, say


def main() -> int:
    """Explore. Returns 0 only if every promise was kept in every schedule."""
    options = _options()
    if options.list:
        say("\n".join(scenario.name for scenario in SCENARIOS))
        return 0
    if options.replay:
        return run_in_order(lambda: _replay(options))
    if options.prove:
        return run_in_order(lambda: 0 if prove(options.only or "", options.seconds, options.processes, say) else 1)
    wanted = re.compile(options.only or "", re.IGNORECASE)
    names = [scenario.name for scenario in SCENARIOS if wanted.search(scenario.name)]
    if not names:
        say("no such scenario: --list names them")
        return 2
    return run_in_order(lambda: _run(names, options))


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="make explore", description="Every order of the steps of a few actors, with faults between them."
    )
    parser.add_argument("--seconds", type=float, default=900.0, help="for all scenarios together (900)")
    parser.add_argument("--processes", type=int, default=min(os.cpu_count() or 1, 8), help="one for each core")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000), help="repeats what is random")
    parser.add_argument("--only", metavar="PATTERN", help="only scenarios whose name fits: a regular expression")
    parser.add_argument("--replay", metavar="TOKEN", help="run one schedule, as a report names it, and show it")
    parser.add_argument("--list", action="store_true", help="name the scenarios and end")
    parser.add_argument(
        "--prove", action="store_true", help="put known faults back, each for --seconds at the most, and find them"
    )
    names = [mutation.name for mutation in MUTATIONS]
    parser.add_argument("--mutate", choices=names, help="put a fault back first, to see it found")
    return parser.parse_args()


def _run(names: Sequence[str], options: argparse.Namespace) -> int:
    say(f"seed {options.seed}: repeat the random part with --seed {options.seed}")
    each = options.seconds * min(1.0, options.processes / len(names))
    jobs = [Job(name, each, options.seed, options.mutate) for name in names]
    tallies, kept = explore_all(jobs, options.processes, say)
    say(report.kept(kept))
    say(report.table(tallies, options.seconds))
    return 0 if report.is_right(tallies) and not any(outcome.broken for outcome in kept.values()) else 1


def _replay(options: argparse.Namespace) -> int:
    outcome = replay(options.replay, options.mutate, say)
    say("\n".join(outcome.lines))
    say("\n".join(f"NOT KEPT  {broken}" for broken in outcome.broken) or "every promise was kept")
    return 1 if outcome.broken else 0


if __name__ == "__main__":
    sys.exit(main())
