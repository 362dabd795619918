"""How long auditors wait: times of `notifier.store.search`'s searches over a long past, and the plans behind
them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any
from uuid import UUID

from sqlalchemy import Engine, event

from bench import past
from bench.figures import percentiles
from bench.throughput import Say
from notifier.store.engine import make_engine
from notifier.store.schema.partitions import first_id
from notifier.store.search import Audit, Filter

#: Searches of each kind, each for something different.
_SEARCHES = 200
#: For rare kinds, which take long if no index helps them: enough to know how long.
_FEW = 10
_LIMIT = 50
_DEEP_DAYS = 200


@dataclass(frozen=True, slots=True)
class Question:
    """One kind of search."""

    ask: Callable[[Random], object]
    searches: int = _SEARCHES


def measure(database_url: str, rows: int, *, say: Say, searches: int = _SEARCHES) -> dict[str, Any]:
    """Run every kind of search, with first and deep pages, at most `searches` of each. Returns milliseconds, and
    what PostgreSQL does for each kind."""
    engine = make_engine(database_url, pool_size=1, application="notifier bench")
    try:
        found = {}
        for name, question in _questions(Audit(engine), rows).items():
            found[name] = _measure(engine, question, searches)
            say(f"  {name:<28} {found[name]}")
        return found
    finally:
        engine.dispose()


def _questions(audit: Audit, rows: int) -> Mapping[str, Question]:
    now = datetime.now(UTC)
    people = past.people(rows)

    def search(wanted: Callable[[Random], Filter], *, deep: bool = False) -> Callable[[Random], object]:
        def ask(rng: Random) -> object:
            before: UUID | None = None
            if deep:
                before = first_id(now - timedelta(days=_DEEP_DAYS * rng.random()))
            return audit.search(wanted(rng), limit=_LIMIT, before=before)

        return ask

    def recipient(rng: Random) -> Filter:
        person = rng.randrange(people)
        sms = rng.random() < 0.2
        return Filter(recipient=f"+1555{person:08d}" if sms else f"person{person}@example.com")

    def reference(rng: Random) -> Filter:
        return Filter(reference=f"order-{rng.randrange(1, rows) // 2}")

    def hour(rng: Random) -> Filter:
        since = now - timedelta(days=_DEEP_DAYS * rng.random())
        return Filter(since=since, until=since + timedelta(hours=1))

    def status_in_day(rng: Random) -> Filter:
        since = now - timedelta(days=_DEEP_DAYS * rng.random())
        status = rng.choice(["failed", "undelivered", "unknown", "sent"])
        return Filter(status=status, since=since, until=since + timedelta(days=1))

    def one_of(**values: list[str]) -> Callable[[Random], Filter]:
        def choose(rng: Random) -> Filter:
            chosen: dict[str, Any] = {name: rng.choice(those) for name, those in values.items()}
            return Filter(**chosen)

        return choose

    failed, sent = one_of(status=["failed", "undelivered", "unknown"]), one_of(status=["sent", "delivered"])
    producer, template = one_of(producer=["shop", "billing", "tickets"]), one_of(template=["notice", "receipt"])
    rare = {"producer": [past.RARE_PRODUCER]}, {"template": [past.RARE_TEMPLATE]}
    ids = [one.id for one in audit.search(Filter(), limit=500, before=first_id(now - timedelta(days=30)))]
    return {
        "recipient": Question(search(recipient)),
        "reference": Question(search(reference)),
        "status": Question(search(failed)),
        "status_deep": Question(search(failed, deep=True)),
        "status_sent": Question(search(sent)),
        "status_sent_deep": Question(search(sent, deep=True)),
        "time": Question(search(hour)),
        "status_and_time": Question(search(status_in_day)),
        "producer": Question(search(producer)),
        "producer_deep": Question(search(producer, deep=True)),
        "producer_rare": Question(search(one_of(**rare[0])), _FEW),
        "template": Question(search(template)),
        "template_deep": Question(search(template, deep=True)),
        "template_rare": Question(search(one_of(**rare[1])), _FEW),
        "newest": Question(search(lambda _: Filter())),
        "deep": Question(search(lambda _: Filter(), deep=True)),
        "story": Question(lambda rng: audit.story(rng.choice(ids))),
    }


def _measure(engine: Engine, question: Question, searches: int) -> dict[str, Any]:
    rng = Random(1)
    times = []
    for number in range(min(question.searches, searches) + 2):
        begun = time.perf_counter()
        question.ask(rng)
        # The first two are different: their plans are made and their code is loaded.
        if number >= 2:
            times.append((time.perf_counter() - begun) * 1000)
    found = percentiles(times)
    return {key: found[key] for key in ("p50", "p95", "max", "count")} | _plan(engine, lambda: question.ask(rng))


def _plan(engine: Engine, ask: Callable[[], object]) -> dict[str, Any]:
    """What PostgreSQL does for the search: which indexes it uses, and which tables it reads completely."""
    statements: list[tuple[str, Any]] = []

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        statements.append((statement, parameters))

    event.listen(engine, "before_cursor_execute", note)
    try:
        ask()
    finally:
        event.remove(engine, "before_cursor_execute", note)
    indexes: set[str] = set()
    scanned: set[str] = set()
    for statement, parameters in statements:
        if not statement.lstrip().upper().startswith("SELECT"):
            continue
        with engine.connect() as connection:
            rows = connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {statement}", parameters).scalar_one()
        plan = rows if isinstance(rows, list) else json.loads(rows)
        for node in _nodes(plan[0]["Plan"]):
            if "Index Name" in node:
                indexes.add(_columns(engine, node["Index Name"]))
            # A partition without rows is read completely because nothing is shorter.
            elif node["Node Type"] == "Seq Scan" and node["Plan Rows"] > _LIMIT:
                scanned.add(node["Relation Name"])
    return {"indexes": sorted(indexes), "read_whole": sorted(scanned)}


def _nodes(node: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    yield node
    for child in node.get("Plans", ()):
        yield from _nodes(child)


def _columns(engine: Engine, index: str) -> str:
    """The columns of a partition's index, because its name says little."""
    with engine.connect() as connection:
        query = "SELECT indexdef FROM pg_indexes WHERE indexname = %s"
        definition = str(connection.exec_driver_sql(query, (index,)).scalar_one())
    columns = definition[definition.index("(") + 1 :].partition(")")[0]
    table = definition.partition(" ON public.")[2].partition(" ")[0].partition("_")[0]
    return f"{table} ({columns})"
