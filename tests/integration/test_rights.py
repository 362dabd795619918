"""The rights that deploy/postgres/rights.sql grants are enough for the programs, and not more."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege
from pydantic import SecretStr

import notifier
from notifier.cli.operator_services import OperatorServices
from notifier.config.settings import Settings
from notifier.domain.statuses import JobState, Status, SuppressionReason
from notifier.operations import Selection
from notifier.operations.api_keys import Grants, Scope
from notifier.operations.upkeep import NIGHTLY
from notifier.store.engine import transaction
from notifier.store.re_encryption import Resealing
from notifier.store.restored import RestoredRepository
from notifier.store.retention import RetentionRepository, Span
from notifier.store.schema.all_tables import Base
from notifier.store.schema.partitions import first_id
from notifier.store.schema.rights import NEEDED
from notifier.store.search import Filter
from tests.support.api import run_all
from tests.support.columns import set_columns
from tests.support.receipts import NUMBER, Texts
from tests.unit.cli.commandline import CommandLine

FILE = Path(__file__).parents[2].joinpath("deploy", "postgres", "rights.sql").read_text("utf-8")
#: As PostgreSQL takes it: without what is psql's.
GRANTS = re.sub(r"^\\.*$", "", FILE, flags=re.MULTILINE)
PROGRAMS = Path(notifier.__file__).parent
PASSWORD = "change-me-4"
#: What retention deletes once it is the owner's.
OWNERS = {"messages", "states", "attempts", "events"}
#: Table → what the programs may change in it, where that is not every column.
COLUMNS = {
    table: set(re.findall(r"[a-z]\w*", found[1]))
    for table, needed in NEEDED.items()
    if (found := re.search(r"UPDATE \((.*)\)", ", ".join(needed)))
}


@pytest.fixture
def roles(database_url: str) -> Iterator[dict[str, str]]:
    """URL of the database for each role of the file, with its rights. Roles belong to the whole server, so their
    names here are the database's own."""
    database = urlsplit(database_url).path.strip("/")
    names = {role: f"{database}_{role}" for role in ("app", "auditor")}
    with psycopg.connect(_plain(database_url), autocommit=True) as owner:
        for name in names.values():
            owner.execute(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'".encode())
        owner.execute(re.sub(r"notifier_(app|auditor)\b", rf"{database}_\1", GRANTS).encode())
    yield {role: _as(name, database_url) for role, name in names.items()}
    with psycopg.connect(_plain(database_url), autocommit=True) as owner:
        for name in names.values():
            owner.execute(f"DROP OWNED BY {name}; DROP ROLE {name}".encode())


@pytest.fixture
def services(roles: dict[str, str]) -> Iterator[OperatorServices]:
    made = OperatorServices(Settings(database_url=SecretStr(roles["app"])), pool_size=4)
    yield made
    made.close()


def test_every_table_is_granted_to_the_programs() -> None:
    granted = set(re.findall(r"\w+", " ".join(re.findall(r" ON ([^;]*?) TO notifier_app;", GRANTS))))
    assert set(Base.metadata.tables) - granted == set()


def test_doctor_looks_for_what_the_file_grants() -> None:
    granted = {
        table: tuple(re.findall(r"[A-Z]+(?: \([^)]*\))?", re.sub(r"\s+", " ", privileges)))
        for privileges, tables in re.findall(
            r"^GRANT ([^;]*?)\s+ON ([^;]*?)\s+TO notifier_app;", GRANTS, re.MULTILINE
        )
        for table in re.findall(r"\w+", tables)
    }
    assert granted == NEEDED


def test_the_programs_may_delete_where_they_do_and_nowhere_else() -> None:
    statements = "".join(path.read_text("utf-8") for path in PROGRAMS.rglob("*.py") if "schema" not in path.parts)
    deleting = set(re.findall(r"DELETE FROM ([a-z]\w+)", statements))
    deleting |= {model.__tablename__ for model in _models() if f"delete({model.__name__})" in statements}
    # Named elsewhere, in a tuple.
    deleting |= {"minute_counts", "failed_counts"}
    allowed = re.findall(r"^GRANT [^;]*?DELETE ON ([^;]*?) TO notifier_app;", GRANTS, re.MULTILINE)
    assert set(re.findall(r"\w+", " ".join(allowed))) == deleting - OWNERS


def test_the_programs_may_change_the_columns_that_they_do_and_no_other() -> None:
    statements = "".join(path.read_text("utf-8") for path in PROGRAMS.rglob("*.py") if "schema" not in path.parts)
    changed = defaultdict(set, api_keys={"revoked_at"})  # by SQLAlchemy
    for table, values in re.findall(
        r"UPDATE (\w+)(?: AS \w+)? SET\s+(.*?)\s+(?:FROM|WHERE)\b", statements, re.DOTALL
    ):
        changed[table] |= set(re.findall(r"(?:^|, ?)\s*(\w+) =", _outermost(values)))
    assert {table: changed[table] for table in COLUMNS} == COLUMNS


def test_the_programs_do_their_work_with_these_rights(services: OperatorServices) -> None:
    texts = Texts(services.engine)
    claim = texts.send()
    texts.report(claim.id, "delivered")
    assert texts.status(claim.id) == Status.DELIVERED
    services.suppressions.add(
        channel=claim.channel,
        address=NUMBER,
        reason=SuppressionReason.MANUAL,
        source="operator:ann",
        detail="asked",
    )
    job = services.jobs.retry(Selection(filter=Filter(status=Status.FAILED)), operator="ann")
    services.jobs.dispatch(partial(run_all, services.jobs))
    assert services.jobs.find(job.id).state is JobState.DONE
    resealed = Resealing(services.engine, services.personal_data).run(rehash=True)
    assert not resealed.busy
    RestoredRepository(services.engine, services.hash_key).skip_callback_numbers()
    done = services.upkeep.run(NIGHTLY)
    assert {name: result for name, result in done.items() if isinstance(result, dict) and "failed" in result} == {}


def test_the_programs_change_what_they_must_with_these_rights(services: OperatorServices) -> None:
    texts = Texts(services.engine)
    sent = texts.send()
    [later] = texts.accept(send_at=datetime.now(UTC) + timedelta(days=1))
    another = datetime.now(UTC) + timedelta(days=2)
    moved = services.operations.reschedule(Selection((later,)), another, operator="ann")
    assert moved.changed == 1
    with transaction(services.engine) as connection:
        set_columns(connection, [sent.id], updated_at="sql: now() - interval '2 days'")
    day = Span(sent.channel, first_id(another - timedelta(days=4)), first_id(another))
    assert RetentionRepository(services.engine).redact_page(day).changed == 1
    services.suppressions.add(
        channel=sent.channel,
        address=NUMBER,
        reason=SuppressionReason.MANUAL,
        source="operator:ann",
        detail="asked",
    )
    assert services.suppressions.lift(channel=sent.channel, address=NUMBER, source="operator:ann")
    key = services.api_keys.create(Grants(scopes=(Scope.READ,), name="reports", producer="shop"), operator="ann")
    assert services.api_keys.holder(key.token)
    services.api_keys.rotate(key.id, overlap_seconds=60, operator="ann")
    assert services.api_keys.revoke(key.id, operator="ann")


def test_a_right_that_is_missing_is_named_with_the_grant_that_mends_it(
    database_url: str, roles: dict[str, str]
) -> None:
    doctor = CommandLine({"database_url": roles["app"]})
    app = urlsplit(roles["app"]).username
    with psycopg.connect(_plain(database_url), autocommit=True) as owner:
        assert _named(doctor, "rights") == (True, f"{app} has what the programs need", "")
        owner.execute(f"REVOKE ALL ON provider_messages, minute_counts FROM {app}".encode())
        owner.execute(f"REVOKE UPDATE ON messages FROM {app}".encode())
        ok, detail, fix = _named(doctor, "rights")
        assert (ok, detail) == (
            False,
            f"{app} lacks rights on messages, provider_messages, minute_counts: what uses them fails",
        )
        assert "the check `rights` names" in _named(doctor, "failures")[2]
        _, _, grants = fix.partition("as the owner of the tables: ")
        owner.execute(grants.encode())
        assert _named(doctor, "rights")[0]
        # As before the first grant.
        owner.execute(f"REVOKE ALL ON ALL TABLES IN SCHEMA public FROM {app}".encode())
        assert _named(doctor, "database")[0]
        assert f"GRANT SELECT ON alembic_version TO {app};" in _named(doctor, "rights")[2]


def test_nobody_rewrites_who_did_what_and_each_call(roles: dict[str, str]) -> None:
    columns = {table: Base.metadata.tables[table].columns.keys() for table in COLUMNS}
    assert {table: set(names) & COLUMNS[table] for table, names in columns.items()} == COLUMNS
    with psycopg.connect(_plain(roles["app"]), autocommit=True) as app:
        for table, names in columns.items():
            for name in names:
                statement = f"UPDATE {table} SET {name} = {name}".encode()
                if name in COLUMNS[table]:
                    app.execute(statement)
                else:
                    with pytest.raises(InsufficientPrivilege):
                        app.execute(statement)


def test_a_grant_of_whole_tables_does_not_outlast_the_file(database_url: str, roles: dict[str, str]) -> None:
    app = urlsplit(roles["app"]).username
    with psycopg.connect(_plain(database_url), autocommit=True) as owner:
        owner.execute(f"GRANT UPDATE ON ALL TABLES IN SCHEMA public TO {app}".encode())
        owner.execute(GRANTS.replace("notifier_app", str(app)).partition("DO $auditor$")[0].encode())
        for column, is_granted in (("operator", False), ("result", True)):
            asked = f"SELECT has_column_privilege('{app}', 'operator_records', '{column}', 'UPDATE')".encode()
            assert owner.execute(asked).fetchone() == (is_granted,)


def test_nobody_changes_or_deletes_what_happened(services: OperatorServices, roles: dict[str, str]) -> None:
    Texts(services.engine).send()
    with psycopg.connect(_plain(roles["app"]), autocommit=True) as app:
        for statement in (
            "UPDATE events SET detail = ''",
            "DELETE FROM events",
            "DELETE FROM messages",
            "DELETE FROM states",
        ):
            with pytest.raises(InsufficientPrivilege):
                app.execute(statement.encode())


def test_an_auditor_sees_no_contexts_and_writes_nothing(services: OperatorServices, roles: dict[str, str]) -> None:
    Texts(services.engine).send()
    with psycopg.connect(_plain(roles["auditor"]), autocommit=True) as auditor:
        assert auditor.execute(b"SELECT recipient, status FROM notifications").fetchall() == [(NUMBER, "sent")]
        for statement in ("SELECT context FROM notifications", "DELETE FROM suppressions"):
            with pytest.raises(InsufficientPrivilege):
                auditor.execute(statement.encode())


def _named(doctor: CommandLine, name: str) -> tuple[bool, str, str]:
    found = next(check for check in doctor("doctor", "--json").json if check["name"] == name)
    return found["ok"], found["detail"], found["fix"]


def _outermost(values: str) -> str:
    """Of an UPDATE: without parentheses and CASE … END."""
    while True:
        shorter = re.sub(r"CASE\b(?:(?!CASE\b).)*?\bEND\b|\([^()]*\)", "", values, flags=re.DOTALL)
        if shorter == values:
            return values
        values = shorter


def _models() -> list[type[Base]]:
    return [mapper.class_ for mapper in Base.registry.mappers if "__tablename__" in vars(mapper.class_)]


def _plain(url: str) -> str:
    return url.replace("postgresql+psycopg://", "postgresql://")


def _as(role: str, url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{role}:{PASSWORD}@{parts.netloc.rpartition('@')[2]}"))
