"""Runs all drills, one after the other, and prints a table of what they counted. `make drills` runs it.

    python examples/drills [name …]

Exits with 1 if a drill failed. A drill that lacks something is left out, and says what it lacks.
"""

from __future__ import annotations

import sys
import time
import traceback
from collections.abc import Callable, Sequence

import failover
import pgbouncer
import point_in_time
import restore
import rolling_upgrade
import two_regions
from service import Counts, say

DRILLS: dict[str, Callable[[], Counts]] = {
    "restore": restore.drill,
    "point_in_time": point_in_time.drill,
    "failover": failover.drill,
    "failover_asynchronous": failover.drill_asynchronous,
    "two_regions": two_regions.drill,
    "pgbouncer": pgbouncer.drill,
    "rolling_upgrade": rolling_upgrade.drill,
}
_LINE = "{:22} {:>9} {:>9} {:>7} {:>6} {:>11} {:>8}  {}"


def main(names: Sequence[str]) -> int:
    unknown = [name for name in names if name not in DRILLS]
    if unknown:
        raise SystemExit(f"no such drill: {', '.join(unknown)}; there are {', '.join(DRILLS)}")
    names = names or list(DRILLS)
    say(f"{len(names)} drills: {', '.join(names)}")
    lines, failed = [], False
    for number, name in enumerate(names, 1):
        say(f"\n{number} of {len(names)}: {name}")
        begun = time.monotonic()
        counts, end = _run(name)
        failed |= end == "failed"
        found = (
            ("",) * 5
            if counts is None
            else (counts.published, counts.arrived, counts.twice, counts.lost, counts.unrecorded)
        )
        lines.append(_LINE.format(name, *found, f"{time.monotonic() - begun:.0f}", end))
    head = _LINE.format("drill", "published", "arrived", "twice", "lost", "unrecorded", "seconds", "")
    say("\n" + "\n".join([head.rstrip(), *lines]))
    return int(failed)


def _run(name: str) -> tuple[Counts | None, str]:
    """What the drill counted, if it got that far, and how it ended."""
    if name == "pgbouncer" and not pgbouncer.is_there():
        say(pgbouncer.LACKS)
        return None, "left out"
    try:
        counts = DRILLS[name]()
    except SystemExit as error:
        say(str(error))
        return None, "failed"
    except Exception:
        traceback.print_exc()
        return None, "failed"
    if not counts.is_good:
        return counts, "failed"
    return counts, f"good: shows {counts.shown} unrecorded" if counts.shown else "good"


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
