"""The results of a run: `latest.json` for machines, the verdict on the targets, tables for people."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from bench.machine import versions
from bench.scenarios import Results, Sizes
from bench.service import parts_of
from bench.throughput import Rates

HERE = Path(__file__).parent
LATEST = HERE / "latest.json"
PERFORMANCE = HERE.parent / "docs" / "explanation" / "performance.md"
#: Pages that have the table, between these marks.
PAGES = (HERE.parent / "README.md", PERFORMANCE)
BEGIN, END = "<!-- bench: begin -->", "<!-- bench: end -->"
#: The targets are on one page only.
TARGET_MARKS = ("<!-- targets: begin -->", "<!-- targets: end -->")

NAMES: Mapping[str, str] = {
    "notifier": "notifier",
    "celery_naive": "Celery, as first written",
    "celery_tuned": "Celery, tuned",
    "post_office": "django-post_office",
    "smtp_source": "smtp-source (the limit)",
}


@dataclass(frozen=True, slots=True)
class Target:
    """One of the promises. `at_least`: more is better."""

    what: str
    target: float
    found: float | None
    at_least: bool = True

    @property
    def reached(self) -> bool | None:
        """Whether it was reached; None: it was not measured."""
        if self.found is None:
            return None
        return self.found >= self.target if self.at_least else self.found <= self.target

    def as_json(self) -> dict[str, Any]:
        """As JSON, with the verdict."""
        sign = "≥" if self.at_least else "≤"
        found = None if self.found is None else round(self.found, 2)
        return {"what": self.what, "target": f"{sign} {self.target:g}", "found": found, "reached": self.reached}


def content(results: Results, sizes: Sizes, machine: Mapping[str, Any], seconds: float) -> dict[str, Any]:
    """Everything as JSON. What was not measured is left out."""
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
        **_costs(results),
        "http": results.http,
        "client": results.client,
        "model": results.model,
        "steady": results.steady,
        "ratios": {name: _ratios(values) for name, values in medians.items() if "notifier" in values},
        "spread": _spread(results),
    }
    made["targets"] = [target.as_json() for target in targets(made)]
    return made


def targets(found: Mapping[str, Any]) -> list[Target]:
    """The targets; docs/explanation/performance.md says where they come from."""

    def ratio(scenario: str, peer: str) -> float | None:
        value: float | None = found["ratios"].get(scenario, {}).get(peer)
        return value

    def milliseconds(scenario: str, rank: str) -> float | None:
        value: float | None = found["latency_ms"].get(scenario, {}).get(rank)
        return value

    searches = [found["audit_ms"][name]["p95"] for name in PROMISED if name in found["audit_ms"]]
    ours = found["memory_mb"].get("notifier", {})
    memory = [size for name, size in ours.items() if name.startswith("worker-normal")]
    slow = ("with_100ms_server", "server takes 100 ms, settings as they were", 80, 35)
    sized = ("with_100ms_server_sized", "server takes 100 ms, connections for it", 30, 6)
    made = [
        Target("mails a second, × Celery as first written", 20, ratio("throughput", "celery_naive")),
        Target("mails a second, × django-post_office", 5, ratio("throughput", "post_office")),
        Target("mails a second, × smtp-source", 0.2, ratio("throughput", "smtp_source")),
    ]
    for scenario, words, celery, post_office in (slow, sized):
        made.append(Target(f"{words}, × Celery as first written", celery, ratio(scenario, "celery_naive")))
        made.append(Target(f"{words}, × django-post_office", post_office, ratio(scenario, "post_office")))
    return [
        *made,
        Target("idle, p50, ms", 10, milliseconds("idle", "p50"), at_least=False),
        Target("idle, p99, ms", 25, milliseconds("idle", "p99"), at_least=False),
        Target("half load, p50, ms", 25, milliseconds("half_load", "p50"), at_least=False),
        Target("half load, p95, ms", 80, milliseconds("half_load", "p95"), at_least=False),
        Target("urgent while bulk waits, p95, ms", 60, milliseconds("urgent_under_bulk", "p95"), at_least=False),
        Target("audit search, the slowest p95, ms", 15, max(searches, default=None), at_least=False),
        Target("SMS a second, Twilio takes 150 ms", 3000, found["sms"].get("notifier")),
        Target(
            "processor time of a mail, all in, µs",
            430,
            found.get("cpu_us_per_mail", {}).get("together"),
            at_least=False,
        ),
        Target("write-ahead log of a mail, bytes", 3800, found.get("wal_bytes_per_mail"), at_least=False),
        Target("one worker process under full load, MB", 130, max(memory, default=None), at_least=False),
    ]


def compare(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The ratios of two runs side by side, and how they changed."""
    lines = [f"| × | {before['date'][:16]} | {now['date'][:16]} | apart |", "|---|---:|---:|---:|"]
    for scenario, peers in now["ratios"].items():
        for peer, ratio in peers.items():
            old = before["ratios"].get(scenario, {}).get(peer)
            if old and ratio:
                apart = max(old, ratio) / min(old, ratio) - 1
                lines.append(f"| {scenario}, {NAMES[peer]} | {old:g} | {ratio:g} | {apart:.0%} |")
    return "\n".join(lines)


#: Searches that have a target: by recipient, reference, status or time.
PROMISED = (
    *("recipient", "reference", "status", "status_deep", "status_sent", "status_sent_deep"),
    *("time", "status_and_time", "newest", "deep", "story"),
)


def write(path: Path, made: Mapping[str, Any]) -> None:
    """Write the file completely, or not at all."""
    unfinished = path.with_suffix(".part")
    unfinished.write_text(json.dumps(made, indent=1, ensure_ascii=False) + "\n", "utf-8")
    unfinished.rename(path)


def table(found: Mapping[str, Any]) -> str:
    """The rates of all subjects side by side, as Markdown."""
    lines = [
        "| mails a second | every mail at once | after 100 ms | after 100 ms, sized for it |",
        "|---|---:|---:|---:|",
    ]
    columns = ("throughput", "with_100ms_server", "with_100ms_server_sized")
    for key, name in NAMES.items():
        cells = [_cell(found[column].get(key), found["absent"].get(key)) for column in columns]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    lines += _intake_table(found)
    machine = found["machine"]
    lines += [
        "",
        f"{machine['cores']} cores of {machine['cpu']}, {machine['memory_gib']} GiB, PostgreSQL "
        f"{machine['postgresql']}, RabbitMQ {machine['rabbitmq']}, Python {machine['python']}; "
        f"{found['rounds']} rounds, {found['date'][:10]}.",
    ]
    return "\n".join(lines)


def target_table(found: Mapping[str, Any]) -> str:
    """Each target with its result, as Markdown."""
    lines = ["| target | | found | |", "|---|---:|---:|---|"]
    for one in found["targets"]:
        mark = {True: "✓", False: "✗", None: "not measured"}[one["reached"]]
        lines.append(f"| {one['what']} | {one['target']} | {_plain(one['found'])} | {mark} |")
    return "\n".join(lines)


def _intake_table(found: Mapping[str, Any]) -> list[str]:
    """How fast messages are accepted, over HTTP and from a producer: lines; none if it was not measured."""
    lines = []
    http, client = found.get("http"), found.get("client")
    if http:
        lines += ["", "| messages a second over HTTP, p99 | 1 connection | 16 | 64 | 100 in a request |"]
        lines.append("|---|---:|---:|---:|---:|")
        columns = ("1", "16", "64", "batches_of_100")
        for name, words in (("notifier", "notifier"), ("celery_delay", "FastAPI and Celery's `delay()`")):
            lines.append(f"| {words} | {' | '.join(_with_p99(http[name].get(key)) for key in columns)} |")
    if client:
        lines += ["", "| messages a second from one producer, p99 | 1 thread | 16 | `send_many`, 100 at once |"]
        lines.append("|---|---:|---:|---:|")
        for name, words in (("client", "`notifier.Client`"), ("celery_delay", "Celery's `delay()`")):
            keys = (f"{name}_1", f"{name}_16", f"{name}_many_100")
            lines.append(f"| {words} | {' | '.join(_with_p99(client.get(key)) for key in keys)} |")
    return lines


def _with_p99(one: Mapping[str, Any] | None) -> str:
    return f"{_cell(one['rate'], None)}, {one['p99']:.3g} ms" if one else "–"


def put_into_pages(
    text: str, pages: tuple[Path, ...] = PAGES, marks: tuple[str, str] = (BEGIN, END)
) -> list[Path]:
    """Replace the text between the marks in each page that has them. Returns those pages."""
    done = []
    first, last = marks
    for page in pages:
        old = page.read_text("utf-8") if page.exists() else ""
        head, begin, rest = old.partition(first)
        _, end, tail = rest.partition(last)
        if begin and end:
            page.write_text(f"{head}{first}\n{text}\n{last}{tail}", "utf-8")
            done.append(page)
    return done


def _medians(rates: Mapping[str, Rates]) -> dict[str, float]:
    return {name: round(one.rate, 1) for name, one in rates.items()}


def _ratios(medians: Mapping[str, float]) -> dict[str, float]:
    """How many times as fast as each peer the service is."""
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
    """Memory under full load: subject → process → MB, for the largest process of its family; shared servers are
    left out."""
    return {
        name: {
            process: round(usage.largest_mb, 1)
            for process, usage in rates.usage.items()
            if not process.startswith("(")
        }
        for name, rates in results.throughput.items()
    }


def _costs(results: Results) -> dict[str, Any]:
    """What one mail of ours costs under full load: µs of processor time by part, bytes of the write-ahead log."""
    ours = results.throughput.get("notifier")
    if ours is None or not any(one.is_whole for one in ours.measurements):
        return {"cpu_us_per_mail": {}, "wal_bytes_per_mail": None}
    parts = parts_of(ours.cpu_us())
    written = ours.written()
    return {
        "cpu_us_per_mail": {
            part: round(cost, 1) for part, cost in {**parts, "together": sum(parts.values())}.items()
        },
        "wal_bytes_per_mail": round(written[0]) if written else None,
        "writing_transactions_per_mail": round(written[1], 4) if written else None,
    }


def _cell(rate: float | None, why: str | None) -> str:
    if rate is not None:
        return f"{rate:,.0f}".replace(",", " ")
    return f"absent: {why}" if why else "not measured"


def _plain(value: float | None) -> str:
    return "" if value is None else f"{value:g}"
