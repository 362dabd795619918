"""Migrations and partitions on a real Postgres."""

from __future__ import annotations

import re
import threading
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy import Engine, text

from notifier.domain.errors import ConfigurationError, ServiceUnavailable
from notifier.domain.message import new_id
from notifier.store.engine import make_engine, transaction
from notifier.store.ledger import Ledger
from notifier.store.schema.all_tables import Base
from notifier.store.schema.partitions import PARTITIONED, ensure_partitions, first_id, month_after
from notifier.store.schema.revisions import missing_upgrade, revisions
from notifier.store.schema.table_locks import LOCK_SECONDS
from notifier.store.schema.upgrade import upgrade
from tests.support.next_version import NEXT_REVISION, write_next_revisions
from tests.waiting import patient


def test_the_migrations_make_exactly_what_the_models_say(database_url: str) -> None:
    engine = make_engine(database_url)
    partition = {"_y20", "_default"}

    def include(_object: object, name: str | None, kind: str, reflected: bool, _other: object) -> bool:
        return not (kind == "table" and reflected and name and any(mark in name for mark in partition))

    with transaction(engine) as connection:
        context = MigrationContext.configure(connection, opts={"include_object": include})
        assert compare_metadata(context, Base.metadata) == []
    engine.dispose()


def test_upgrading_twice_at_once_does_no_harm(empty_database_url: str) -> None:
    threads = [threading.Thread(target=upgrade, args=(empty_database_url,)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    engine = make_engine(empty_database_url)
    current, newest = revisions(engine)
    assert current == newest is not None
    engine.dispose()


def test_partitions_reach_from_last_month_to_three_ahead(database_url: str) -> None:
    engine = make_engine(database_url)
    with transaction(engine) as connection:
        names = set(connection.execute(text("SELECT relname FROM pg_class WHERE relispartition")).scalars())
    now = datetime.now(UTC)
    for table in PARTITIONED:
        for offset in (-1, 0, 1, 2, 3):
            assert f"{table}_y{month_after(now, offset):%Ym%m}" in names
        assert f"{table}_default" in names
    engine.dispose()


def test_two_beats_make_the_same_partitions_once(database_url: str) -> None:
    engine = make_engine(database_url)
    with transaction(engine) as connection:
        connection.execute(text(f"DROP TABLE events_y{month_after(datetime.now(UTC), 3):%Ym%m}"))
    made: list[str] = []
    threads = [threading.Thread(target=lambda: made.extend(ensure_partitions(engine).names)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert made == [f"events_y{month_after(datetime.now(UTC), 3):%Ym%m}"]
    engine.dispose()


def test_months_turn_over_at_the_year() -> None:
    december = datetime(2026, 12, 31, 23, 59, tzinfo=UTC)
    assert month_after(december, 1) == datetime(2027, 1, 1, tzinfo=UTC)
    assert month_after(december, -12) == datetime(2025, 12, 1, tzinfo=UTC)
    assert first_id(datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)).int == 1000 << 80


def test_a_database_that_is_not_migrated_is_waited_for(empty_database_url: str) -> None:
    engine = make_engine(empty_database_url)
    with pytest.raises(ServiceUnavailable, match="notifier db upgrade"):
        Ledger(engine).claim([new_id()], lease_seconds=60)
    engine.dispose()


def test_nobody_waits_long_behind_an_upgrade_that_waits_for_a_long_reader(
    database_url: str, tmp_path: Path
) -> None:
    engine, folder = make_engine(database_url), write_next_revisions(tmp_path / "next")
    upgrading = threading.Thread(target=upgrade, args=(database_url,), kwargs={"more_revisions": folder})
    waits = []
    with engine.connect() as reader:
        reader.execute(text("SELECT count(*) FROM notifications"))
        upgrading.start()
        ends_at = time.monotonic() + 2
        while time.monotonic() < ends_at:
            began = time.monotonic()
            Ledger(engine).claim([new_id()], lease_seconds=60)
            waits.append(time.monotonic() - began)
        assert upgrading.is_alive()
    upgrading.join(patient(30))
    assert revisions(engine)[0] == NEXT_REVISION
    # They did wait behind it, and a busy machine may add to that.
    assert 0.1 < max(waits) < LOCK_SECONDS + patient(2)
    engine.dispose()


def test_an_upgrade_that_never_gets_its_locks_says_what_to_do(database_url: str, tmp_path: Path) -> None:
    engine, folder = make_engine(database_url), write_next_revisions(tmp_path / "next")
    before, _ = revisions(engine)
    with engine.connect() as reader:
        reader.execute(text("SELECT count(*) FROM notifications"))
        with pytest.raises(ServiceUnavailable, match=r"let it end .* then run `notifier db upgrade` again"):
            upgrade(database_url, more_revisions=folder, lock_seconds=0.05, tries=2)
    assert revisions(engine)[0] == before
    engine.dispose()


def test_older_tables_are_not_enough_and_newer_ones_are(
    database_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = make_engine(database_url)
    assert missing_upgrade(engine) is None
    write_revision(engine, NEXT_REVISION)
    assert missing_upgrade(engine) is None
    write_revision(engine, "0001")
    versions = tmp_path / "migrations" / "versions"
    versions.mkdir(parents=True)
    for name in ("0001_tables.py", "0021_what_the_next_version_adds.py"):
        (versions / name).touch()
    monkeypatch.setattr("notifier.store.schema.revisions.bundled", lambda name: tmp_path / name)
    expected = "the database is at revision 0001, this version needs 0021: run `notifier db upgrade`"
    assert missing_upgrade(engine) == expected
    engine.dispose()


@pytest.mark.parametrize("revision", ["0001", "0002", "0018"])
def test_tables_from_before_the_first_release_are_refused_with_the_fix(database_url: str, revision: str) -> None:
    engine = make_engine(database_url)
    write_revision(engine, revision)
    if revision == "0001":
        with transaction(engine) as connection:
            connection.execute(text("DROP TABLE states CASCADE"))
    expected = (
        f"the database has tables from before the first release (revision {revision}), which cannot be upgraded: "
        "use a new, empty database, or delete the data folder of `notifier up`"
    )
    assert missing_upgrade(engine) == expected
    with pytest.raises(ConfigurationError, match=re.escape(expected)):
        upgrade(database_url)
    assert revisions(engine)[0] == revision
    engine.dispose()


def write_revision(engine: Engine, revision: str) -> None:
    with transaction(engine) as connection:
        connection.execute(text("UPDATE alembic_version SET version_num = :revision"), {"revision": revision})
