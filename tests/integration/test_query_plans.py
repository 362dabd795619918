"""How Postgres finds rows in hand: by their ids, also in a partition of which it has no statistics yet."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID
from zoneinfo import ZoneInfo

import pytest
from psycopg.sql import SQL, Literal
from sqlalchemy import Engine, TextClause, event, text

from notifier.console.app import add_console
from notifier.console.pages import MENU
from notifier.domain.local_days import day_bounds
from notifier.domain.message import Message, new_id
from notifier.domain.statuses import Channel, Lane, OnUnknown
from notifier.domain.validation import check
from notifier.operations.api_keys import Scope
from notifier.store import (
    circuits,
    claim_sql,
    failures,
    heartbeats,
    ledger_sql,
    metrics,
    producers,
    provider_reports,
)
from notifier.store.daily_statistics import COUNT_DAY
from notifier.store.engine import make_engine, transaction
from notifier.store.ledger import Ledger
from notifier.store.records import NewNotification
from notifier.store.schema.partitions import Month, first_id
from tests.support.api import Api
from tests.support.console import Browser
from tests.support.templates import write_templates

BACKLOG = 2000
ROWS = json.dumps([{"id": str(new_id()), "claim": 1, "number": 1, "status": "sent", "provider": "smtp"}])
IDS = [str(new_id())]

CLAIMS: dict[str, dict[str, Any]] = {
    "WAIT_FOR": {"ids": IDS},
    "CLAIM": {"ids": IDS, "lease": 60, "token": IDS[0]},
    "CONFIRM_CLAIMS": {"ids": IDS, "token": IDS[0]},
    "START_ATTEMPTS": {"rows": ROWS, "margin": 10, "wishes": ["opted_out"], "simulator": "simulator"},
    "STARTED": {"rows": ROWS, "margin": 10, "token": None},
    "READ_QUEUED": {"ids": IDS},
    "CLAIM_AND_START": {
        "rows": ROWS,
        "lease": 60,
        "token": IDS[0],
        "wishes": ["opted_out"],
        "simulator": "simulator",
    },
}
PARAMETERS: dict[str, dict[str, Any]] = {
    "REQUEUE_SOON": {"ids": IDS, "seconds": 2},
    "GIVE_BACK": {"rows": ROWS, "before_sent": ["sending"], "after_unknown": ["sent"], "token": None},
    "FINISH_ATTEMPTS": {"rows": ROWS},
    "FINISH": {"rows": ROWS, "before_sent": ["sending"], "after_unknown": ["sent"]},
    "FINISH_WITH_MESSAGES": {"rows": ROWS, "before_sent": ["sending"], "after_unknown": ["sent"]},
}


#: Of one notification, or of those that are asked about.
RECEIPTS: dict[str, dict[str, Any]] = {
    "_LOCK": {"id": IDS[0], "attempt": 1, "providers": ["twilio"]},
    "_FIND": {"id": IDS[0], "attempt": 1},
    "_WRITE": {
        **dict.fromkeys(("id", "provider_message_id", "provider", "reason", "detail", "words"), IDS[0]),
        "status": "sent",
        "sources": ["sending"],
        "attempt": 1,
        "due_in_seconds": 300,
        "occurred_at": None,
        "is_news": True,
        "is_listed": True,
        "taken": True,
    },
    "_SILENT": {"ids": IDS},
    "_ASK_AGAIN": {"rows": json.dumps([{"id": IDS[0], "seconds": 300}])},
    "_GIVE_UP": {"ids": IDS, "detail": "x"},
}


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    """With a backlog that no ANALYZE has seen."""
    engine = make_engine(database_url)
    entry = {"producer": "shop", "to": "ann@example.com", "template": "receipt"}
    news = [
        NewNotification(
            check(Message(idempotency_key=str(number), **entry), Channel.EMAIL, Lane.NORMAL),
            Channel.EMAIL,
            Lane.NORMAL,
            "v1",
            OnUnknown.RESEND,
            number,
        )
        for number in range(BACKLOG)
    ]
    ids = [answer.id for answer in Ledger(engine).accept(news)]
    Ledger(engine).claim(ids[: BACKLOG // 2], lease_seconds=60)
    yield engine
    engine.dispose()


def scans(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Every node that reads a table."""
    if "Relation Name" in plan and "Scan" in plan["Node Type"]:
        yield plan
    for inner in plan.get("Plans", []):
        yield from scans(inner)


def explain(
    engine: Engine, statement: TextClause, values: dict[str, Any], *, plans_by_values: bool = False
) -> dict[str, Any]:
    """Its plan for any values: the one that our sessions use, unless they plan by values."""
    compiled = statement.compile(engine)
    names: list[str] = []

    def number(placeholder: re.Match[str]) -> str:
        names.append(placeholder[1])
        return f"${len(names)}"

    numbered = re.sub(r"%\((\w+)\)s", number, str(compiled)).replace("%%", "%")
    given = compiled.construct_params(values)
    literals = SQL("({})").format(SQL(", ").join(Literal(given[name]) for name in names)) if names else SQL("")
    with transaction(engine, plans_by_values=plans_by_values) as connection:
        connection.exec_driver_sql(f"PREPARE explained AS {numbered.replace('%', '%%')}")
        cursor = connection.connection.cursor()
        cursor.execute(SQL("EXPLAIN (FORMAT JSON) EXECUTE explained {}").format(literals))
        plan: dict[str, Any] = cursor.fetchall()[0][0][0]["Plan"]
        cursor.execute("DEALLOCATE explained")
    return plan


@pytest.mark.parametrize(
    ("module", "name", "values"),
    [
        *((claim_sql, name, values) for name, values in CLAIMS.items()),
        *((ledger_sql, name, values) for name, values in PARAMETERS.items()),
        *((provider_reports, name, values) for name, values in RECEIPTS.items()),
    ],
)
def test_rows_in_hand_are_found_by_their_ids(
    engine: Engine, module: Any, name: str, values: dict[str, Any]
) -> None:
    found = list(scans(explain(engine, getattr(module, name), values)))
    assert found
    for scan in found:
        # Through a bitmap where nobody knows how many ids there will be.
        through = scan["Plans"][0] if scan["Node Type"] == "Bitmap Heap Scan" else scan
        key = "address_hash" if scan["Relation Name"] == "suppressions" else "id"
        assert f"{key} = " in through["Index Cond"]
        assert "status" not in through["Index Cond"]


def test_what_wakes_is_written_by_its_ids_and_found_among_what_has_not_ended(engine: Engine) -> None:
    rows = json.dumps([{"channel": "email", "provider": "smtp", "detail": "away"}])
    values = {"rows": rows, "woken": 200, "to_probe": 3, "least": 5, "asleep": 3600, "grace": 10}
    plan = explain(engine, circuits._WAKE, values)
    found, written = sorted(
        (scan for scan in scans(plan) if scan["Relation Name"] == "states"), key=lambda scan: str(scan["Alias"])
    )
    for scan, keys in ((found, ("status = ", "due_at > ")), (written, ("id = ",))):
        ways = [node["Index Cond"] for node in nodes(scan) if "Index Cond" in node]
        assert any(key in way for key in keys for way in ways)


def test_producers_are_found_from_name_to_name(engine: Engine) -> None:
    values = {"since": IDS[0], "newest": 100, "none": "none"}
    found = list(scans(explain(engine, producers._UNPROVEN, values)))
    assert len(found) > 2
    for scan in found:
        assert scan["Node Type"] in ("Index Scan", "Index Only Scan")
        # The first name needs no condition: since PostgreSQL 17 not even that it is not null.
        assert "producer" in scan.get("Index Cond", scan["Index Name"])


def test_heartbeats_are_found_by_their_producer(engine: Engine) -> None:
    found = list(scans(explain(engine, heartbeats.NEWEST, {"producer": "notifier-heartbeat", "low": IDS[0]})))
    assert {scan["Alias"].partition("_")[0] for scan in found} == {"m", "n"}
    for scan in found:
        [through] = scan.get("Plans", [scan])
        key = "producer = " if scan["Alias"].startswith("m") else "id = m.id"
        assert key in through["Index Cond"]


def test_soft_bounces_are_counted_by_the_address(engine: Engine) -> None:
    values = {"address_hash": b"32 bytes", "since": IDS[0]}
    found = list(scans(explain(engine, provider_reports._SOFT_BOUNCES, values)))
    assert found
    for scan in found:
        [through] = scan.get("Plans", [scan])
        key = "id = m.id" if scan["Relation Name"] == "states" else "address_hash = "
        assert key in through["Index Cond"]


def test_what_waits_is_counted_through_the_index_of_what_has_not_ended(engine: Engine) -> None:
    [states] = scans(explain(engine, metrics._WAITING, {}))
    [either] = states["Plans"]
    assert [way["Index Name"] for way in either["Plans"]] == ["ix_states_due_at", "ix_states_status_id"]


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from nodes(part)


def test_a_day_is_counted_in_the_partitions_of_its_months(engine: Engine) -> None:
    # It begins in the evening of the month before, by UTC.
    day = datetime.now(UTC).date().replace(day=1)
    bounds = day_bounds(day, ZoneInfo("Asia/Shanghai"))
    low, high = map(first_id, bounds)
    plan = explain(engine, COUNT_DAY, {"day": day, "low": low, "high": high}, plans_by_values=True)
    read = [scan for scan in scans(plan) if scan["Relation Name"] != "daily_statistics"]
    tables = {scan["Relation Name"] for scan in read}
    assert tables == {*(Month.of(moment).partition("messages") for moment in bounds), "states"}
    assert len(tables) == 3
    for scan in read:
        [through] = scan.get("Plans", [scan])
        assert through["Index Cond"].count("id >= ") == through["Index Cond"].count("id < ") == 1


def test_failures_are_read_from_the_newest_end_of_each_status(engine: Engine) -> None:
    values = {"statuses": ["failed", "undelivered"], "since": IDS[0], "most": 100}
    found = {scan["Alias"].partition("_")[0]: scan for scan in scans(explain(engine, failures._NEWEST, values))}
    states = found.pop("states")
    assert (states["Index Name"], states["Scan Direction"]) == ("ix_states_status_id", "Backward")
    assert "status = " in states["Index Cond"]
    assert "id = n.id" in found["m"]["Index Cond"]


#: Indexes of what waits or was given up: all of it is little.
PARTIAL = ("ix_callbacks_due", "ix_callbacks_parked")
#: What grows with the traffic.
GROWING = re.compile(r"(messages|attempts|events)_|states$|callbacks$|provider_messages$")


def is_narrow(node: dict[str, Any]) -> bool:
    return "Index Cond" in node or node["Node Type"] == "BitmapOr" or node.get("Index Name") in PARTIAL


def whole_reads(plan: dict[str, Any], *, is_limited: bool = False) -> Iterator[str]:
    """Tables that grow, and of which the plan reads all: by no condition, and to no limit."""
    is_limited = is_limited or plan["Node Type"] == "Limit"
    table = plan.get("Relation Name", "")
    if GROWING.match(table) and not is_limited:
        through = [plan, *plan.get("Plans", [])]
        if not any(is_narrow(node) for node in through):
            yield f"{table} by {plan.get('Index Name', plan['Node Type'])}"
    for part in plan.get("Plans", ()):
        yield from whole_reads(part, is_limited=is_limited)


def test_no_page_of_the_console_reads_all_of_what_grows(engine: Engine, database_url: str, tmp_path: Path) -> None:
    api = Api(database_url, write_templates(tmp_path))
    add_console(api.app, api.services, api.parts)
    admin = Browser(api)
    admin.sign_in(api.key(Scope.ADMIN, producer=None))
    executed: dict[str, Any] = {}

    def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
        executed[statement] = parameters

    event.listen(api.services.engine, "before_cursor_execute", note)
    for path in (*(item.path for item in MENU), f"/notifications/{newest(engine)}"):
        assert admin.get(path).status == 200, path
    assert admin.get("/search", status="failed").status == 200
    event.remove(api.services.engine, "before_cursor_execute", note)
    api.close()
    read = []
    for statement, parameters in executed.items():
        if statement.lstrip().startswith(("SELECT", "WITH")) and "set_config" not in statement:
            with transaction(engine) as connection:
                asked = f"EXPLAIN (FORMAT JSON) {statement}"
                [found] = connection.exec_driver_sql(asked, parameters).scalar_one()
            read += [(table, statement) for table in whole_reads(found["Plan"])]
    assert len(executed) > len(MENU)
    assert read == []


def newest(engine: Engine) -> UUID:
    with transaction(engine) as connection:
        found: UUID = connection.execute(text("SELECT id FROM states ORDER BY id DESC LIMIT 1")).scalar_one()
    return found


def test_many_new_rows_are_not_joined_one_by_one(engine: Engine) -> None:
    with transaction(engine) as connection:
        connection.execute(ledger_sql.JOIN_BY_HASH)
        explain = text(f"EXPLAIN (FORMAT JSON) {ledger_sql.ACCEPT_MANY.text}")
        [found] = connection.execute(explain, {"rows": ROWS}).scalar_one()
        joins = [node for node in nodes(found["Plan"]) if node["Node Type"] in ("Nested Loop", "Hash Join")]
        by_hash = [node for node in joins if node["Node Type"] == "Hash Join"]
        assert len(by_hash) == 3
        # The one row of a setting, before the others.
        [one_by_one] = [node for node in joins if node not in by_hash]
        assert one_by_one["Plans"][0].get("CTE Name") == "patience"
        connection.execute(ledger_sql.JOIN_BY_ID)
        assert connection.execute(text("SHOW enable_hashjoin")).scalar_one() == "off"
