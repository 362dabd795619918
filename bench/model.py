"""How many mails a second other machines would do: `python -m bench.model`.

A model of limits. Each part (workers, intake, PostgreSQL, RabbitMQ) costs so many microseconds of a core for
a mail, as measured under full load; a host does as many mails as its cores have time for the parts that run
on it, and never uses them whole (`busy`). One Python process does not use a whole core, because its threads
take turns (`process`). The disk of PostgreSQL takes so many bytes of its log a second, and so many flushes.
The least of these limits is the rate.

`busy` and `process` are fitted on two measurements, all cores with two workers and with one. The others of
`bench --only model` (one core; four workers) only check it. What no measurement here can show is what many
cores do to PostgreSQL, which is taken to cost the same for each mail, and what a network does.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

LATEST = Path(__file__).parent / "latest.json"
PAGE = Path(__file__).parents[1] / "docs" / "how-to" / "sizing.md"
BEGIN, END = "<!-- model: begin -->", "<!-- model: end -->"

PARTS = ("workers", "intake", "postgresql", "rabbitmq", "mail_server")
#: Maximum connections of each program: docs/how-to/run-in-production.md.
_CONNECTIONS = {"intake": 16, "workers": 20}
#: API, bounces, and people who look something up.
_OTHER_CONNECTIONS = 30


@dataclass(frozen=True, slots=True)
class Costs:
    """What a mail costs, and how far machines can be used."""

    #: Part → microseconds of a core.
    cpu_us: Mapping[str, float]
    #: Bytes of PostgreSQL's log, and its writing transactions.
    wal_bytes: float
    transactions: float
    #: What PostgreSQL's disk can take: bytes per second, and flushes per second.
    disk_bytes: float
    disk_flushes: float
    #: Share of all cores of a host that is used for work; share of one core that one Python process uses.
    busy: float = 1.0
    process: float = 1.0

    def of(self, parts: Sequence[str]) -> float:
        """Microseconds for a mail in these parts."""
        return sum(self.cpu_us[part] for part in parts)


@dataclass(frozen=True, slots=True)
class Host:
    """A host, or several of the same kind."""

    cores: int
    parts: Sequence[str]
    count: int = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """What runs where. If numbers of processes are not given, there are as many as needed."""

    hosts: Sequence[Host]
    workers: int | None = None
    intakes: int | None = None
    #: Complete copies, each with its own database and broker.
    cells: int = 1


@dataclass(frozen=True, slots=True)
class Prediction:
    """The predicted mails per second."""

    rate: float
    #: What would have to be increased to make it faster.
    limit: str
    #: Every limit of one cell, the tightest first.
    limits: Mapping[str, float]


def predict(costs: Costs, layout: Layout) -> Prediction:
    """The prediction: the smallest of all limits."""
    limits = {
        f"cores for {_words(host.parts)}": host.count * host.cores * costs.busy * 1e6 / costs.of(host.parts)
        for host in layout.hosts
    }
    for part, count in (("workers", layout.workers), ("intake", layout.intakes)):
        if count is not None:
            limits[f"processes of {part}"] = count * costs.process * 1e6 / costs.cpu_us[part]
    limits["bytes of PostgreSQL's log"] = costs.disk_bytes / costs.wal_bytes
    limits["flushes of PostgreSQL's log"] = costs.disk_flushes / costs.transactions
    ordered = dict(sorted(limits.items(), key=lambda item: item[1]))
    name, rate = next(iter(ordered.items()))
    return Prediction(layout.cells * rate, name, ordered)


def fit(costs: Costs, *, cores: int, rate: float, rate_of_one_worker: float) -> Costs:
    """`busy` from the rate with every core at work, `process` from the rate of one worker, which limits that rate.

    With one worker, the cores may become the limit first; then `process` is what the worker got.
    """
    busy = min(1.0, rate * costs.of(PARTS) / (1e6 * cores))
    process = min(1.0, rate_of_one_worker * costs.cpu_us["workers"] / 1e6)
    return replace(costs, busy=busy, process=process)


def check(costs: Costs, measured: Mapping[tuple[int, int], float]) -> list[dict[str, Any]]:
    """Prediction beside measurement. `measured`: (cores, workers) → mails per second, all on one host."""
    rows = []
    for (cores, workers), rate in sorted(measured.items(), reverse=True):
        one = predict(costs, Layout([Host(cores, PARTS)], workers=workers, intakes=1))
        rows.append(
            {
                "cores": cores,
                "workers": workers,
                "measured": round(rate, 1),
                "predicted": round(one.rate, 1),
                "off_by": round(one.rate / rate - 1, 3),
                "limit": one.limit,
            }
        )
    return rows


_PROGRAMS = ("workers", "intake")
#: First everything on one host, then each part on its own. The mail server is elsewhere.
SIZES: Mapping[str, Layout] = {
    "one host of 2 cores": Layout([Host(2, PARTS[:-1])]),
    "one host of 4 cores": Layout([Host(4, PARTS[:-1])]),
    "one host of 8 cores": Layout([Host(8, PARTS[:-1])]),
    "PostgreSQL 4, RabbitMQ 2, programs 8": Layout(
        [Host(4, ["postgresql"]), Host(2, ["rabbitmq"]), Host(8, _PROGRAMS)]
    ),
    "PostgreSQL 8, RabbitMQ 4, programs 2 × 16": Layout(
        [Host(8, ["postgresql"]), Host(4, ["rabbitmq"]), Host(16, _PROGRAMS, 2)]
    ),
    "PostgreSQL 16, RabbitMQ 8, programs 4 × 16": Layout(
        [Host(16, ["postgresql"]), Host(8, ["rabbitmq"]), Host(16, _PROGRAMS, 4)]
    ),
    "4 cells, each of PostgreSQL 8, RabbitMQ 4, programs 2 × 16": Layout(
        [Host(8, ["postgresql"]), Host(4, ["rabbitmq"]), Host(16, _PROGRAMS, 2)], cells=4
    ),
}


def table(model: Mapping[str, Any]) -> str:
    """The check and the sizes as Markdown, from the key `model` of a result."""
    costs = Costs(**model["costs"])
    heads = "on this machine | measured | model | apart | limit | other programs used"
    lines = [f"| {heads} |", "|---|---:|---:|---:|---|---:|"]
    for row in model["checks"]:
        cells = [
            f"{_count(row['cores'], 'core')}, {_count(row['workers'], 'worker')}",
            *(_number(row["measured"]), _number(row["predicted"])),
            f"{row['off_by']:+.0%}" + (", fitted" if [row["cores"], row["workers"]] in model["fitted_on"] else ""),
            row["limit"],
            f"{row.get('others_percent', 0)} % of a core",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    heads = "computed for | mails a second | first limit | next one | workers, intakes | connections | log, MB/s"
    lines += ["", f"| {heads} |", "|---|---:|---|---|---:|---:|---:|"]
    lines += [_size(name, layout, costs) for name, layout in SIZES.items()]
    return "\n".join(lines)


def _size(name: str, layout: Layout, costs: Costs) -> str:
    one = predict(costs, layout)
    of_cell = one.rate / layout.cells
    first, second, *_ = one.limits.items()
    needed = {
        part: layout.cells * math.ceil(of_cell * costs.cpu_us[part] / (1e6 * costs.process)) for part in _PROGRAMS
    }
    connections = sum(_CONNECTIONS[part] * count for part, count in needed.items()) // layout.cells
    cells = [
        *(name, _number(one.rate), first[0], f"{second[0]} ({_number(layout.cells * second[1])})"),
        f"{needed['workers']}, {needed['intake']}",
        _number(connections + _OTHER_CONNECTIONS) + (" each" if layout.cells > 1 else ""),
        f"{of_cell * costs.wal_bytes / 1e6:.0f}" + (" each" if layout.cells > 1 else ""),
    ]
    return f"| {' | '.join(cells)} |"


def _words(parts: Sequence[str]) -> str:
    return "everything" if len(parts) > len(_PROGRAMS) else " and ".join(parts)


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


def _number(value: float) -> str:
    """Three significant digits, because more would promise too much."""
    digits = max(0, int(math.log10(value)) - 2) if value >= 1 else 0
    return f"{round(value, -digits):,.0f}".replace(",", " ")


def as_json(costs: Costs) -> dict[str, Any]:
    """The values that `table` reads."""
    return asdict(costs) | {"cpu_us": {part: round(cost, 1) for part, cost in costs.cpu_us.items()}}


def main() -> None:
    """Print the tables, or the prediction for one layout."""
    parser = argparse.ArgumentParser(prog="python -m bench.model", description=__doc__)
    parser.add_argument("--result", type=Path, metavar="FILE", default=LATEST, help="the JSON of a run")
    parser.add_argument("--write", action="store_true", help="into docs/how-to/sizing.md")
    parser.add_argument("--cores", type=int, help="of each host of the programs; the tables if absent")
    parser.add_argument("--hosts", type=int, default=1, help="of the programs")
    parser.add_argument("--postgresql", type=int, default=8, metavar="CORES")
    parser.add_argument("--rabbitmq", type=int, default=4, metavar="CORES")
    options = parser.parse_args()
    model = json.loads(options.result.read_text("utf-8")).get("model")
    if not model:
        sys.exit(f"{options.result} holds no model: run python -m bench --only model --output FILE")
    if options.cores:
        hosts = [
            Host(options.postgresql, ["postgresql"]),
            Host(options.rabbitmq, ["rabbitmq"]),
            Host(options.cores, _PROGRAMS, options.hosts),
        ]
        found = predict(Costs(**model["costs"]), Layout(hosts))
        for name, rate in found.limits.items():
            sys.stdout.write(f"{_number(rate):>12} mails a second: {name}\n")
        return
    sys.stdout.write(f"{table(model)}\n")
    if options.write:
        from bench.report import put_into_pages

        put_into_pages(table(model), (PAGE,), (BEGIN, END))


if __name__ == "__main__":
    main()
