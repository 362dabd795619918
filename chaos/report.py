"""The results of a run: a table for people, `latest.json` for machines, a verdict for `make`."""

from __future__ import annotations

import json
import platform
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from chaos.reconcile import Findings

LATEST = Path(__file__).with_name("latest.json")

_COLUMNS = ("messages", "lost", "calls", "unknown", "dup.", "told", "untold", "recovery")


@dataclass(slots=True)
class Outcome:
    name: str
    findings: Findings = field(default_factory=Findings)
    #: Time from the end of the fault until every message was at rest.
    recovery_seconds: float = 0.0
    #: How often the fault was applied: kills, closed connections, wrong answers, repeated tasks.
    strikes: int = 0
    #: Publishes that were not confirmed in time and were repeated, and the longest call of the client.
    repeated_publishes: int = 0
    slowest_publish_seconds: float = 0.0
    #: Messages that a producer wrote into its outbox.
    by_outbox: int = 0
    #: Kind of program → how often it was killed.
    kills: dict[str, int] = field(default_factory=dict)
    #: Everything else that is not as it should be, one line each.
    problems: list[str] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        found = self.findings
        wrong = (
            found.lost,
            found.unrecorded_duplicates,
            found.unrecorded_calls,
            found.unlawful,
            found.untold,
            found.open_attempts,
        )
        return not any(wrong) and not self.problems

    def as_json(self) -> dict[str, Any]:
        """The public fields first, the details after them."""
        found = asdict(self.findings)
        public = ("messages", "lost", "provider_calls", "unknowns", "unrecorded_duplicates")
        row = {"name": self.name, **{key: found.pop(key) for key in public}}
        row["recovery_seconds"] = round(self.recovery_seconds, 1)
        rest = {
            "strikes": self.strikes,
            "repeated_publishes": self.repeated_publishes,
            "slowest_publish_seconds": round(self.slowest_publish_seconds, 2),
            "by_outbox": self.by_outbox,
            "kills": self.kills,
            "problems": self.problems,
        }
        return row | found | rest


def write(
    path: Path, outcomes: Sequence[Outcome], absent: dict[str, str], *, seed: int, short: bool, seconds: float
) -> None:
    """Write the results as JSON: completely, or not at all."""
    content = {
        "machine": _machine(),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "short": short,
        "seed": seed,
        "seconds": round(seconds),
        "scenarios": [outcome.as_json() for outcome in outcomes],
        "absent": absent,
    }
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(content, indent=1) + "\n", "utf-8")
    unfinished.rename(path)


def table(outcomes: Sequence[Outcome], absent: dict[str, str]) -> str:
    width = max(len(name) for name in [*(outcome.name for outcome in outcomes), *absent, "scenario"])
    lines = [f"  {'scenario':<{width}} " + "".join(f"{column:>10}" for column in _COLUMNS)]
    for outcome in outcomes:
        found = outcome.findings
        numbers = (
            found.messages,
            found.lost,
            found.provider_calls,
            found.unknowns,
            found.unrecorded_duplicates,
            found.told,
            found.untold,
            f"{outcome.recovery_seconds:.1f} s",
        )
        mark = "✓" if outcome.is_right else "✗"
        lines.append(f"{mark} {outcome.name:<{width}} " + "".join(f"{number:>10}" for number in numbers))
        lines += [f"    {problem}" for problem in outcome.problems]
        if found.suspects:
            lines.append(f"    look at: {', '.join(found.suspects[:5])}")
    lines += [f"- {name:<{width}}  absent: {why}" for name, why in absent.items()]
    return "\n".join(lines)


def _machine() -> str:
    memory = psutil.virtual_memory().total / 2**30
    return f"{platform.system()} {platform.machine()}, {psutil.cpu_count()} CPUs, {memory:.0f} GiB"
