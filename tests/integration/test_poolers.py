"""Behind a pooler that gives each transaction another session: a real pgbouncer, as it comes and set up."""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psycopg
import pytest
from sqlalchemy import Engine, text

from notifier import Client
from notifier.bootstrap import Services
from notifier.cli.checks import check_database
from notifier.cli.connection_checks import check_all_sessions
from notifier.config.settings import load_settings
from notifier.domain.errors import ConfigurationError, ServiceUnavailable
from notifier.domain.statuses import Channel
from notifier.rendering import Renderer
from notifier.store.engine import check_sessions, make_engine, transaction
from notifier.store.schema.upgrade import upgrade
from notifier.store.search import Filter
from notifier.store.session_options import OPTIONS, role_statements
from tests.support import forking
from tests.support.pgbouncer import running_pgbouncer
from tests.support.service import running_service
from tests.waiting import patient, wait_until

#: As it comes: start-up options are refused. And as who meets that sets it up: they are dropped silently.
AS_IT_COMES: dict[str, str] = {}
IGNORING = {"ignore_startup_parameters": "extra_float_digits,options"}

SETTINGS = text("SELECT " + ", ".join(f"current_setting('{name}')" for name in OPTIONS))


@pytest.fixture(params=[AS_IT_COMES, IGNORING], ids=["as it comes", "ignoring options"])
def pooled_url(request: pytest.FixtureRequest, database_url: str) -> Iterator[str]:
    with running_pgbouncer(database_url, **request.param) as url:
        yield url


@pytest.fixture
def engine(pooled_url: str) -> Iterator[Engine]:
    engine = make_engine(pooled_url, pool_size=8)
    yield engine
    engine.dispose()


@pytest.mark.parametrize("is_one_statement", [True, False], ids=["one statement", "a transaction"])
def test_every_statement_has_the_options_that_were_asked_for(engine: Engine, is_one_statement: bool) -> None:
    for _ in range(3):
        with transaction(engine, is_one_statement=is_one_statement) as connection:
            assert tuple(connection.execute(SETTINGS).one()) == tuple(OPTIONS.values())


def test_nothing_of_ours_stays_in_a_session_that_others_get(engine: Engine, pooled_url: str) -> None:
    with transaction(engine) as connection:
        connection.execute(SETTINGS)
    with psycopg.connect(pooled_url) as other:
        assert other.execute("SHOW enable_seqscan").fetchone() == ("on",)


def test_many_at_once_share_sessions_and_prepare_nothing(engine: Engine) -> None:
    add = text("INSERT INTO retention_marks (task, reached) VALUES (:task, gen_random_uuid())")

    def work(number: int) -> None:
        for turn in range(12):
            with transaction(engine, is_one_statement=turn % 2 == 0) as connection:
                connection.execute(add, {"task": f"{number}-{turn}"})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    with transaction(engine) as connection:
        assert connection.execute(text("SELECT count(*) FROM retention_marks")).scalar_one() == 8 * 12


def test_the_defaults_of_the_role_save_the_round_trips(database_url: str) -> None:
    with psycopg.connect(database_url, autocommit=True) as direct:
        role, database = direct.execute("SELECT current_user, current_database()").fetchone() or ("", "")
        for statement in role_statements(role, database):
            direct.execute(statement.encode())
    with running_pgbouncer(database_url) as url:
        engine = make_engine(url)
        session = check_sessions(engine)
        assert session is not None
        assert session.is_pooled
        assert session.wrong == {}
        with transaction(engine, is_one_statement=True) as connection:
            assert tuple(connection.execute(SETTINGS).one()) == tuple(OPTIONS.values())
        engine.dispose()


def test_prepared_statements_that_get_lost_are_given_up(engine: Engine) -> None:
    with transaction(engine) as connection:
        raw = connection.connection.driver_connection
        assert raw is not None
        with pytest.raises(ServiceUnavailable, match="prepared"), transaction(engine) as other:
            other.exec_driver_sql("EXECUTE nobody_prepared_this")
        assert raw.prepare_threshold is None


def test_a_direct_session_is_as_it_was_asked_for(database_url: str) -> None:
    engine = make_engine(database_url)
    session = check_sessions(engine)
    assert session is not None
    assert (session.is_pooled, session.wrong) == (False, {})
    engine.dispose()


def test_the_doctor_tells_of_a_pooler_and_how_to_save_round_trips(pooled_url: str) -> None:
    services = Services(load_settings(database_url=pooled_url), guarded=False)
    (check,) = check_all_sessions(services)
    assert check.ok
    assert check.detail.startswith("a pooler hands them out: ")
    assert "ALTER ROLE" in check.fix
    services.close()


def test_an_upgrade_works_through_a_pooler(empty_database_url: str) -> None:
    with running_pgbouncer(empty_database_url) as url:
        assert upgrade(url)
        assert upgrade(url) == []


def test_statement_mode_is_refused_with_the_fix(database_url: str) -> None:
    with running_pgbouncer(database_url, pool_mode="statement") as url:
        engine = make_engine(url)
        with pytest.raises(ConfigurationError, match="pool_mode = transaction"):
            check_sessions(engine)
        engine.dispose()
        services = Services(load_settings(database_url=url), guarded=False)
        (check,) = check_database(services)  # type: ignore[arg-type]
        assert (check.name, check.ok) == ("sessions", False)
        assert "pool_mode = transaction" in check.fix
        services.close()
        done = forking.run(
            [sys.executable, "-m", "notifier", "intake"],
            env={"NOTIFIER_DATABASE_URL": url, "NOTIFIER_BROKER_URL": "redis://127.0.0.1:1/0"},
            capture_output=True,
            text=True,
            timeout=patient(60),
            check=False,
        )
    assert done.returncode != 0
    assert "pool_mode = transaction" in done.stderr + done.stdout


def test_300_mails_are_each_sent_once_and_no_attempt_is_left(
    database_url: str, redis_broker_url: str, tmp_path: Path
) -> None:
    context = (
        Renderer(Path(__file__).parents[2] / "templates").template(Channel.EMAIL, "receipt").samples[0].context
    )
    with (
        running_pgbouncer(database_url, **IGNORING) as url,
        running_service(url, redis_broker_url, tmp_path) as service,
    ):
        with Client(redis_broker_url, producer="shop", timeout_seconds=10) as client:
            for number in range(300):
                client.send("receipt", f"customer{number}@example.com", context=context)
        wait_until(lambda: service.count("sent") == 300, timeout=90)
        arrived = Counter(mail.rcpt_to[0] for mail in service.mail.messages)
        assert len(arrived) == 300
        assert set(arrived.values()) == {1}
        for row in service.audit.search(Filter(), limit=300):
            attempts = service.audit.story(row.id).attempts
            assert [attempt.outcome for attempt in attempts] == ["accepted"]
