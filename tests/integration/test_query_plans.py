"""How Postgres finds rows in hand: by their ids, also in a partition of which it has no statistics yet."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from psycopg.sql import SQL, Literal
from sqlalchemy import Engine, TextClause, text

from notifier.domain.local_days import day_bounds
from notifier.domain.message import Message, new_id
from notifier.domain.statuses import Channel, Lane, OnUnknown
from notifier.domain.validation import check
from notifier.store import claim_sql, heartbeats, ledger_sql, metrics, producers, provider_reports
from notifier.store.daily_statistics import COUNT_DAY
from notifier.store.engine import make_engine, transaction
from notifier.store.ledger import Ledger
from notifier.store.records import NewNotification
from notifier.store.schema.partitions import Month, first_id

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
    "HURRY": {"ids": IDS, "seconds": 2},
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
            check(Message(idempotency_key=str(number), **entry), Channel.EMAIL, Lane.NORMAL),  # type: ignore[arg-type]
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
        plan: dict[str, Any] = cursor.fetchone()[0][0]["Plan"]
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


def test_producers_are_found_from_name_to_name(engine: Engine) -> None:
    values = {"since": IDS[0], "newest": 100, "none": "none"}
    found = list(scans(explain(engine, producers._UNPROVEN, values)))
    assert len(found) > 2
    for scan in found:
        assert scan["Node Type"] in ("Index Scan", "Index Only Scan")
        assert "producer" in scan["Index Cond"]


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
