"""What a run came to: `latest.json` for machines, the verdict on the targets, tables for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.machine import versions
from bench.scenarios import Results, Sizes
from bench.throughput import Rates

HERE = Path(__file__).parent
LATEST = HERE / "latest.json"
#: Pages that hold the table, between these marks.
PAGES = (HERE.parent / "README.md", HERE.parent / "docs" / "explanation" / "performance.md")
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"

NAMES: Mapping[str, str] = {
    "notifier": "notifier",
    "celery_naive": "Celery, as first written",
    "celery_tuned": "Celery, tuned",
    "post_office": "django-post_office",
    "smtp_source": "smtp-source (the limit)",
}


@dataclass(frozen=True, slots=True)
class Target:
    """One line of the promises. `at_least`: more is better."""

    what: str
    target: float
    found: float | None
    at_least: bool = True

    @property
    def reached(self) -> bool | None:
        """None: not measured."""
        if self.found is None:
            return None
        return self.found >= self.target if self.at_least else self.found <= self.target

    def as_json(self) -> dict[str, Any]:
        """With the verdict."""
        sign = "≥" if self.at_least else "≤"
        found = None if self.found is None else round(self.found, 2)
        return {"what": self.what, "target": f"{sign} {self.target:g}", "found": found, "reached": self.reached}


def content(results: Results, sizes: Sizes, machine: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Everything, as JSON. What was not measured is not there."""
    medians = {
        "throughput": _medians(results.throughput),
        "with_100ms_server": _medians(results.slow),
        "with_100ms_server_sized": _medians(results.slow_sized),
    }
    made: dict[str, Any] = {
        "machine": dict(machine),
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": sizes.seconds,
        "rounds": sizes.rounds,
        "took_seconds": round(seconds),
        "versions": versions(),
        "absent": results.absent,
        "failed": results.failed,
        **medians,
        "latency_ms": results.latency,
        "sms": {"notifier": round(results.sms.rate, 1)} if results.sms else {},
        "workers": _medians(results.workers),
        "growth": results.growth,
        "audit_ms": results.audit,
        "memory_mb": _memory(results),
        "steady": results.steady,
        "ratios": {name: _ratios(values) for name, values in medians.items() if "notifier" in values},
        "spread": _spread(results),
    }
    made["targets"] = [target.as_json() for target in targets(made)]
    return made


def targets(found: Mapping[str, Any]) -> list[Target]:
    """docs/explanation/performance.md says where they come from."""

    def ratio(scenario: str, peer: str) -> float | None:
        value: float | None = found["ratios"].get(scenario, {}).get(peer)
        return value

    def milliseconds(scenario: str, rank: str) -> float | None:
        value: float | None = found["latency_ms"].get(scenario, {}).get(rank)
        return value

    searches = [found["audit_ms"][name]["p95"] for name in PROMISED if name in found["audit_ms"]]
    ours = found["memory_mb"].get("notifier", {})
    memory = [size for name, size in ours.items() if name.startswith("worker-normal")]
    slow = ("with_100ms_server", "server takes 100 ms, settings as they were")
    sized = ("with_100ms_server_sized", "server takes 100 ms, connections for it")
    made = [
        Target("mails a second, × Celery as first written", 20, ratio("throughput", "celery_naive")),
        Target("mails a second, × django-post_office", 5, ratio("throughput", "post_office")),
        Target("mails a second, × smtp-source", 0.2, ratio("throughput", "smtp_source")),
    ]
    for scenario, words in (slow, sized):
        made.append(Target(f"{words}, × Celery as first written", 50, ratio(scenario, "celery_naive")))
        made.append(Target(f"{words}, × django-post_office", 20, ratio(scenario, "post_office")))
    return [
        *made,
        Target("idle, p50, ms", 15, milliseconds("idle", "p50"), at_least=False),
        Target("idle, p99, ms", 50, milliseconds("idle", "p99"), at_least=False),
        Target("urgent while bulk waits, p95, ms", 250, milliseconds("urgent_under_bulk", "p95"), at_least=False),
        Target("audit search, the slowest p95, ms", 50, max(searches, default=None), at_least=False),
        Target("one worker process under full load, MB", 150, max(memory, default=None), at_least=False),
    ]


def compare(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The ratios of two runs side by side, and how much larger one is than the other."""
    lines = [f"| × | {before['date'][:16]} | {now['date'][:16]} | apart |", "|---|---:|---:|---:|"]
    for scenario, peers in now["ratios"].items():
        for peer, ratio in peers.items():
            old = before["ratios"].get(scenario, {}).get(peer)
            if old and ratio:
                apart = max(old, ratio) / min(old, ratio) - 1
                lines.append(f"| {scenario}, {NAMES[peer]} | {old:g} | {ratio:g} | {apart:.0%} |")
    return "\n".join(lines)


#: The searches that have a target: by recipient, reference, status or time.
PROMISED = (
    *("recipient", "reference", "status", "status_deep", "status_sent", "status_sent_deep"),
    *("time", "status_and_time", "newest", "deep", "story"),
)


def write(path: Path, made: Mapping[str, Any]) -> None:
    """Whole, or not at all."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", "utf-8")
    unfinished.rename(path)


def table(found: Mapping[str, Any]) -> str:
    """Rates of everybody side by side, latencies, targets: Markdown."""
    lines = [
        "| mails a second | every mail at once | after 100 ms | after 100 ms, sized for it |",
        "|---|---:|---:|---:|",
    ]
    columns = ("throughput", "with_100ms_server", "with_100ms_server_sized")
    for key, name in NAMES.items():
        cells = [_cell(found[column].get(key), found["absent"].get(key)) for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += ["", "| target | | found | |", "|---|---:|---:|---|"]
    for one in found["targets"]:
        mark = {True: "✓", False: "✗", None: "not measured"}[one["reached"]]
        lines.append(f"| {one['what']} | {one['target']} | {_plain(one['found'])} | {mark} |")
    machine = found["machine"]
    lines += [
        "",
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, PostgreSQL "
        f"{machine['postgresql']}, RabbitMQ {machine['rabbitmq']}, Python {machine['python']}; "
        f"{found['rounds']} rounds, {found['date'][:10]}.",
    ]
    return "\n".join(lines)


def put_into_pages(text: str, pages: tuple[Path, ...] = PAGES) -> list[Path]:
    """Replace what is between the marks of each page that has them. Returns those pages."""
    done = []
    for page in pages:
        old = page.read_text("utf-8") if page.exists() else ""
        head, begin, rest = old.partition(BEGIN)
        _, end, tail = rest.partition(END)
        if begin and end:
            page.write_text(f"{head}{BEGIN}\n{text}\n{END}{tail}", "utf-8")
            done.append(page)
    return done


def _medians(rates: Mapping[str, Rates]) -> dict[str, float]:
    return {name: round(one.rate, 1) for name, one in rates.items()}


def _ratios(medians: Mapping[str, float]) -> dict[str, float]:
    """How many times as fast the service is."""
    ours = medians["notifier"]
    return {name: round(ours / rate, 3) for name, rate in medians.items() if name != "notifier" and rate}


def _spread(results: Results) -> dict[str, Any]:
    scenarios = {
        "throughput": results.throughput,
        "with_100ms_server": results.slow,
        "with_100ms_server_sized": results.slow_sized,
        "workers": results.workers,
        "sms": {"notifier": results.sms} if results.sms else {},
    }
    return {
        scenario: {name: one.as_json() for name, one in rates.items()}
        for scenario, rates in scenarios.items()
        if rates
    }


def _memory(results: Results) -> dict[str, dict[str, float]]:
    """Under full load: subject → process → MB, the largest of its family; what everybody shares is left out."""
    return {
        name: {
            process: round(usage.largest_mb, 1)
            for process, usage in rates.usage.items()
            if not process.startswith("(")
        }
        for name, rates in results.throughput.items()
    }


def _cell(rate: float | None, why: str | None) -> str:
    if rate is not None:
        return f"{rate:,.0f}".replace(",", " ")
    return f"absent: {why}" if why else "not measured"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
