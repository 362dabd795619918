"""Fixtures for everything: real servers, started once, and something fresh on them for each test.

| fixture            | what a test gets                                                                 |
|--------------------|----------------------------------------------------------------------------------|
| `database_url`     | a migrated PostgreSQL database of its own                                        |
| `empty_database_url` | one without tables                                                             |
| `amqp_url`         | a RabbitMQ virtual host of its own                                               |
| `redis_broker_url` | a Redis database of its own                                                      |
| `broker_url`       | both, one after the other: the test runs as `[rabbitmq]` and as `[redis]`        |
| `postgres_url`, `amqp_server`, `redis_server`, `redis_url` | the servers themselves, for the session  |

Where the servers come from: `tests.provisioning.services`. Unit tests ask for none of them and wait for none.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import pytest
import pytest_timeout

from tests.profiles import use_profile
from tests.provisioning.databases import Databases
from tests.provisioning.rabbitmq import AmqpServer
from tests.provisioning.services import GIVEN, MissingService, Name, RedisServer, Services
from tests.provisioning.session import Session
from tests.support import forking
from tests.waiting import Deadline

T = TypeVar("T")

SERVICES = pytest.StashKey[Services]()
SESSION = pytest.StashKey[Session]()
LEFT_BEHIND = pytest.StashKey[list[str]]()


#: Folders of `tests/` whose tests start whole programs and wait for them.
_LONG = ("browser", "chaos", "e2e")

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
    use_profile()
    # Until everything is collected nearly nothing becomes garbage, and looking for it takes a fifth of the time.
    gc.disable()
    logging.root.manager.loggerDict = _Loggers(logging.root.manager.loggerDict)
    # Past pytest's capture: who waits for an installation should see why. The writer comes after this hook.
    config.stash[SERVICES] = Services(lambda text: _say(config, text))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Of `-n auto`: most tests wait most of the time, so three processes keep two processors at work. Each starts
    servers of its own; servers that were given are for one."""
    return 0 if any(os.environ.get(name) for name in GIVEN) else 3


@pytest.hookimpl(tryfirst=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """Before the processes begin: the session that they are part of, what they would both install, and what they
    cannot tell anybody about."""
    config = session.config
    if hasattr(config, "workerinput"):
        return
    config.stash[SESSION] = _begin_session(config)
    if config.getoption("numprocesses", None):
        _available(config.stash[SERVICES].bring)
        forking.share(config.stash[SESSION].folder)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """With more than one process, what takes longest begins first: otherwise one process ends with it alone."""
    worker = getattr(config, "workerinput", None)
    if worker is not None:
        items[:] = _longest_first(items, worker["workercount"])


def pytest_collection_finish(session: pytest.Session) -> None:
    """Begin to start what the collected tests will ask for: RabbitMQ takes seconds that others can use."""
    gc.freeze()
    gc.enable()
    if not session.config.option.collectonly:
        session.config.stash[SERVICES].prepare(sorted({name for item in session.items for name in _needs(item)}))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """A server that cannot be had is said at once, not when the first test asks for it minutes later."""
    missing = item.config.stash[SERVICES].missing()
    if missing:
        pytest.exit(str(missing), returncode=1)


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item: pytest.Item, settings: Any) -> bool | None:
    """The limit of a test is stretched while the machine is slow, as every deadline in it."""
    if settings.method != "signal":
        return None
    deadline = Deadline(settings.timeout)

    def ring(_number: int, _frame: Any) -> None:
        if deadline.is_over():
            pytest_timeout.timeout_sigalrm(item, settings)
        else:
            signal.setitimer(signal.ITIMER_REAL, deadline.remaining)

    def cancel() -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)

    item.cancel_timeout = cancel  # type: ignore[attr-defined]
    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, deadline.remaining)
    return True


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """After the last test, and after Ctrl-C: the servers end, and nothing else of ours is there any more."""
    config = session.config
    forking.close()
    config.stash[SERVICES].stop()
    if SESSION in config.stash and (left := config.stash[SESSION].close()):
        config.stash[LEFT_BEHIND] = left
        session.exitstatus = session.exitstatus or pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    if left := config.stash.get(LEFT_BEHIND, []):
        terminalreporter.section("left behind, ended now", red=True, bold=True)
        for line in left:
            terminalreporter.write_line(line)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Where it did not come to the end of a session."""
    forking.close()
    if SERVICES in config.stash:
        config.stash[SERVICES].stop()
    if SESSION in config.stash:
        config.stash[SESSION].close()


def _longest_first(items: Sequence[pytest.Item], shares: int) -> list[pytest.Item]:
    """xdist deals the list in so many parts of equal length. Each part but the last begins with some of the
    longest modules, which wait most of the time: who has the last part computes meanwhile."""
    modules: dict[Path, list[pytest.Item]] = {}
    for item in items:
        modules.setdefault(item.path, []).append(item)
    long = [module for path, module in modules.items() if path.parent.name in _LONG]
    short = [item for path, module in modules.items() if path.parent.name not in _LONG for item in module]
    waiting = max(1, shares - 1)
    dealt = [[item for module in long[share::waiting] for item in module] for share in range(waiting)]
    dealt += [[]] * (shares - waiting)
    ordered: list[pytest.Item] = []
    for share, first in enumerate(dealt, start=1):
        taken = max(0, len(items) * share // shares - len(ordered) - len(first))
        ordered += [*first, *short[:taken]]
        short = short[taken:]
    return ordered + short


def _begin_session(config: pytest.Config) -> Session:
    # The folders of tests that fail stay for who looks into them; so they are beside the session's own.
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", tempfile.gettempdir())
    of_tests: Path = config._tmp_path_factory.getbasetemp()  # type: ignore[attr-defined]
    return Session(lambda text: _say(config, text), in_memory=True, others=[of_tests])


def _say(config: pytest.Config, text: str) -> None:
    config.get_terminal_writer().line(text)


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


@pytest.fixture(autouse=True)
def no_leak(request: pytest.FixtureRequest) -> Iterator[None]:
    """A socket or file that nobody closed fails the test that left it, not the one during which it is found.

    Not for `tests/unit`, which open none. Only what came since the last look is looked at: milliseconds.
    """
    yield
    if "unit" not in request.path.parts:
        gc.collect()
        gc.freeze()


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
    with Databases(postgres_url) as made:
        yield made


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


@pytest.fixture
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    """It runs in a thread of its own, as a worker's."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    yield loop
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
