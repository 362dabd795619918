"""What a run is reduced to: the medians, the verdicts on the targets, the tables in the pages."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from bench import report
from bench.figures import percentiles, slope
from bench.scenarios import Results, Sizes
from bench.throughput import Measurement, Rates
from bench.usage import Usage

MACHINE = {
    "cores": 2,
    "cpu": "a processor",
    "memory_gib": 8,
    "postgresql": "17",
    "rabbitmq": "4",
    "python": "3.11",
}
RATES = {"notifier": [4000.0, 3000.0, 5000.0], "celery_naive": [200.0], "post_office": [1000.0]}


@pytest.fixture
def found() -> dict[str, Any]:
    usage = {"worker-normal-1": Usage(largest_mb=120.0), "(postgres)": Usage(largest_mb=900.0)}
    results = Results(absent={"smtp_source": "it is not installed"})
    results.throughput = {
        name: Rates([Measurement(rate, 10, 1.0, True, usage) for rate in rates]) for name, rates in RATES.items()
    }
    results.audit = {"recipient": {"p50": 1.0, "p95": 2.0}, "producer_rare": {"p50": 900.0, "p95": 1000.0}}
    return report.content(results, Sizes(10, 3, 1000), MACHINE, 60)


def test_content_holds_medians_and_ratios(found: dict[str, Any]) -> None:
    assert found["throughput"] == {"notifier": 4000, "celery_naive": 200, "post_office": 1000}
    assert found["ratios"]["throughput"] == {"celery_naive": 20, "post_office": 4}


def test_memory_is_of_the_processes_of_the_service_only(found: dict[str, Any]) -> None:
    assert found["memory_mb"]["notifier"] == {"worker-normal-1": 120}


def test_target_is_reached_missed_or_not_measured(found: dict[str, Any]) -> None:
    verdicts = {one["what"]: one["reached"] for one in found["targets"]}
    assert verdicts["mails a second, × Celery as first written"] is True
    assert verdicts["mails a second, × django-post_office"] is False
    assert verdicts["mails a second, × smtp-source"] is None


def test_search_without_a_target_is_not_judged(found: dict[str, Any]) -> None:
    (verdict,) = (one for one in found["targets"] if one["what"].startswith("audit"))
    assert (verdict["found"], verdict["reached"]) == (2, True)


def test_target_that_was_not_measured_says_so(found: dict[str, Any]) -> None:
    assert "| mails a second, × smtp-source | ≥ 0.2 |  | not measured |" in report.target_table(found)


def test_table_says_why_a_peer_is_absent(found: dict[str, Any]) -> None:
    assert "absent: it is not installed" in report.table(found)


def test_costs_are_of_the_parts_of_the_service() -> None:
    usage = {
        "worker-normal-1": Usage(cpu_seconds=0.02),
        "worker-urgent": Usage(cpu_seconds=0.01),
        "beat": Usage(cpu_seconds=0.001),
        "intake": Usage(cpu_seconds=0.006),
        "(postgres)": Usage(cpu_seconds=0.01),
        "(mail server)": Usage(cpu_seconds=0.002),
        "(rabbitmq)": Usage(cpu_seconds=0.003),
    }
    results = Results()
    results.throughput = {"notifier": Rates([Measurement(100, 100, 1.0, True, usage, (350_000, 3))])}
    found = report.content(results, Sizes(10, 3, 1000), MACHINE, 60)
    assert found["cpu_us_per_mail"] == {
        "workers": 310,
        "postgresql": 100,
        "intake": 60,
        "mail_server": 20,
        "rabbitmq": 30,
        "together": 520,
    }
    assert found["wal_bytes_per_mail"] == 3500
    verdicts = {one["what"]: one["reached"] for one in found["targets"]}
    assert verdicts["processor time of a mail, all in, µs"] is False
    assert verdicts["write-ahead log of a mail, bytes"] is True


def test_table_has_how_messages_are_taken(found: dict[str, Any]) -> None:
    one = {"rate": 1234.5, "p99": 9.87}
    counts = dict.fromkeys(("1", "16", "64"), one)
    taken = {
        "http": {"notifier": counts | {"batches_of_100": {"rate": 5000.0, "p99": 321.0}}, "celery_delay": counts},
        "client": {"client_1": one, "client_16": one, "celery_delay_1": one, "client_many_100": one},
    }
    text = report.table({**found, **taken})
    cell = "1 234, 9.87 ms"
    assert f"| notifier | {cell} | {cell} | {cell} | 5 000, 321 ms |" in text
    assert f"| FastAPI and Celery's `delay()` | {cell} | {cell} | {cell} | – |" in text
    assert f"| Celery's `delay()` | {cell} | – | – |" in text


def test_two_runs_are_put_side_by_side(found: dict[str, Any]) -> None:
    before = {**found, "ratios": {"throughput": {"celery_naive": 16.0}}}
    *_, line = report.compare(before, found).splitlines()
    assert line == "| throughput, Celery, as first written | 16 | 20 | 25% |"


def test_page_gets_the_table_between_its_marks_only(tmp_path: Path) -> None:
    page, other = tmp_path / "page.md", tmp_path / "other.md"
    page.write_text(f"before\n{report.BEGIN}\nold\n{report.END}\nafter\n", "utf-8")
    other.write_text("no marks\n", "utf-8")
    assert report.put_into_pages("new", (page, other, tmp_path / "absent.md")) == [page]
    assert page.read_text("utf-8") == f"before\n{report.BEGIN}\nnew\n{report.END}\nafter\n"


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert percentiles([float(value) for value in range(1, 101)]) == {
        "p50": 50,
        "p95": 95,
        "p99": 99,
        "max": 100,
        "count": 100,
    }
    assert percentiles([]) == {"count": 0}


def test_slope_is_of_a_line_and_zero_for_a_point() -> None:
    assert slope([(0, 1), (1, 3), (2, 5)]) == pytest.approx(2)
    assert slope([(1, 1)]) == 0
