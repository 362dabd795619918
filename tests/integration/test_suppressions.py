"""Suppressions in the record: what holds, what has ended and why, and that no address is in it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Engine, text

from notifier.bootstrap import Services
from notifier.config.settings import Settings
from notifier.domain.errors import InvalidMessage
from notifier.domain.statuses import Channel, SuppressionReason
from notifier.feedback.suppressions import Suppressions
from notifier.security.recipient_hash import HashKey
from notifier.store.engine import make_engine, transaction
from notifier.store.suppressions import SuppressionFilter

ADA: dict[str, Any] = {"channel": Channel.EMAIL, "address": "ada@example.com"}
KEY = HashKey("a key of sixteen or more")


@pytest.fixture
def suppressions(engine: Engine) -> Suppressions:
    return Suppressions(engine, KEY)


def add(suppressions: Suppressions, reason: SuppressionReason = SuppressionReason.OPTED_OUT, **more: Any) -> bool:
    return suppressions.add(**ADA, reason=reason, source="operator:ops", **more)


def states(suppressions: Suppressions) -> list[tuple[str, str | None]]:
    return [(found.state, found.lifted_by) for found in suppressions.find(**ADA)]


def test_one_is_added_once_and_lifted_once_and_its_row_stays(suppressions: Suppressions) -> None:
    assert [add(suppressions), add(suppressions)] == [True, False]
    assert add(suppressions, scope="category:digest")
    assert add(suppressions, SuppressionReason.HARD_BOUNCE)
    assert suppressions.lift(**ADA, source="webhook:twilio", reason=SuppressionReason.OPTED_OUT)
    assert not suppressions.lift(**ADA, source="webhook:twilio", reason=SuppressionReason.OPTED_OUT)
    assert states(suppressions) == [("active", None), ("active", None), ("lifted", "webhook:twilio")]
    assert add(suppressions)
    assert suppressions.find(channel=Channel.SMS, address="+15550100123") == []


def test_the_address_is_nowhere_in_the_row(suppressions: Suppressions, engine: Engine) -> None:
    suppressions.add(
        channel=Channel.EMAIL, address="Ada <Ada@example.com>", reason=SuppressionReason.MANUAL, source="x"
    )
    with transaction(engine) as connection:
        (row,) = connection.execute(text("SELECT to_jsonb(s)::text FROM suppressions AS s")).scalars()
    assert "ada" not in row.lower()
    assert states(suppressions) == [("active", None)]


def test_one_that_expired_or_ends_sooner_makes_room(suppressions: Suppressions, engine: Engine) -> None:
    now = datetime.now(UTC)
    assert add(suppressions, expires_at=now + timedelta(minutes=1))
    with transaction(engine) as connection:
        connection.execute(text("UPDATE suppressions SET expires_at = now() - interval '1 second'"))
    assert states(suppressions) == [("expired", None)]
    assert not suppressions.lift(**ADA, source="operator:ops")
    assert add(suppressions, expires_at=now + timedelta(hours=2))
    assert not add(suppressions, expires_at=now + timedelta(hours=1))
    assert add(suppressions)
    assert not add(suppressions, expires_at=now + timedelta(hours=1))
    assert states(suppressions) == [("active", None), ("lifted", "replaced"), ("lifted", "expiry")]


def test_pages_go_from_the_newest_to_the_oldest(suppressions: Suppressions) -> None:
    for number in range(5):
        suppressions.add(
            channel=Channel.SMS,
            address=f"+1555010012{number}",
            reason=SuppressionReason.OPTED_OUT,
            source="import",
        )
    add(suppressions)
    wanted = SuppressionFilter(channel=Channel.SMS)
    first, before = suppressions.page(wanted, limit=3)
    second, end = suppressions.page(wanted, limit=3, before=before)
    assert (len(first), len(second), end) == (3, 2, None)
    assert [found.id for found in first + second] == sorted((found.id for found in first + second), reverse=True)
    assert len(list(suppressions.all(SuppressionFilter()))) == 6
    assert len(list(suppressions.all(SuppressionFilter(reason=SuppressionReason.COMPLAINT)))) == 0


def test_another_key_is_noticed(suppressions: Suppressions, engine: Engine) -> None:
    other = Suppressions(engine, HashKey())
    assert not other.has_other_key()
    add(suppressions)
    assert other.has_other_key()
    assert not suppressions.has_other_key()
    assert other.find(**ADA) == []
    assert other.lift_other_keys(source="operator:ops", detail="lost") == 1
    assert not other.has_other_key()
    assert states(suppressions) == [("lifted", "operator:ops")]


@pytest.mark.parametrize(("key", "is_wrong"), [("a key of sixteen or more", False), (None, True)])
def test_a_worker_that_starts_under_another_key_says_so(
    suppressions: Suppressions, database_url: str, key: str | None, is_wrong: bool
) -> None:
    add(suppressions)
    services = Services(Settings(database_url=database_url, hash_key=key))
    problem = services.hash_key_problem()
    services.close()
    assert ("NOTIFIER_HASH_KEY" in (problem or "")) is is_wrong


@pytest.mark.parametrize(
    ("values", "code"),
    [
        ({"address": "ada"}, "not_an_address"),
        ({"channel": Channel.SMS, "address": "0155 501"}, "not_e164"),
        ({"scope": "everything"}, "bad_format"),
        ({"scope": "category:a b"}, "bad_format"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_asked(values: dict[str, Any], code: str) -> None:
    suppressions = Suppressions(make_engine("postgresql://127.0.0.1:1/none"), KEY)
    with pytest.raises(InvalidMessage) as caught:
        suppressions.add(**ADA | values, reason=SuppressionReason.MANUAL, source="operator:ops")
    assert [fault.code for fault in caught.value.faults] == [code]


@pytest.mark.parametrize(
    ("expires_at", "code"),
    [
        (datetime(2020, 1, 1, tzinfo=UTC), "bad_time"),
        (datetime.max.replace(tzinfo=UTC), "too_far_ahead"),
    ],
)
def test_it_ends_in_time_to_come_by_the_databases_clock(
    suppressions: Suppressions, expires_at: datetime, code: str
) -> None:
    with pytest.raises(InvalidMessage) as caught:
        suppressions.add(**ADA, expires_at=expires_at, reason=SuppressionReason.MANUAL, source="operator:ops")
    assert [fault.code for fault in caught.value.faults] == [code]
