"""The past that searches and rates are measured on is one that the service could have written."""

from __future__ import annotations

from collections.abc import Iterator

import psycopg
import pytest

from bench import audits, past
from notifier.store.engine import make_engine
from notifier.store.search import Audit, Filter

ROWS = 3000


@pytest.fixture
def audit(database_url: str) -> Iterator[Audit]:
    past.fill(database_url, ROWS)
    past.clean_up(database_url)
    engine = make_engine(database_url)
    yield Audit(engine)
    engine.dispose()


def test_past_is_whole_and_in_its_partitions(audit: Audit, database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        counts = [
            connection.execute(f"SELECT count(*) FROM {table}").fetchone()
            for table in ("notifications", "events", "idempotency_keys", "messages_default", "events_default")
        ]
        wrong = connection.execute(
            "SELECT count(*) FROM notifications AS n WHERE attempt_count <>"
            " (SELECT count(*) FROM attempts AS a WHERE a.notification_id = n.id)"
        ).fetchone()
    assert counts == [(ROWS,), (3 * ROWS,), (ROWS,), (0,), (0,)]
    assert wrong == (0,)
    assert all(one.count > 0 for one in audit.count())


def test_past_is_found_by_its_recipients_and_tells_a_story(audit: Audit) -> None:
    found = audit.search(Filter(recipient="person7@example.com"), limit=10_000)
    assert found
    assert [event.status for event in audit.story(found[0].id).events][:2] == ["queued", "sending"]


def test_partition_has_every_index_of_its_table(audit: Audit, database_url: str) -> None:
    query = "SELECT count(*) FROM pg_indexes WHERE tablename = %s"
    with psycopg.connect(database_url) as connection:
        month = connection.execute(
            "SELECT min(tablename) FROM pg_tables WHERE tablename LIKE 'messages_y%'"
        ).fetchone()
        assert month is not None
        expected = connection.execute(query, ["messages"]).fetchone()
        assert connection.execute(query, [month[0]]).fetchone() == expected


def test_searches_name_their_indexes(audit: Audit, database_url: str) -> None:
    found = audits.measure(database_url, ROWS, say=lambda _: None, searches=5)
    assert found["recipient"]["p95"] > 0
    assert "messages (address_hash, id)" in found["recipient"]["indexes"]
