"""Real processes, with keys: what is personal goes through the whole service and is nowhere that it need not be.

Distinctive values are sent by both ways in, on both channels, to providers that refuse, defer and quote them back;
some are rejected, retried and reported on. Then they are looked for.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg
from celery.events.event import get_exchange
from kombu import Connection, Queue

from notifier.bootstrap import Services
from notifier.broker import topology
from notifier.client.client import Client
from notifier.config.settings import Settings
from notifier.dev.machine import free_port
from notifier.dev.processes import ServerProcess
from notifier.dev.programs import Programs
from notifier.dev.smtp_faults import Rule
from notifier.dev.smtp_server import MailServer, running_mail_server
from notifier.dev.twilio_server import TwilioRule, TwilioServer, running_twilio_server
from notifier.domain.message import new_id
from notifier.operations.api_keys import Scope
from notifier.security.encryption import new_key
from tests.e2e.test_api import key_of
from tests.support import forking
from tests.support.api import call
from tests.support.brokers import publish_raw
from tests.support.templates import write_templates
from tests.waiting import patient, wait_until

#: Part of every name, address and code.
CANARY = "kanarie7341"
NUMBER, REFUSED_NUMBER = "+15550107341", "+15550107342"
WORDS = (CANARY, NUMBER[1:], REFUSED_NUMBER[1:])
PROGRAMS = {"intake": ("intake",), "beat": ("beat",), "worker": ("worker",), "api": ("api",)}
#: How they end: one mail at once and one at the second try, one text that arrives, one of each that is refused.
ENDS = {"sent": 2, "delivered": 1, "failed": 2}
CONFIG = """
sms_prefixes = ["+1"]
[senders.default]
email = "shop@example.com"
sms = "+15550100100"
[retry.normal]
first_seconds = 0.1
max_seconds = 0.2
deadline_seconds = 600
max_attempts = 40
[caps.recipient]
count = 100
per_seconds = 60
"""


def address(name: str) -> str:
    return f"{name}.{CANARY}@example.com"


class Tap:
    """Reads along: the tasks on their way to the workers, and the events of the workers."""

    def __init__(self, broker_url: str) -> None:
        self.seen: list[str] = []
        self._url = broker_url
        self._ready, self._stop = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Tap:
        self._thread.start()
        assert self._ready.wait(patient(20))
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(patient(20))

    def _run(self) -> None:
        with Connection(self._url) as connection:
            channel = connection.channel()
            queue = Queue("tap", durable=False, auto_delete=True)(channel)
            queue.declare()
            names = [topology.deliver_queue_name(*pair) for pair in topology.pairs()]
            for exchange, keys in (
                (topology.DELIVER, [*names, topology.CALLBACKS, topology.MAINTENANCE]),
                (get_exchange(connection), ["#"]),
            ):
                exchange(channel).declare()
                for key in keys:
                    queue.bind_to(exchange, key)
            with connection.Consumer(queue, on_message=self._take, channel=channel):
                self._ready.set()
                while not self._stop.is_set():
                    try:
                        connection.drain_events(timeout=0.2)
                    except TimeoutError:
                        continue

    def _take(self, message: Any) -> None:
        self.seen.append(f"{message.body!r} {message.headers} {message.properties}")
        message.ack()


@contextmanager
def running_flower(environment: Mapping[str, str], folder: Path) -> Iterator[str]:
    """The URL of a Flower that everybody may ask. It answers only when it knows the broker."""
    port = free_port()
    command = [
        "celery",
        "-A",
        "notifier.worker.app",
        "flower",
        "--address=127.0.0.1",
        f"--port={port}",
        "--read_only=True",
    ]
    process = ServerProcess(
        "flower",
        [sys.executable, "-m", *command],
        log=folder / "flower.log",
        stop_plan=[(signal.SIGTERM, 10.0), (signal.SIGKILL, 10.0)],
        cwd=Path.cwd(),
        env={**os.environ, **environment, "FLOWER_UNAUTHENTICATED_API": "true"},
        launch=forking.launch,
    )
    process.start()
    try:
        wait_until(lambda: _answers(lambda: _get(f"http://127.0.0.1:{port}/healthcheck") == "OK"), timeout=60)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.stop()


def _get(url: str) -> str:
    with urlopen(url, timeout=patient(10)) as answer:
        return str(answer.read().decode())


def dump(database_url: str) -> str:
    """Every row of every table, as text; bytes in hexadecimal digits."""
    tables = (
        "SELECT format('%I', relname) FROM pg_class WHERE relkind = 'r' AND relnamespace = 'public'::regnamespace"
    )
    with psycopg.connect(database_url) as connection:
        names = [name for (name,) in connection.execute(tables)]
        rows = [row for name in names for (row,) in connection.execute(f"SELECT t::text FROM {name} AS t")]
    return "\n".join(rows)


def lines_with_canary(content: str) -> list[str]:
    spelled = [*WORDS, *(word.encode().hex() for word in WORDS)]
    return [line[:500] for line in content.splitlines() if any(word in line for word in spelled)]


def wait_for(services: Services, ends: dict[str, int]) -> None:
    def ended() -> bool:
        counts: dict[str, int] = {}
        for row in services.audit.count():
            counts[row.status] = counts.get(row.status, 0) + row.count
        return counts == ends

    wait_until(ended, timeout=60)


def send_all(broker_url: str, url: str, key: str) -> list[str]:
    """Everything that a producer can do, right and wrong. Returns the answers that may not hold what was sent."""

    def post(**body: Any) -> Any:
        own = {"Idempotency-Key": str(new_id())}
        return call("POST", f"{url}/v1/notifications", key=key, json_body={"lane": "normal", **body}, headers=own)

    hello = {"channel": "email", "template": "hello", "context": {"name": CANARY}}
    assert post(to=address("good"), metadata={"cart": "c-1"}, **hello).status == 202
    code = {"channel": "sms", "template": "code", "context": {"code": f"{CANARY}-1"}}
    assert post(to=NUMBER, **code).status == 202
    with Client(broker_url, producer="shop", timeout_seconds=10) as client:
        client.send("hello", to=f"{CANARY} <{address('slow')}>", context={"name": CANARY})
        client.send("hello", to=address("bad"), context={"name": CANARY})
        client.send("code", to=REFUSED_NUMBER, context={"code": f"{CANARY}-2"})
    publish_raw(broker_url, "email.normal", f'{{"to": "{address("broken")}'.encode(), headers={"for": CANARY})
    publish_raw(
        broker_url,
        "sms.normal",
        f'{{"producer": "shop", "to": "{NUMBER}", "template": "no_such", "lost": "{CANARY}"}}'.encode(),
    )
    wrong = [
        post(to=f"{CANARY} at example", **hello),
        post(to=address("good"), **{**hello, "context": {"name": [CANARY]}}),
        post(to=address("good"), lost=CANARY, **hello),
        call("GET", f"{url}/v1/notifications?recipient={address('good')}&status={CANARY}", key=key),
        call("GET", f"{url}/v1/notifications", key=CANARY),
    ]
    assert {answer.status for answer in wrong} <= {401, 422}
    page = call("GET", f"{url}/v1/notifications?recipient={address('good')}", key=key)
    assert [row["recipient"] for row in page.json["items"]] == [address("good")]
    return [f"{answer.headers} {answer.body.decode()}" for answer in wrong]


def test_no_canary_is_found_where_it_need_not_be(database_url: str, amqp_url: str, tmp_path: Path) -> None:
    templates, config = write_templates(tmp_path / "templates"), tmp_path / "notifier.toml"
    config.write_text(CONFIG)
    url = f"http://127.0.0.1:{free_port()}"
    mail_rules = [
        Rule(address("bad"), f"550 5.1.1 <{address('bad')}>: no such user"),
        Rule(address("slow"), f"451 4.3.0 <{address('slow')}> try later", times=1),
    ]
    refusal = TwilioRule(REFUSED_NUMBER, 400, 21211, f"Invalid 'To' Phone Number: {REFUSED_NUMBER}")
    with ExitStack() as stack:
        mail = stack.enter_context(running_mail_server(MailServer(mail_rules)))
        twilio = stack.enter_context(running_twilio_server(TwilioServer([refusal])))
        keys = {"NOTIFIER_ENCRYPTION_KEYS": new_key("one"), "NOTIFIER_HASH_KEY": "a key of sixteen or more"}
        environment = {
            "NOTIFIER_DATABASE_URL": database_url,
            "NOTIFIER_BROKER_URL": amqp_url,
            "NOTIFIER_SMTP_URL": f"smtp://127.0.0.1:{mail.port}?starttls=never",
            "NOTIFIER_TWILIO_ACCOUNT_SID": twilio.account_sid,
            "NOTIFIER_TWILIO_AUTH_TOKEN": twilio.auth_token,
            "NOTIFIER_TWILIO_API_BASE": twilio.url,
            "NOTIFIER_PUBLIC_URL": url,
            "NOTIFIER_API_PORT": url.rpartition(":")[2],
            "NOTIFIER_DATA_DIR": str(tmp_path),
            "NOTIFIER_CONFIG": str(config),
            "NOTIFIER_TEMPLATES": str(templates),
            "NOTIFIER_LOG_LEVEL": "debug",
            "NOTIFIER_WORKER_QUESTIONS": "true",
            **keys,
        }
        tap = stack.enter_context(Tap(amqp_url))
        programs = Programs(environment, tmp_path / "logs", programs=PROGRAMS, launch=forking.launch)
        stack.callback(programs.stop)
        programs.start()
        flower = stack.enter_context(running_flower(environment, tmp_path))
        services = Services(Settings(database_url=database_url, **{n[9:].lower(): v for n, v in keys.items()}))  # type: ignore[arg-type]
        stack.callback(services.close)
        key = key_of(database_url, templates, Scope.SEND, Scope.READ, Scope.OPERATE)
        wait_until(lambda: _answers(lambda: call("GET", f"{url}/readyz").status == 200), timeout=60)
        answers = send_all(amqp_url, url, key)
        wait_for(services, ENDS)
        again = {"filter": {"recipient": address("bad"), "status": "failed"}}
        retried = call("POST", f"{url}/v1/notifications/retry", key=key, json_body=again)
        assert retried.json["changed"] == 1
        # An operator's retry of who does not exist: the server's answer has suppressed it.
        wait_for(services, {**ENDS, "failed": 1, "suppressed": 1})
        wait_until(lambda: len(services.audit.rejected()) == 2, timeout=20)
        metrics = call("GET", f"{url}/metrics").body.decode()
        wait_until(lambda: "notifier.deliver" in _get(f"{flower}/api/tasks?limit=1000"), timeout=20)
        shown = [
            _get(f"{flower}{path}") for path in ("/api/tasks?limit=1000", "/api/workers", "/metrics", "/workers")
        ]
        programs.stop()
    assert {message.body for message in twilio.messages} == {f"Your code is {CANARY}-1."}
    logs = {name: log.read_text() for name, log in programs.logs.items()}
    assert all(logs.values())
    assert any("task-received" in seen for seen in tap.seen)
    assert any("notifier.deliver" in seen for seen in tap.seen)
    stored = dump(database_url)
    assert "shop" in stored
    assert lines_with_canary(stored) == []
    others = {"tasks and events": tap.seen, "answers": answers, "metrics": [metrics], "Flower": shown}
    for name, content in {**{name: [log] for name, log in logs.items()}, **others}.items():
        assert lines_with_canary("\n".join(content)) == [], name


def _answers(ask: Callable[[], bool]) -> bool:
    try:
        return ask()
    except OSError:
        return False
