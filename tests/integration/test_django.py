"""The Django producer: the example shop on SQLite and PostgreSQL, its relay on a real broker."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict
from sqlalchemy import Engine, select

from notifier.broker.publisher import Wire
from notifier.client.outbox import SqlOutbox, make_engine, table
from notifier.client.relay import Relay
from notifier.domain.message import Message
from notifier.domain.statuses import Channel, Lane
from notifier.domain.validation import parse_body
from notifier.rendering import Renderer
from tests.profiles import is_full
from tests.provisioning.databases import Databases
from tests.support import forking
from tests.support.queues import bodies
from tests.waiting import patient, wait_until

ROOT = Path(__file__).parents[2]
SHOP = ROOT / "examples" / "django_shop"
AWAY = "amqp://guest:guest@127.0.0.1:1//"


@dataclass
class Shop:
    """The example, on one database."""

    environment: dict[str, str]
    #: The same database for SQLAlchemy.
    url: str

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-W", "error", str(SHOP / "manage.py"), *arguments]

    def manage(self, *arguments: str, broker_url: str = AWAY, code: int = 0) -> str:
        """Output of a command that ends with `code`."""
        return self._run(self.command(*arguments), broker_url, code)

    def ship(self, number: str, tracking_number: str) -> tuple[int, float]:
        """Status of the page, and how long it took."""
        command = [sys.executable, "-m", "tests.support.shop_client", number, tracking_number]
        status, seconds = self._run(command, AWAY, 0).split()
        return int(status), float(seconds)

    def start(self, *arguments: str, broker_url: str) -> subprocess.Popen[str]:
        environment = self.environment | {"NOTIFIER_BROKER_URL": broker_url}
        return forking.launch(
            self.command(*arguments),
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
        )

    def engine(self) -> Engine:
        return make_engine(self.url)

    def waiting(self) -> list[tuple[str, int]]:
        """Id and attempts of what is in the outbox."""
        engine = self.engine()
        with engine.connect() as connection:
            rows = connection.execute(select(table.c.id, table.c.attempts)).all()
        engine.dispose()
        return [(str(row.id), row.attempts) for row in rows]

    def _run(self, command: list[str], broker_url: str, code: int) -> str:
        environment = self.environment | {"NOTIFIER_BROKER_URL": broker_url}
        done = forking.run(command, env=environment, capture_output=True, text=True, cwd=ROOT, check=False)
        assert done.returncode == code, done.stdout + done.stderr
        return str(done.stdout if code == 0 else done.stderr)


def on(place: Path | str) -> Shop:
    """The example on a file of SQLite, or on a URL of PostgreSQL."""
    paths = os.pathsep.join([str(SHOP), str(ROOT)])
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "django_shop.settings", "PYTHONPATH": paths}
    if isinstance(place, Path):
        return Shop(environment | {"SHOP_SQLITE": str(place)}, f"sqlite:///{place}")
    return Shop(environment | {"SHOP_POSTGRES": libpq(place)}, place)


@pytest.fixture(params=["sqlite", "postgresql"] if is_full() else ["postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    """A database without tables."""
    url = None if request.param == "sqlite" else request.getfixturevalue("empty_database_url")
    return url or tmp_path / "shop.sqlite3"


@pytest.fixture
def bare_shop(place: Path | str) -> Shop:
    """Without tables."""
    return on(place)


@pytest.fixture(scope="module")
def migrated(
    databases: Databases, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Callable[[Path | str], Path | str]]:
    """Tells of what kind of place to find one with the tables, to be copied: a migration takes a second."""
    made: dict[bool, Path | str] = {}

    def like(place: Path | str) -> Path | str:
        is_file = isinstance(place, Path)
        if is_file not in made:
            made[is_file] = tmp_path_factory.mktemp("shop") / "shop.sqlite3" if is_file else databases.make_empty()
            for app in ("notifier", "orders"):
                on(made[is_file]).manage("migrate", app, "--verbosity", "0")
        return made[is_file]

    yield like
    if url := made.get(False):
        databases.drop(str(url))


@pytest.fixture
def shop(place: Path | str, migrated: Callable[[Path | str], Path | str], databases: Databases) -> Iterator[Shop]:
    if isinstance(place, Path):
        shutil.copy(migrated(place), place)
        yield on(place)
        return
    url = databases.copy(str(migrated(place)))
    yield on(url)
    databases.drop(url)


def libpq(url: str) -> str:
    """As the example takes it."""
    return " ".join(f"{name}={value}" for name, value in conninfo_to_dict(url).items())


def published(broker_url: str) -> list[Message]:
    entries = [
        entry
        for body in bodies(broker_url, "notify.email.normal")
        for entry in parse_body(body, Channel.EMAIL, Lane.NORMAL)
    ]
    assert not [entry.faults for entry in entries if entry.faults]
    return [entry.message for entry in entries if entry.message]


def test_the_examples_own_tests_and_those_of_its_mails_pass(bare_shop: Shop) -> None:
    bare_shop.manage("test", "orders", "tests.support.shop_mail", "--noinput")


def test_the_migration_is_what_the_model_says(shop: Shop) -> None:
    shop.manage("makemigrations", "notifier", "orders", "--check", "--dry-run")


def test_a_commit_sends_once_and_a_rollback_nothing(shop: Shop, amqp_url: str) -> None:
    assert shop.ship("C-1", "PX1")[0] == 200
    assert shop.ship("C-2", "PX1")[0] == 409
    assert "1 published" in shop.manage("notifier_relay", "--once", broker_url=amqp_url)
    assert "0 published" in shop.manage("notifier_relay", "--once", broker_url=amqp_url)
    (message,) = published(amqp_url)
    assert (message.producer, message.key, message.to) == ("shop", "order-C-1-shipped-PX1", "ada@example.com")
    assert shop.waiting() == []
    # It is a message that the service can send.
    assert Renderer(ROOT / "templates").check_context(Channel.EMAIL, message.template, message.context) == []


@pytest.mark.parametrize("place", ["sqlite"], indirect=True)
def test_a_handle_asks_the_api_of_the_settings(shop: Shop) -> None:
    program = """
from datetime import date
from decimal import Decimal
from django.conf import settings
from notifier.contrib.django import send, status
from notifier.contrib.django.models import OutboxMessage

for address in (None, "http://127.0.0.1:1"):
    settings.NOTIFIER_API_URL, settings.NOTIFIER_API_KEY = address, "x"
    context = {"on": date(2026, 3, 5), "total": Decimal("12.50")}
    handle = send("order_shipped", to="ada@example.com", context=context)
    try:
        handle.status()
    except Exception as error:
        print(type(error).__name__, getattr(error, "setting", ""))
print(OutboxMessage.objects.last().body)
for wrong in ("x", None, 5, "\\0", "../providers?x="):
    try:
        status(wrong)
    except ValueError as error:
        print(error)
"""
    said = shop.manage("shell", "--no-imports", "-c", program)
    assert "ConfigurationError NOTIFIER_API_URL\nServiceUnavailable" in said
    assert '"context":{"on":"2026-03-05","total":"12.50"}' in said
    assert said.count("is not a UUID: give the id of the handle") == 5


def test_the_page_answers_at_once_while_the_broker_is_away(shop: Shop) -> None:
    status, seconds = shop.ship("C-1", "PX1")
    assert status == 200
    assert seconds < patient(1)
    assert "no broker answers" in shop.manage("notifier_relay", "--once", code=1)
    assert [attempts for _, attempts in shop.waiting()] == [1]


def test_the_relay_runs_until_sigterm(shop: Shop, amqp_url: str) -> None:
    relay = shop.start("notifier_relay", "--idle-seconds", "0.05", broker_url=amqp_url)
    shop.ship("C-1", "PX1")
    wait_until(lambda: not shop.waiting(), timeout=20)
    assert relay.poll() is None
    relay.send_signal(signal.SIGTERM)
    said, errors = relay.communicate(timeout=patient(20))
    assert (relay.returncode, errors) == (0, "")
    assert "Ctrl-C stops the relay" in said
    assert len(published(amqp_url)) == 1


def test_the_relay_of_sqlalchemy_reads_the_same_table(shop: Shop, amqp_url: str) -> None:
    shop.ship("C-1", "PX1")
    engine = shop.engine()
    with Wire(amqp_url) as wire:
        assert Relay(SqlOutbox(engine), wire).drain() == 1
    engine.dispose()
    assert len(published(amqp_url)) == 1


def test_a_missing_table_is_said_as_what_it_is(bare_shop: Shop) -> None:
    assert "run manage.py migrate" in bare_shop.manage("notifier_relay", "--once", code=1)


_MISSING = {"notifier.E001": "del NOTIFIER_BROKER_URL", "notifier.E002": "del NOTIFIER_PRODUCER"}
_WRONG = {
    "notifier.E001": "NOTIFIER_BROKER_URL = 'http://broker'",
    "notifier.E002": "NOTIFIER_PRODUCER = 'my shop'",
    "notifier.E003": "NOTIFIER_TIMEOUT_SECONDS = 0",
    "notifier.E004": "NOTIFIER_BROKER_USER = 7",
    "notifier.E005": "NOTIFIER_GRACE_SECONDS = 'long'",
    "notifier.E006": "NOTIFIER_SENDERS = {'help@example.com': 7}",
}


@pytest.mark.parametrize("settings", [_MISSING, _WRONG], ids=["missing", "wrong"])
def test_all_wrong_settings_are_found_by_the_checks(tmp_path: Path, settings: dict[str, str]) -> None:
    lines = ["from django_shop.settings import *", *settings.values()]
    (tmp_path / "wrong.py").write_text("\n".join(lines) + "\n")
    paths = os.pathsep.join([str(tmp_path), str(SHOP), str(ROOT)])
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "wrong", "PYTHONPATH": paths}
    shop = Shop(environment, "")
    said = shop.manage("check", code=1)
    assert [check for check in settings if said.count(check) != 1] == []


def test_a_django_producer_loads_no_worker_package() -> None:
    program = (
        "import sys, django; django.setup(); from notifier.contrib.django import send; "
        "import notifier.contrib.django.sending, notifier.contrib.django.outbox, "
        "notifier.contrib.django.management.commands.notifier_relay; print(*sys.modules, sep='\\n')"
    )
    paths = os.pathsep.join([str(SHOP), str(ROOT)])
    environment = {**os.environ, "DJANGO_SETTINGS_MODULE": "django_shop.settings", "PYTHONPATH": paths}
    command = [sys.executable, "-c", program]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint({"celery", "sqlalchemy", "twilio", "structlog", "typer", "jinja2"})
    assert {"django", "kombu"} <= loaded
