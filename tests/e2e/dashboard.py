"""`make dashboard-check`: every query of the dashboard has something to show after a load like the demo's.

Every program of the service runs with its metrics on, and a Prometheus of our own scrapes them all, while messages
are sent, rejected, retried, reported and called back. Not part of `make test`.
"""

from __future__ import annotations

import json
import signal
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from sqlalchemy.orm import Session

from notifier.client.client import Client
from notifier.client.outbox import create_table, make_engine
from notifier.dev.machine import free_port
from notifier.dev.processes import ServerProcess
from notifier.dev.programs import API, PROGRAMS, Programs
from notifier.dev.smtp_server import MailServer, Rule, running_mail_server
from notifier.dev.twilio_server import running_twilio_server
from tests.support.brokers import publish_raw
from tests.support.callbacks import SECRETS
from tests.support.promtool import program, promtool
from tests.support.receiver import receiver
from tests.waiting import patient, wait_until

DASHBOARD = Path(__file__).parents[2] / "deploy" / "grafana" / "notifier.json"
RESET = {"reset_url": "https://shop.example.com/reset?token=x", "valid_minutes": 30}
CODE = {"code": "042137", "valid_minutes": 10}
RULES = (Rule("busy@example.com", reply="451 4.3.0 try again later", times=1),)
TOML = """
[senders.default]
email = "shop@example.com"
sms = "+15550100100"
[heartbeats]
email = "heartbeat@example.com"
every_minutes = 1
[callbacks.shop]
url = "http://127.0.0.1:{port}/"
secrets = ["{secret}"]
statuses = ["sent"]
"""
#: Needs a Prometheus that scraped before and after, so the load's own time does not count.
RATE_INTERVAL = "5m"


def test_every_query_has_something_to_show(database_url: str, amqp_url: str, tmp_path: Path) -> None:
    engine = make_engine(database_url)
    create_table(engine)
    engine.dispose()
    with ExitStack() as stack:
        programs, ports = stack.enter_context(running_programs(database_url, amqp_url, tmp_path))
        urls = {name: f"127.0.0.1:{port}" for name, port in ports.items()}
        prometheus = stack.enter_context(running_prometheus(urls, tmp_path))

        def wait_for(query: str, value: float) -> None:
            wait_until(lambda: value_of(prometheus, query) >= value or not all(programs.running.values()), 30)
            assert all(programs.running.values()), [log.read_text()[-300:] for log in programs.logs.values()]

        wait_for('sum(up{job=~"notifier.*"})', len(urls))
        make_load(database_url, amqp_url)
        # What ends last.
        wait_for("sum(notifier_sent_to_delivered_seconds_count)", 4)
        wait_for('sum(notifier_callback_calls_total{outcome="delivered"})', 12)
        wait_for("-max(notifier_heartbeat_age_seconds)", -100)
        found = {(title, query): show(prometheus, query) for title, query in queries()}
        for (title, query), values in found.items():
            print(f"{title}: {', '.join(values[:3]) or 'NOTHING'}{' …' if values[3:] else ''}   {query}")
        assert not [title for (title, _), values in found.items() if not values]
        for name, url in urls.items():
            with urllib.request.urlopen(f"http://{url}/metrics", timeout=patient(10)) as page:
                promtool("check", "metrics", folder=tmp_path, given=page.read().decode())
            print(f"promtool takes the metrics of {name}")


@contextmanager
def running_programs(
    database_url: str, broker_url: str, folder: Path
) -> Iterator[tuple[Programs, dict[str, int]]]:
    """All of them, and the port of each one's metrics."""
    mail_port = free_port()
    programs = {
        **API,
        **PROGRAMS,
        "bounces": ("bounces", "--listen", f"127.0.0.1:{mail_port}"),
        "relay": ("relay", "--database-url", database_url),
    }
    ports = {name: free_port() for name in programs}
    with (
        receiver() as hooks,
        running_mail_server(MailServer(RULES)) as mail,
        running_twilio_server() as twilio,
    ):
        (folder / "notifier.toml").write_text(TOML.format(port=hooks.port, secret=SECRETS[0]))
        environment = {
            "NOTIFIER_DATABASE_URL": database_url,
            "NOTIFIER_BROKER_URL": broker_url,
            "NOTIFIER_CONFIG": str(folder / "notifier.toml"),
            "NOTIFIER_DATA_DIR": str(folder),
            "NOTIFIER_CALLBACK_ALLOW_HOSTS": "127.0.0.1",
            "NOTIFIER_HASH_KEY": "a key of this check",
            "NOTIFIER_BOUNCE_ADDRESS": "bounces@example.com",
            "NOTIFIER_SMTP_URL": f"smtp://127.0.0.1:{mail.port}?starttls=never",
            "NOTIFIER_TWILIO_ACCOUNT_SID": twilio.account_sid,
            "NOTIFIER_TWILIO_AUTH_TOKEN": twilio.auth_token,
            "NOTIFIER_TWILIO_API_BASE": twilio.url,
            "NOTIFIER_API_PORT": str(ports["api"]),
            "NOTIFIER_PUBLIC_URL": f"http://127.0.0.1:{ports['api']}",
        }
        own = {name: {"NOTIFIER_METRICS_PORT": str(port)} for name, port in ports.items() if name not in API}
        running = Programs(environment, folder / "logs", own, programs)
        running.start()
        try:
            yield running, ports
        finally:
            running.stop()


@contextmanager
def running_prometheus(targets: dict[str, str], folder: Path) -> Iterator[str]:
    """One that scrapes each second, as docs/how-to/alerts.md sets it up. Yields its URL."""
    port, names = free_port(), [name for name in targets if name != "api"]
    jobs = [
        {"job_name": "notifier-api", "static_configs": [{"targets": [targets["api"]]}]},
        {"job_name": "notifier", "static_configs": [{"targets": [targets[name] for name in names]}]},
    ]
    (folder / "prometheus.yml").write_text(
        json.dumps({"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": jobs})
    )
    options = [f"--storage.tsdb.path={folder / 'tsdb'}", f"--web.listen-address=127.0.0.1:{port}"]
    server = ServerProcess(
        "Prometheus",
        [program("prometheus"), f"--config.file={folder / 'prometheus.yml'}", *options],
        log=folder / "prometheus.log",
        stop_plan=[(signal.SIGTERM, 20.0)],
        cwd=folder,
    )
    server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.stop()


def make_load(database_url: str, broker_url: str) -> None:
    engine = make_engine(database_url)
    with Client(broker_url, producer="shop", timeout_seconds=20) as client:
        for number in range(4):
            client.send("login_code", f"+1555010010{number}", lane="urgent", context=CODE)
            for lane in ("normal", "bulk"):
                client.send("password_reset", f"user{number}@example.com", lane=lane, context=RESET)
        client.send("password_reset", "busy@example.com", lane="urgent", context=RESET)
        with Session(engine) as session, session.begin():
            client.send("password_reset", "ann@example.com", context=RESET, outbox=session)
    publish_raw(broker_url, "email.normal", b"no JSON")
    engine.dispose()


def queries() -> list[tuple[str, str]]:
    panels = json.loads(DASHBOARD.read_text("utf-8"))["panels"]
    return [
        (panel["title"], target["expr"].replace("$__rate_interval", RATE_INTERVAL))
        for panel in panels
        for target in panel.get("targets", ())
    ]


def ask(prometheus: str, query: str) -> list[dict[str, Any]]:
    url = f"{prometheus}/api/v1/query?{urlencode({'query': query})}"
    try:
        with urllib.request.urlopen(url, timeout=patient(10)) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return found
    except urllib.error.URLError:
        return []  # it is not there yet


def value_of(prometheus: str, query: str) -> float:
    """The value of a query with one; infinite without."""
    found = ask(prometheus, query)
    return float(found[0]["value"][1]) if found else float("-inf")


def show(prometheus: str, query: str) -> list[str]:
    """Its series that have a value."""
    return [
        f"{'/'.join(one['metric'].values())} {float(one['value'][1]):g}".strip()
        for one in ask(prometheus, query)
        if one["value"][1] != "NaN"
    ]
