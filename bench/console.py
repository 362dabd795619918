"""`python -m bench.console`: how fast the pages of the console are with a million notifications on record.

Server time of each page and first paint of those that people open first. The table goes into
docs/explanation/performance.md with `--write`.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping
from contextlib import closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from bench import console_past, first_paint, past
from bench.console_past import Examples
from bench.console_requests import Asked, Visitor, measure
from bench.ground import provisioned
from bench.http_servers import make_key, running
from bench.machine import machine
from bench.report import put_into_pages
from bench.servers import DURABLE, FILLING
from bench.service import environment
from bench.subjects import Ground, Task
from bench.usage import OTHERS, sampling
from notifier.broker.inspection import Broker
from notifier.console.pages import MENU
from notifier.console.parts import CHECK_SECONDS
from notifier.dev.machine import free_port
from notifier.operations.api_keys import Scope
from tests.provisioning.commands import run_in_order, say

PAGE = Path(__file__).parents[1] / "docs" / "explanation" / "performance.md"
BEGIN, END = "<!-- console: begin -->", "<!-- console: end -->"
#: The product's templates; `bench` has only a few.
TEMPLATES = Path(__file__).parents[1] / "templates"
#: Milliseconds.
SERVER_TARGET, PAINT_TARGET = 200, 1000


def main() -> int:
    """Measure and print. Returns 1 if a page is slower than its target."""
    parser = argparse.ArgumentParser(prog="make console-bench", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="notifications on record")
    parser.add_argument("--requests", type=int, default=30, help="of each page, one at a time")
    parser.add_argument("--write", action="store_true", help="put the table into the docs")
    options = parser.parse_args()
    return run_in_order(lambda: _run(options))


def _run(options: argparse.Namespace) -> int:
    with provisioned() as ground:
        begun = time.monotonic()
        ground.postgres.start(FILLING)
        url = ground.databases.make()
        console_past.fill(url, options.rows)
        past.clean_up(url)
        ground.postgres.start(DURABLE)
        say(f"{options.rows} notifications, made in {time.monotonic() - begun:.0f} s")
        found = measure_pages(ground, url, options.requests)
        text = table(found, machine(ground), options.rows)
    say(text)
    if options.write:
        put_into_pages(text, (PAGE,), (BEGIN, END))
    return int(is_slow(found))


def measure_pages(ground: Ground, database_url: str, requests: int) -> dict[str, Any]:
    """`pages`: what `console_requests.measure` found, by name. `paints`: what `first_paint.measure` found.
    `others_percent`: how much of a core other programs used at the same time."""
    broker_url = ground.rabbitmq.make_vhost()
    with Broker.connect(broker_url) as broker:
        broker.declare()
    port = free_port()
    settings = environment(database_url, broker_url, Task(smtp_port=9)) | {
        "NOTIFIER_API_PORT": str(port),
        "NOTIFIER_TEMPLATES": str(TEMPLATES),
    }
    key = make_key(database_url, Scope.ADMIN)
    asked = pages(console_past.examples(database_url), datetime.now(UTC))
    with running(ground.folder, "console", ("-m", "notifier", "api"), settings, port) as pid:
        assert ground.postgres.pid is not None
        pids = {"console": pid, "postgresql": ground.postgres.pid}
        found = {}
        with closing(Visitor(port, key)) as visitor, sampling(pids) as usage:
            for name, page in asked.items():
                found[name] = measure(visitor, page, pids, requests)
                say(f"  {name:<44} {found[name]}")
        opened = {name: page.path for name, page in asked.items() if name in _OPENED_FIRST}
        paints = first_paint.measure(f"http://127.0.0.1:{port}", visitor.cookie, list(opened.values()))
    return {
        "pages": found,
        "paints": {name: paints[path] for name, path in opened.items() if path in paints},
        "others_percent": round(usage[OTHERS].cpu_percent),
    }


_OPENED_FIRST = (*(item.path for item in MENU), "a notification", "a template")


def pages(examples: Examples, now: datetime) -> Mapping[str, Asked]:
    """Every page in the menu with the filters that people use, and the pages to which its lists lead."""
    day = f"{now - timedelta(days=20):%Y-%m-%d}"
    searches = {
        "status=failed": {"status": "failed"},
        "status=sent": {"status": "sent"},
        "status=queued": {"status": "queued"},
        "reason=unreachable_recipient": {"reason": "unreachable_recipient"},
        "provider=twilio": {"provider": "twilio"},
        "channel=sms": {"channel": "sms"},
        "a producer": {"producer": "shop"},
        "a rare producer": {"producer": past.RARE_PRODUCER},
        "a rare template": {"template": past.RARE_TEMPLATE},
        "a rare template, status=failed": {"template": past.RARE_TEMPLATE, "status": "failed"},
        "a producer, status=failed": {"producer": "shop", "status": "failed"},
        "a producer, channel=sms": {"producer": "shop", "channel": "sms"},
        "reason=restored (none)": {"reason": "restored"},
        "provider=nobody (none)": {"provider": "nobody"},
        "template=nothing (none)": {"template": "nothing"},
        "a day": {"since": day, "until": day},
        "a day, status=failed": {"since": day, "until": day, "status": "failed"},
        "a day, reason=unreachable_recipient": {"since": day, "until": day, "reason": "unreachable_recipient"},
        "a recipient": {"to": examples.recipient},
        "a reference": {"reference": "order-4711"},
        "a reference (none)": {"reference": "order"},
    }
    begin = (now - timedelta(days=1)).isoformat()
    outage = {"status": "failed", "reason": "provider_unavailable", "begin": begin}
    suppressions = {
        "reason=hard_bounce": {"reason": "hard_bounce"},
        "reason=complaint": {"reason": "complaint"},
        "reason=manual": {"reason": "manual"},
        "reason=opted_out (none)": {"reason": "opted_out"},
        "source (none)": {"source": "operator:nobody"},
        "scope=category:digest": {"scope": "category:digest"},
        "channel=sms": {"channel": "sms"},
        "ended": {"ended": "true"},
    }
    return {
        **{item.path: Asked(item.path) for item in MENU},
        "/health/now": Asked("/health/now"),
        **{f"/health/rates, {span}": Asked(f"/health/rates?span={span}") for span in ("1h", "24h", "7d")},
        **{f"/search, {name}": _get("/search", query) for name, query in searches.items()},
        "the box: an address": Asked("/search", {"typed": "person7@example.com"}),
        "the box: an ID": Asked("/search", {"typed": str(examples.sent)}),
        "the box: a provider's ID": Asked("/search", {"typed": "r4711"}),
        "a notification": Asked(f"/notifications/{examples.sent}"),
        "one that failed": Asked(f"/notifications/{examples.failed}"),
        **{f"/failed, {span}": Asked(f"/failed?span={span}") for span in ("1h", "7d")},
        "/failed, dry run of a retry": _get("/failed/retry", outage),
        "/rejected, producer and code": _get("/rejected", {"producer": "shop", "code": "missing"}),
        "/dead-letters": Asked("/dead-letters"),
        "/unknown, a provider and a template": _get("/unknown", {"provider": "smtp", "template": "notice"}),
        **{f"/suppressions, {name}": _get("/suppressions", query) for name, query in suppressions.items()},
        "/suppressions, look up": Asked("/suppressions/look-up", {"address": "person7@example.com"}),
        "/templates, when their files are looked at": Asked("/templates", pause_seconds=CHECK_SECONDS),
        "a template": Asked("/templates/email/receipt"),
        "/log, an operator": _get("/log", {"operator": "mona"}),
        "/log, nobody": _get("/log", {"operator": "nobody"}),
        "/log, an action on a day": _get("/log", {"action": "retry", "day": day}),
    }


def _get(path: str, query: Mapping[str, str]) -> Asked:
    return Asked(f"{path}?{urlencode(query)}")


def is_slow(found: Mapping[str, Any]) -> bool:
    """Whether any page misses a target."""
    return any(one["p95"] > SERVER_TARGET for one in found["pages"].values()) or any(
        one["paint"] > PAINT_TARGET for one in found["paints"].values()
    )


def table(found: Mapping[str, Any], facts: Mapping[str, Any], rows: int) -> str:
    """As Markdown: one line for each page, then the date and the machine."""
    lines = ["| page | p50, ms | p95 | longest | CPU, console | CPU, PostgreSQL | first paint |"]
    lines.append("|---|---:|---:|---:|---:|---:|---:|")
    for name, one in found["pages"].items():
        paint = found["paints"].get(name)
        cells = [
            name,
            *(f"{one[key]:.0f}" for key in ("p50", "p95", "max", "cpu_console", "cpu_postgresql")),
            f"{paint['paint']:.0f} (≤ {paint['paint_max']:.0f})" if paint else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    lines += [
        "",
        f"{_spaced(rows)} notifications of {console_past.DAYS} days, {datetime.now(UTC):%Y-%m-%d}. "
        f"{facts['cores']} cores of {facts['cpu']}, {facts['memory_gib']} GiB, PostgreSQL {facts['postgresql']}, "
        f"Python {facts['python']}; other programs used {found['others_percent']} % of a core meanwhile.",
    ]
    return "\n".join(lines)


def _spaced(number: int) -> str:
    return f"{number:,}".replace(",", " ")


if __name__ == "__main__":
    sys.exit(main())
