"""The whole set-up: servers, providers, proxies between them, and the programs of the service.

The producer's own database is a second one on the same PostgreSQL, so every fault of PostgreSQL affects both.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlsplit, urlunsplit

import psycopg

from chaos.disk import SmallDisk, small_disk
from chaos.endpoint import SECRET, TOLD_TOO, running_endpoint
from chaos.fleet import PROGRAMS, Crash, Fleet
from chaos.load import PRODUCER, Load, Mix
from chaos.providers import Providers
from chaos.proxy import Connect, Proxy, to_port, to_socket
from chaos.reconcile import Books
from chaos.returned import Returned
from chaos.servers import Postgres, Rabbitmq, Valkey, make_rabbitmq
from notifier.client.outbox import create_table, make_engine
from notifier.dev.embedded.postgres import DATABASE
from notifier.dev.server_thread import running
from notifier.store.schema.upgrade import upgrade
from tests.provisioning.databases import with_database

if TYPE_CHECKING:
    from notifier.dev.embedded.pgbouncer import Pgbouncer
    from tests.support.clocks import Clocks
    from tests.support.name_server import NameServer

BrokerName = Literal["rabbitmq", "redis"]

_HERE = Path(__file__).parent
LEASE_SECONDS, CALL_SECONDS = 20, 5
_PRODUCERS_DATABASE = "shop"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What the programs find around them."""

    #: Variables for all programs, and for each program by its name.
    environment: Mapping[str, str] = field(default_factory=dict)
    own: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def _as_usual(_world: World, _stack: ExitStack) -> Surroundings:
    return Surroundings()


def _nothing_lacks() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Setup:
    """A fleet and its surroundings. Consecutive scenarios with the same setup share them."""

    name: str = ""
    programs: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: PROGRAMS)
    #: Makes the surroundings. What is put on the stack ends after the programs.
    begin: Callable[[World, ExitStack], Surroundings] = _as_usual
    #: What this machine lacks for it, as text for people; empty: nothing.
    lacks: Callable[[], str] = _nothing_lacks


USUAL = Setup()


class World:
    """The servers run all the time; the fleet runs on one broker at a time."""

    def __init__(self, stack: ExitStack, folder: Path, rng: Random, *, use_disk: bool, use_redis: bool) -> None:
        self.folder = folder
        self.rng = rng
        #: The small disk of the database that can be filled; None: there is none.
        self.disk: SmallDisk | None = stack.enter_context(small_disk(folder / "disk")) if use_disk else None
        self.postgres = Postgres(self.disk.folder if self.disk else folder)
        stack.callback(self.postgres.stop)
        self.rabbit: Rabbitmq = make_rabbitmq(folder / "rabbitmq")
        stack.callback(self.rabbit.stop)
        self.valkey: Valkey | None = Valkey(folder) if use_redis else None
        self._start_servers(stack)
        self.books = Books(self.postgres.url)
        #: The current fleet's setup: see `Setup`.
        self.setup = USUAL
        self._surroundings = Surroundings()
        self._fleet_stack = ExitStack()
        self.pooler: Pgbouncer | None = None
        self.clocks: Clocks | None = None
        self.names: NameServer | None = None
        self.providers = Providers()
        #: Receives the producers' callbacks.
        self.endpoint = stack.enter_context(running_endpoint())
        self._start_links(stack)
        self.fleet: Fleet | None = None
        self.broker: BrokerName | None = None
        #: The load of the current scenario.
        self.load: Load | None = None
        #: What the current scenario's fault itself found wrong.
        self.notes: list[str] = []
        #: Feedback from outside in the current scenario.
        self.returned = Returned()
        self._strikes = 0
        #: Programs of all fleets that ended without being told to.
        self.crashes: list[Crash] = []
        stack.callback(self.stop_fleet)

    def _start_servers(self, stack: ExitStack) -> None:
        self.postgres.start()
        upgrade(self.postgres.url)
        self._make_outbox()
        self.rabbit.start()
        if self.valkey:
            stack.callback(self.valkey.stop)
            self.valkey.start()

    def _make_outbox(self) -> None:
        with psycopg.connect(self.postgres.url, autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {_PRODUCERS_DATABASE}")
        engine = make_engine(with_database(self.postgres.url, _PRODUCERS_DATABASE))
        create_table(engine)
        engine.dispose()

    def _start_links(self, stack: ExitStack) -> None:
        mail = stack.enter_context(running(self.providers.mail))
        twilio = stack.enter_context(running(self.providers.twilio))

        def link(connect: Connect) -> Proxy:
            return stack.enter_context(running(Proxy(connect)))

        self.database_link = link(to_socket(self._database_socket))
        #: The relays' way to the producer's database; the producer itself uses the other link.
        self.outbox_link = link(to_socket(self._database_socket))
        self.rabbit_link = link(to_port(lambda: self.rabbit.port))
        self.redis_link = link(to_port(lambda: self.valkey.port if self.valkey else 0))
        self.mail_link = link(to_port(lambda: mail.port))
        self.sms_link = link(to_port(lambda: twilio.port))

    def _database_socket(self) -> str:
        return str(self.pooler.socket) if self.pooler else self.postgres.socket

    @property
    def links(self) -> list[Proxy]:
        return [*self.database_links, self.rabbit_link, self.redis_link, self.mail_link, self.sms_link]

    @property
    def database_links(self) -> list[Proxy]:
        return [self.database_link, self.outbox_link]

    @property
    def broker_link(self) -> Proxy:
        return self.redis_link if self.broker == "redis" else self.rabbit_link

    @property
    def running_fleet(self) -> Fleet:
        assert self.fleet is not None
        return self.fleet

    @property
    def running_load(self) -> Load:
        assert self.load is not None
        return self.load

    def broker_url(self, broker: BrokerName) -> str:
        """The URL of the broker for programs and producers: through its proxy."""
        if broker == "rabbitmq":
            return _through(self.rabbit.url, self.rabbit_link.port)
        assert self.valkey is not None
        return _through(self.valkey.url, self.redis_link.port)

    def use(self, broker: BrokerName, setup: Setup = USUAL) -> None:
        """Make the programs run on that broker, in this setup."""
        if self.broker == broker and self.setup == setup:
            return
        self.stop_fleet()
        self.broker, self.setup = broker, setup
        self._surroundings = setup.begin(self, self._fleet_stack)
        logs = self.folder / "logs" / "-".join(filter(None, (broker, setup.name.replace(" ", "-"))))
        self.fleet = Fleet(self._environment(broker), logs, setup.programs, self._surroundings.own)
        self.fleet.start()

    def stop_fleet(self) -> None:
        if self.fleet is not None:
            self.fleet.stop()
            self.crashes += self.fleet.crashes
        self.fleet = self.broker = None
        self._fleet_stack.close()
        self.setup, self._surroundings = USUAL, Surroundings()

    def make_load(self, label: str, mix: Mix, seed: int) -> Load:
        assert self.broker is not None
        outbox_url = _postgres_url(self.database_link, _PRODUCERS_DATABASE)
        self.load = Load(self.broker_url(self.broker), label, mix, seed, outbox_url=outbox_url)
        return self.load

    def outbox_rows(self) -> int:
        """How many messages wait in the producer's database."""
        with psycopg.connect(
            with_database(self.postgres.url, _PRODUCERS_DATABASE), connect_timeout=5
        ) as connection:
            found = connection.execute("SELECT count(*) FROM notifier_outbox").fetchone()
        return int(found[0]) if found else 0

    def strike(self, count: int = 1) -> None:
        """Count a fault that was applied, for faults that do not count themselves."""
        self._strikes += count

    @property
    def strikes(self) -> int:
        """Faults applied so far: a scenario whose fault met nothing has shown nothing."""
        done = self.providers.struck + self.endpoint.refused + self.running_fleet.strikes
        return self._strikes + done

    def pause(self, seconds: float) -> None:
        """How long a fault lasts: the only thing here that depends on time."""
        time.sleep(seconds)

    def heal(self) -> None:
        """Undo every fault: free the disk, restore links and providers, start servers, thaw programs."""
        if self.disk:
            self.disk.free()
        for link in self.links:
            link.heal()
        self.providers.heal()
        self.endpoint.refuse(on=False)
        if not self.postgres.is_running:
            self.postgres.stop()
            self.postgres.start()
        if self.pooler and not self.pooler.is_running:
            self.pooler.start()
        if not self.rabbit.is_running:
            self.rabbit.start_node()
        self.rabbit.alarm(on=False)
        if self.valkey and not self.valkey.is_running:
            self.valkey.start()
        self.running_fleet.thaw()

    def configuration(self, url: str = "", more: str = "") -> Path:
        """A notifier.toml with the producers' endpoint, whose port only this run knows, or with this URL for
        it."""
        file = self.folder / ("notifier-other.toml" if url or more else "notifier.toml")
        told = ", ".join(f'"{status}"' for status in TOLD_TOO)
        url = url or self.endpoint.url
        table = f'[callbacks.{PRODUCER}]\nurl = "{url}"\nsecrets = ["{SECRET}"]\nstatuses = [{told}]\n'
        file.write_text(f"{(_HERE / 'notifier.toml').read_text('utf-8')}\n{table}{more}", "utf-8")
        return file

    def program_environment(self) -> dict[str, str]:
        """Variables for a program that runs beside the fleet, on the current broker."""
        assert self.broker is not None
        inherited = {name: value for name, value in os.environ.items() if not name.startswith("NOTIFIER_")}
        return inherited | self._environment(self.broker)

    def _environment(self, broker: BrokerName) -> dict[str, str]:
        twilio = self.providers.twilio
        return {
            "NOTIFIER_DATABASE_URL": _postgres_url(self.database_link, DATABASE),
            "NOTIFIER_OUTBOX_URL": _postgres_url(self.outbox_link, _PRODUCERS_DATABASE),
            "NOTIFIER_BROKER_URL": self.broker_url(broker),
            "NOTIFIER_SMTP_URL": f"smtp://127.0.0.1:{self.mail_link.port}?starttls=never",
            "NOTIFIER_TWILIO_ACCOUNT_SID": twilio.account_sid,
            "NOTIFIER_TWILIO_AUTH_TOKEN": twilio.auth_token,
            "NOTIFIER_TWILIO_API_BASE": f"http://127.0.0.1:{self.sms_link.port}",
            "NOTIFIER_CONFIG": str(self.configuration()),
            "NOTIFIER_CALLBACK_ALLOW_HOSTS": "127.0.0.1",
            "NOTIFIER_TEMPLATES": str(_HERE / "templates"),
            "NOTIFIER_DATA_DIR": str(self.folder),
            "NOTIFIER_LEASE_SECONDS": str(LEASE_SECONDS),
            "NOTIFIER_CALL_DEADLINE_SECONDS": str(CALL_SECONDS),
            **self._surroundings.environment,
        }


@contextlib.contextmanager
def running_world(folder: Path, rng: Random, *, use_disk: bool, use_redis: bool) -> Iterator[World]:
    """Start the servers. At the end everything that was started is stopped."""
    with ExitStack() as stack:
        yield World(stack, folder, rng, use_disk=use_disk, use_redis=use_redis)


def _postgres_url(link: Proxy, database: str) -> str:
    return f"postgresql://{DATABASE}@127.0.0.1:{link.port}/{database}"


def _through(url: str, port: int) -> str:
    """The same URL with the port of a proxy."""
    parts = urlsplit(url)
    netloc = f"{parts.netloc.rpartition(':')[0]}:{port}"
    return urlunsplit((parts.scheme, netloc, parts.path, parts.query, ""))
