"""What tests rely on: servers that are real, something fresh for each test, nothing left behind."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
from pathlib import Path
from urllib.parse import urlsplit

import amqp
import psycopg
import pytest
import redis
from kombu import Connection

from notifier.dev.embedded import rabbitmq
from notifier.dev.embedded.binaries import find_rabbitmq
from notifier.dev.embedded.rabbitmq import accepts_amqp, amqp_connection
from notifier.dev.machine import free_port, make_temporary_folder
from notifier.dev.processes import command_line
from tests.profiles import is_full
from tests.provisioning.databases import Databases, database_of, with_database
from tests.provisioning.rabbitmq import AmqpServer, GivenRabbitmq, PrivateRabbitmq
from tests.provisioning.services import MissingService, RedisServer, Services, find_postgres
from tests.waiting import patient, wait_until


def test_database_is_at_the_newest_revision(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM alembic_version").fetchone() == (1,)
        connection.execute("CREATE TABLE left_by_a_test ()")


@pytest.mark.parametrize("round_", range(2))
def test_database_has_nothing_of_another_test(database_url: str, round_: int) -> None:
    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT to_regclass('left_by_a_test')").fetchone() == (None,)
        connection.execute("CREATE TABLE left_by_a_test ()")


def test_database_goes_away_although_someone_is_connected(databases: Databases, postgres_url: str) -> None:
    url = databases.make_empty()
    connection = psycopg.connect(url)

    databases.drop(url)

    connection.close()
    query = "SELECT count(*) FROM pg_database WHERE datname = %s"
    with psycopg.connect(postgres_url) as admin:
        assert admin.execute(query, [database_of(url)]).fetchone() == (0,)


def test_empty_database_has_no_tables(empty_database_url: str) -> None:
    query = "SELECT count(*) FROM information_schema.tables WHERE table_schema = 'public'"
    with psycopg.connect(empty_database_url) as connection:
        assert connection.execute(query).fetchone() == (0,)


@pytest.mark.parametrize(
    "url",
    ["postgresql://notifier@/old?host=%2Ftmp%2Frun", "postgresql://user:pass@db.example.com:5433/old"],
)
def test_url_of_another_database_keeps_the_server(url: str) -> None:
    assert with_database(url, "new") == url.replace("/old", "/new")


def test_broker_carries_a_message(broker_url: str) -> None:
    name = "left-by-a-test"
    with Connection(broker_url) as connection:
        queue = connection.SimpleQueue(name)
        queue.put({"number": 7})
        assert queue.get(timeout=patient(5)).payload == {"number": 7}
        queue.put({"number": 8})
        queue.close()


@pytest.mark.parametrize("round_", range(2))
def test_amqp_has_nothing_of_another_test(amqp_url: str, round_: int) -> None:
    with amqp_connection(amqp_url) as connection:
        channel = connection.channel()
        with pytest.raises(amqp.NotFound):
            channel.queue_declare("left-by-a-test", passive=True)
        connection.channel().queue_declare("left-by-a-test", durable=True, auto_delete=False)


@pytest.mark.parametrize("round_", range(2))
def test_redis_has_nothing_of_another_test(redis_broker_url: str, round_: int) -> None:
    with redis.Redis.from_url(redis_broker_url) as client:
        assert client.dbsize() == 0
        client.set("left-by-a-test", 1)


def test_redis_databases_are_told_apart(redis_server: RedisServer) -> None:
    assert redis_server.make_database() != redis_server.make_database()


def test_given_virtual_host_is_emptied_of_what_notifier_declares(amqp_url: str) -> None:
    from notifier.broker import topology

    server = GivenRabbitmq(amqp_url)
    with Connection(amqp_url) as connection:
        topology.declare_for_producers(connection.default_channel)

    server.drop_vhost(server.make_vhost())

    with amqp_connection(amqp_url) as connection, pytest.raises(amqp.NotFound):
        connection.channel().queue_declare(topology.DEAD_QUEUE, passive=True)


def test_servers_listen_on_this_machine_only(amqp_server: AmqpServer, redis_server: RedisServer) -> None:
    if isinstance(amqp_server, PrivateRabbitmq):
        assert urlsplit(amqp_server.url).hostname == "127.0.0.1"
        assert set(listening_addresses(amqp_server.pids)) <= {"127.0.0.1", "::1"}


def test_private_rabbitmq_leaves_nothing_running(monkeypatch: pytest.MonkeyPatch) -> None:
    script = find_rabbitmq()
    if script is None:
        pytest.skip("RabbitMQ is not installed; the tests were given one")
    folder = make_temporary_folder()
    server = PrivateRabbitmq(script, folder)
    with socket.create_server(("127.0.0.1", 0)) as another:
        if is_full():
            # Seconds more: another program takes the port before the server listens on it.
            taken = iter([another.getsockname()[1]])
            monkeypatch.setattr(rabbitmq, "free_port", lambda: next(taken, None) or free_port())
        server.start()
    url, pids = server.url, server.pids

    server.stop()

    assert len(pids) == 3
    assert not any(command_line(pid) for pid in pids)
    assert not accepts_amqp(url)
    wait_until(lambda: not processes_of(folder))
    shutil.rmtree(folder)


def test_services_leave_nothing_running() -> None:
    services = Services(print)
    services.prepare(["postgres", "redis"])
    folder = services.folder
    services.postgres_url(), services.redis_server()

    services.stop()

    assert folder is not None
    assert not folder.exists()
    assert not processes_of(folder)


def test_wheel_serves_where_no_postgres_is_installed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("NOTIFIER_TEST_DATABASE_URL", raising=False)
    monkeypatch.setattr("tests.provisioning.services.POSTGRES_FOLDERS", [])
    assert find_postgres() is None

    services = Services(print)
    with psycopg.connect(services.postgres_url()) as connection:
        version = connection.execute("SHOW server_version_num").fetchone()
    services.stop()

    assert version is not None
    assert int(version[0]) >= 180000


def test_redis_with_data_in_it_is_not_flushed(redis_broker_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_TEST_REDIS_URL", redis_broker_url)
    services = Services(print)
    with redis.Redis.from_url(redis_broker_url) as client:
        client.set("precious", 1)
        with pytest.raises(MissingService, match="with data in it"):
            services.redis_server()
        assert client.get("precious") == b"1"
    services.stop()


@pytest.mark.parametrize("name", ["NOTIFIER_SMTP_URL", "NOTIFIER_LEFT_BY_A_TEST"])
def test_no_setting_of_the_shell_reaches_a_test(name: str) -> None:
    assert name not in os.environ
    # Not through monkeypatch: the next of these tests would find it, if nobody swept.
    os.environ["NOTIFIER_LEFT_BY_A_TEST"] = secrets.token_hex(4)


def listening_addresses(pids: list[int]) -> list[str]:
    import psutil

    connections = [found for pid in pids for found in psutil.Process(pid).net_connections("tcp")]
    return [found.laddr.ip for found in connections if found.status == psutil.CONN_LISTEN]


def processes_of(folder: Path) -> list[int]:
    """Every process that names a folder in its command or works in it."""
    import psutil

    found = []
    for process in psutil.process_iter(["cmdline", "cwd"]):
        words = [*(process.info["cmdline"] or []), process.info["cwd"] or ""]
        if any(str(folder) in word for word in words):
            found.append(process.pid)
    return found
