"""Fixtures for everything: real servers, started once, and something fresh on them for each test.

| fixture            | what a test gets                                                                 |
|--------------------|----------------------------------------------------------------------------------|
| `database_url`     | a migrated PostgreSQL database of its own                                        |
| `empty_database_url` | one without tables                                                             |
| `amqp_url`         | a RabbitMQ virtual host of its own                                               |
| `redis_broker_url` | a Redis database of its own                                                      |
| `broker_url`       | both, one after the other: the test runs as `[rabbitmq]` and as `[redis]`        |
| `postgres_url`, `amqp_server`, `redis_server`, `redis_url` | the servers themselves, for the session  |

See `tests.services` for where the servers come from. Unit tests ask for none of them and wait for none.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import pytest

from tests.databases import Databases
from tests.rabbitmq import AmqpServer
from tests.services import GIVEN, MissingService, Name, RedisServer, Services

T = TypeVar("T")

SERVICES = pytest.StashKey[Services]()

_NEEDS: dict[str, Name] = {
    "postgres_url": "postgres",
    "amqp_server": "rabbitmq",
    "redis_server": "redis",
}


class _Loggers(dict[str, Any]):
    """Can be walked through while a thread makes a logger, which importing a module does.

    pytest 9.2 walks through all loggers around each part of each test. Our servers start in threads, and now and
    then a test failed with "dictionary changed size during iteration", and nothing in the report said where.
    """

    def values(self) -> Any:
        return list(super().values())


def pytest_configure(config: pytest.Config) -> None:
    logging.root.manager.loggerDict = _Loggers(logging.root.manager.loggerDict)
    # Past pytest's capture: who waits for an installation should see why. The writer comes after this hook.
    config.stash[SERVICES] = Services(lambda text: config.get_terminal_writer().line(text))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Of `-n auto`: most tests wait most of the time, so two processes take little more than half as long. Each
    starts servers of its own; servers that were given are for one."""
    return 0 if any(os.environ.get(name) for name in GIVEN) else 2


def pytest_sessionstart(session: pytest.Session) -> None:
    """Before the processes begin: what they would both install, and what they cannot tell anybody about."""
    if session.config.getoption("numprocesses", None) and not hasattr(session.config, "workerinput"):
        _available(session.config.stash[SERVICES].bring)


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin to start what the collected tests will ask for: RabbitMQ takes seconds that others can use."""
    if not session.config.option.collectonly:
        session.config.stash[SERVICES].prepare(sorted({name for item in session.items for name in _needs(item)}))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A server that cannot be had is said at once, not when the first test asks for it minutes later."""
    missing = item.config.stash[SERVICES].missing()
    if missing:
        pytest.exit(str(missing), returncode=1)


def pytest_unconfigure(config: pytest.Config) -> None:
    """After the last test, and after Ctrl-C."""
    if SERVICES in config.stash:
        config.stash[SERVICES].stop()


def _needs(item: pytest.Item) -> Iterator[Name]:
    for fixture in getattr(item, "fixturenames", ()):
        if fixture in _NEEDS:
            yield _NEEDS[fixture]
        if fixture == "broker_url":
            yield item.callspec.params["broker_url"]  # type: ignore[attr-defined]


def _available(server: Callable[[], T]) -> T:
    try:
        return server()
    except MissingService as missing:
        pytest.exit(str(missing), returncode=1)


@pytest.fixture(autouse=True)
def clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """No setting of the developer's shell reaches a test."""
    for name in list(os.environ):
        if name.startswith("NOTIFIER_") and not name.startswith("NOTIFIER_TEST_"):
            monkeypatch.delenv(name)


@pytest.fixture(scope="session")
def postgres_url(pytestconfig: pytest.Config) -> str:
    """Admin URL of a PostgreSQL server."""
    return _available(pytestconfig.stash[SERVICES].postgres_url)


@pytest.fixture(scope="session")
def amqp_server(pytestconfig: pytest.Config) -> AmqpServer:
    """RabbitMQ: `make_vhost()` gives a URL, `drop_vhost(url)` takes it back."""
    return _available(pytestconfig.stash[SERVICES].amqp_server)


@pytest.fixture(scope="session")
def redis_server(pytestconfig: pytest.Config) -> RedisServer:
    """Valkey or Redis: `make_database()` gives a URL, `drop_database(url)` takes it back."""
    return _available(pytestconfig.stash[SERVICES].redis_server)


@pytest.fixture(scope="session")
def redis_url(redis_server: RedisServer) -> str:
    """URL of the Redis-protocol server. For a database that nobody else writes to, ask for `redis_broker_url`."""
    return redis_server.url


@pytest.fixture(scope="session")
def databases(postgres_url: str) -> Iterator[Databases]:
    """Makes databases, for tests that need more than one."""
    made = Databases(postgres_url)
    yield made
    made.close()


@pytest.fixture
def database_url(databases: Databases) -> Iterator[str]:
    """A fresh database at the newest revision."""
    url = databases.make()
    yield url
    databases.drop(url)


@pytest.fixture
def empty_database_url(databases: Databases) -> Iterator[str]:
    """A fresh database without tables."""
    url = databases.make_empty()
    yield url
    databases.drop(url)


@pytest.fixture
def amqp_url(amqp_server: AmqpServer) -> Iterator[str]:
    """A RabbitMQ virtual host with nothing in it."""
    url = amqp_server.make_vhost()
    yield url
    amqp_server.drop_vhost(url)


@pytest.fixture
def redis_broker_url(redis_server: RedisServer) -> Iterator[str]:
    """A Redis database with nothing in it."""
    url = redis_server.make_database()
    yield url
    redis_server.drop_database(url)


@pytest.fixture(params=["rabbitmq", "redis"])
def broker_url(request: pytest.FixtureRequest) -> str:
    """Both brokers, so that both go through the same cases."""
    fixture = "amqp_url" if request.param == "rabbitmq" else "redis_broker_url"
    url: str = request.getfixturevalue(fixture)
    return url
