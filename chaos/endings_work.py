"""The programs that must end, and the work that each has in hand when it is told to end."""

from __future__ import annotations

import csv
import http.client
import os
import smtplib
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from threading import Thread
from typing import Any, Literal
from urllib.parse import urlsplit, urlunsplit
from uuid import UUID

import psycopg
from sqlalchemy import make_url, text

from chaos.providers import RecordedFaults
from chaos.proxy import Connect, Link, Proxy, Strike, to_port, to_socket
from notifier.bootstrap import Services
from notifier.broker.topology import is_redis
from notifier.cli.up import SERVERS_SECONDS
from notifier.client.client import Client
from notifier.client.outbox import create_table, make_engine
from notifier.config.settings import Settings
from notifier.dev.embedded.rabbitmq import amqp_connection
from notifier.dev.machine import free_port
from notifier.dev.server_thread import running
from notifier.dev.twilio_server import TwilioRule, TwilioServer
from notifier.domain.message import Message
from notifier.domain.statuses import Channel, Lane
from notifier.domain.validation import check
from notifier.intake.batch import Received
from notifier.operations.api_keys import ApiKeys, Grants, Scope
from notifier.runtime.shutdown import OVERDUE
from notifier.store.api_keys import ApiKeyRepository
from notifier.store.operator_actions import OperatorActions
from notifier.worker.app import make_app
from notifier.worker.tasks import task_publisher
from tests.provisioning.databases import database_of

_HERE = Path(__file__).parent
_KEY = "a hash key for the fault suite only"
_MESSAGES = 20
_IN_HAND_SECONDS = 20.0


class Place:
    """What one case runs on: a database, a broker's virtual host, and the proxies in front of them."""

    def __init__(
        self,
        stack: ExitStack,
        folder: Path,
        number: int,
        database_url: str,
        broker_url: str,
        twilio: TwilioServer,
        faults: RecordedFaults[TwilioRule],
    ) -> None:
        self.folder, self.log, self.number = folder, folder / "log", number
        self.database_url, self.broker_url = database_url, broker_url
        self.faults = faults
        self.database = stack.enter_context(running(Proxy(_to_database(database_url))))
        broker_port = urlsplit(broker_url).port or 0
        self.broker = stack.enter_context(running(Proxy(to_port(lambda: broker_port))))
        self.port = free_port()
        self.environment = self._environment(twilio)
        stack.callback(self._close)

    @property
    def links(self) -> dict[str, Proxy]:
        """Proxies of the things that can be taken away."""
        return {"broker": self.broker, "database": self.database}

    @property
    def through_database(self) -> str:
        with psycopg.connect(self.database_url) as connection:
            user = connection.info.user
        return f"postgresql://{user}@127.0.0.1:{self.database.port}/{database_of(self.database_url)}"

    def _environment(self, twilio: TwilioServer) -> dict[str, str]:
        parts = urlsplit(self.broker_url)
        netloc = f"{parts.netloc.rpartition(':')[0]}:{self.broker.port}"
        return {
            "NOTIFIER_DATABASE_URL": self.through_database,
            "NOTIFIER_OUTBOX_URL": self.through_database,
            "NOTIFIER_BROKER_URL": urlunsplit((parts.scheme, netloc, parts.path, parts.query, "")),
            "NOTIFIER_TWILIO_ACCOUNT_SID": twilio.account_sid,
            "NOTIFIER_TWILIO_AUTH_TOKEN": twilio.auth_token,
            "NOTIFIER_TWILIO_API_BASE": f"http://127.0.0.1:{twilio.port}",
            "NOTIFIER_CONFIG": str(_HERE / "notifier.toml"),
            "NOTIFIER_TEMPLATES": str(_HERE / "templates"),
            "NOTIFIER_DATA_DIR": str(self.folder),
            "NOTIFIER_HASH_KEY": _KEY,
            "NOTIFIER_BOUNCE_ADDRESS": "bounces@example.com",
            "NOTIFIER_API_PORT": str(self.port),
            "NOTIFIER_LEASE_SECONDS": "20",
            "NOTIFIER_CALL_DEADLINE_SECONDS": "5",
        }

    def _close(self) -> None:
        if "services" in self.__dict__:
            self.services.close()

    @cached_property
    def services(self) -> Services:
        """The service's own code, connected directly to the servers."""
        settings = Settings(
            database_url=self.database_url,
            broker_url=self.broker_url,
            templates=_HERE / "templates",
            hash_key=_KEY,
            bounce_address="bounces@example.com",
        )
        return Services(settings)

    def accept(self) -> UUID:
        """Record one SMS and publish its task."""
        app = make_app(self.services.settings)
        try:
            intake = self.services.intake(task_publisher(app))
            intake.process([Received(self._message().encode(), Channel.SMS, Lane.URGENT)])
        finally:
            # Otherwise Celery leaves its connections to the garbage collector.
            app.amqp.producer_pool.force_close_all()
            app.pool.force_close_all()
        with self.services.engine.connect() as connection:
            found = connection.execute(text("SELECT id FROM notifications ORDER BY id DESC LIMIT 1")).scalar_one()
        return UUID(str(found))

    @property
    def to(self) -> str:
        """A number that only this case uses."""
        return f"+1555{self.number:07d}"

    def _message(self) -> Message:
        fields = {"producer": "chaos", "to": self.to, "template": "code", "context": {"number": 1}}
        return check(Message(idempotency_key="one", **fields), Channel.SMS, Lane.URGENT)

    def publish(self, count: int) -> None:
        """Publish this many messages to the producers' queue, bypassing the proxy."""
        entries: list[dict[str, Any]]
        entries = [{"to": self.to, "context": {"number": n}, "idempotency_key": f"k{n}"} for n in range(count)]
        with Client(self.broker_url, producer="chaos") as client:
            for entry in entries:
                client.send("code", channel=Channel.SMS, lane=Lane.URGENT, **entry)

    def recorded(self) -> int:
        with psycopg.connect(self.database_url) as connection:
            found = connection.execute("SELECT count(*) FROM notifications").fetchone()
        return int(found[0]) if found else 0

    def queued(self) -> int:
        """How many messages wait in the producers' queue, or in lists of readers that died."""
        if is_redis(self.broker_url):
            import redis

            with redis.Redis.from_url(self.broker_url) as client:
                keys = list(client.scan_iter("*notify.sms.urgent"))
                return sum(client.llen(key) for key in keys)
        with amqp_connection(self.broker_url) as connection:
            return int(connection.channel().queue_declare("notify.sms.urgent", passive=True).message_count)


def _to_database(url: str) -> Connect:
    parts = urlsplit(url)
    if parts.hostname:
        return to_port(lambda: parts.port or 5432)
    host = parts.query.partition("host=")[2].partition("&")[0].replace("%2F", "/")
    return to_socket(lambda: f"{host}/.s.PGSQL.5432")


@dataclass(frozen=True, slots=True)
class Program:
    """One program, what it logs when it is ready for work, and its work."""

    arguments: tuple[str, ...]
    ready: bytes
    broker: Literal["rabbitmq", "redis"] = "rabbitmq"
    #: Called before it is started.
    prepare: Callable[[Place], None] | None = None
    #: Gives it work, and returns when the work is in hand.
    begin: Callable[[Place], None] | None = None
    #: Called when it has ended. Returns what was lost.
    check: Callable[..., list[str]] | None = None
    #: It is a command for which somebody waits, so its exit code says that it was stopped.
    is_command: bool = False
    #: It has nothing in hand that would have to be written, so it ends in order even while the database is gone.
    only_waits: bool = False
    #: How much longer than its programs it may take. Seconds.
    extra_seconds: float = 0.0

    def arguments_of(self, place: Place) -> Sequence[str]:
        """The arguments, including those that only the case knows."""
        return [part.format(port=place.port, folder=place.folder) for part in self.arguments]

    def codes(self, number: int) -> set[int]:
        """The exit codes that are right."""
        if not self.is_command:
            return {0}
        return {128 + number, OVERDUE}


def _wait_until(condition: Callable[[], object]) -> None:
    ends_at = time.monotonic() + _IN_HAND_SECONDS
    while not condition():
        if time.monotonic() > ends_at:
            raise TimeoutError("the work did not come into the program's hand")
        time.sleep(0.05)


def _deliver(place: Place) -> None:
    """A provider call is in progress."""
    place.accept()
    _wait_until(lambda: place.faults.calls[place.to])


def _wait_to_claim(place: Place) -> None:
    """A task has come and the database is gone, so the worker tries to claim again and again."""
    place.database.refuse()
    before = place.database.connections
    place.accept()
    _wait_until(lambda: place.database.connections > before + 1)


def _check_unclaimed(place: Place, **_: object) -> list[str]:
    with psycopg.connect(place.database_url) as connection:
        found = connection.execute("SELECT status FROM notifications").fetchall()
    calls = place.faults.calls[place.to]
    return [] if (found, calls) == ([("queued",)], 0) else [f"{calls} calls, and the record says {found}"]


def _check_delivery(place: Place, *, is_database_away: bool) -> list[str]:
    if is_database_away:
        return []  # its lease ends, and the outcome is recorded as unknown
    with psycopg.connect(place.database_url) as connection:
        found = connection.execute("SELECT status FROM notifications").fetchall()
    return [] if found == [("sent",)] else [f"the provider took it, the record says {found}"]


def _take_in(place: Place) -> None:
    """The intake has a batch in hand, and the database stands still."""
    place.database.hold()
    place.publish(_MESSAGES)
    _wait_until(lambda: place.database.held)


def _check_intake(place: Place, **_: object) -> list[str]:
    ends_at = time.monotonic() + 20
    # It takes time until the broker notices that the reader is gone, and the database that its client is.
    while (found := place.recorded() + place.queued()) < _MESSAGES and time.monotonic() < ends_at:
        time.sleep(0.1)
    return [] if found >= _MESSAGES else [f"{_MESSAGES} were published, {found} are in the record or the queue"]


def _fill_outbox(place: Place) -> None:
    """The relay has rows in hand, and the broker stands still."""
    place.broker.hold()
    engine, client = make_engine(place.database_url), Client(producer="chaos")
    with engine.begin() as connection:
        for number in range(_MESSAGES):
            client.send("code", place.to, context={"number": number}, lane=Lane.URGENT, outbox=connection)
    engine.dispose()
    _wait_until(lambda: place.broker.held)


def _make_outbox(place: Place) -> None:
    engine = make_engine(place.database_url)
    create_table(engine)
    engine.dispose()


def _make_shop(place: Place) -> None:
    _make_outbox(place)
    settings = "from django_shop.settings import *\nimport os\n"
    settings += 'NOTIFIER_GRACE_SECONDS = float(os.environ["NOTIFIER_GRACE_SECONDS"])\n'
    (place.folder / "place_settings.py").write_text(settings)
    root = _HERE.parent
    paths = [str(place.folder), str(root / "examples" / "django_shop"), str(root)]
    url = make_url(place.through_database)
    place.environment |= {
        "DJANGO_SETTINGS_MODULE": "place_settings",
        "PYTHONPATH": os.pathsep.join(paths),
        "SHOP_POSTGRES": f"host=127.0.0.1 port={url.port} user={url.username} dbname={url.database}",
    }


def _check_relay(place: Place, **_: object) -> list[str]:
    with psycopg.connect(place.database_url) as connection:
        rows = connection.execute("SELECT count(*) FROM notifier_outbox").fetchone()
    left = rows[0] if rows else 0
    if left == _MESSAGES:
        return []
    return [] if left == 0 and place.queued() else [f"{left} of {_MESSAGES} rows left, {place.queued()} queued"]


def _ask(place: Place) -> None:
    """A request is in progress, and the database stands still."""
    keys = ApiKeys(ApiKeyRepository(place.services.engine), OperatorActions(place.services.engine))
    token = keys.create(Grants((Scope.SEND,), "chaos", "chaos"), operator="chaos").token
    place.database.hold()

    def post() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", place.port, timeout=30)
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        try:
            connection.request("POST", "/v1/notifications", place._message().encode(), headers)
            connection.getresponse().read()
        except (OSError, http.client.HTTPException):
            pass  # the program ended
        finally:
            connection.close()

    Thread(target=post, daemon=True).start()
    _wait_until(lambda: place.database.held)


def _bounce(place: Place) -> None:
    """A mail is being recorded, and the database stands still."""
    path = place.services.tokens.return_path(place.accept(), 1)
    assert path
    place.database.hold()
    mail = f"From: MAILER-DAEMON@example.net\r\nTo: {path}\r\nSubject: Undelivered\r\n\r\nno such user\r\n"

    def send() -> None:
        try:
            with smtplib.LMTP("127.0.0.1", place.port, timeout=30) as client:
                client.sendmail("", [path], mail)
        except (OSError, smtplib.SMTPException):
            pass  # the program ended

    Thread(target=send, daemon=True).start()
    _wait_until(lambda: place.database.held)


def _make_list(place: Place) -> None:
    with (place.folder / "list.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["channel", "address", "reason"])
        rows.writerows(["email", f"m{n}@example.com", "unsubscribed"] for n in range(20_000))


def hold_at_first_insert(place: Place) -> None:
    """Make the database stand still in the middle of the command's work.

    Called before the command starts, because some commands are done before anybody could look.
    """

    def strike(_link: Link, from_client: bool, data: bytes) -> Strike | None:
        return Strike(place.database.hold) if from_client and b"INSERT INTO" in data else None

    place.database.tap = strike


def _wait_for_hold(place: Place) -> None:
    _wait_until(lambda: place.database.held)


_WORKER = ("worker", "--channels", "sms", "--lanes", "urgent")
_worker = partial(Program, _WORKER, b" ready.", begin=_deliver, check=_check_delivery)
_intake = partial(Program, ("intake",), b"intake.reading", begin=_take_in, check=_check_intake)
_RELAY = ("relay", "--idle-seconds", "0.1")
_relay = partial(
    Program, _RELAY, b"publishing what comes", prepare=_make_outbox, begin=_fill_outbox, check=_check_relay
)
_IMPORT = ("suppressions", "import", "{folder}/list.csv", "--reason", "manual")
_command = partial(Program, ready=b"never", begin=_wait_for_hold, is_command=True)

_RELAY_OF_DJANGO = ("django", "notifier_relay", "--idle-seconds", "0.1")
_CALLBACKS = ("callbacks", "replay", "--failure", "timeout", "--why", "chaos", "--yes")
_RETRY = ("retry", "--status", "failed", "--since", "1d", "--rate", "1", "--why", "chaos")

PROGRAMS = {
    "worker on RabbitMQ": _worker(),
    "worker on Redis": _worker(broker="redis"),
    "worker that waits to claim": Program(
        _WORKER, b" ready.", begin=_wait_to_claim, check=_check_unclaimed, only_waits=True
    ),
    "callbacks run": Program(("callbacks", "run"), b" ready."),
    "intake on RabbitMQ": _intake(),
    "intake on Redis": _intake(broker="redis"),
    "beat on RabbitMQ": Program(("beat",), b"beat.start"),
    "beat on Redis": Program(("beat",), b"beat.start", "redis"),
    "relay on RabbitMQ": _relay(),
    "relay on Redis": _relay(broker="redis"),
    "api": Program(("api",), b"api.start", begin=_ask),
    "relay of Django": Program(_RELAY_OF_DJANGO, b"", prepare=_make_shop, begin=_fill_outbox, check=_check_relay),
    "up": Program(("up",), b"Ctrl-C stops everything", extra_seconds=SERVERS_SECONDS),
    "retry": _command(_RETRY),
    "rejected replay": _command(("rejected", "replay", "--since", "1d", "--why", "chaos")),
    "callbacks replay": _command(_CALLBACKS),
    "suppressions import": _command(_IMPORT, prepare=_make_list),
    "bounces": Program(("bounces", "--listen", "127.0.0.1:{port}"), b"bounces.start", begin=_bounce),
}
