"""Every program can be watched: real scrapes of real processes."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as read_openmetrics
from prometheus_client.parser import text_string_to_metric_families

from notifier import Client
from notifier.api.record_metrics import broker_families
from notifier.broker.inspection import Broker, queue_states
from notifier.dev.machine import free_port
from notifier.domain.errors import ConfigurationError
from notifier.telemetry.server import MetricsServer
from tests.support.api import call, running_api
from tests.support.brokers import publish_raw
from tests.support.promtool import promtool
from tests.support.service import running_service
from tests.waiting import patient, wait_until

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "metrics.md").read_text("utf-8")


def documented(section: str) -> set[str]:
    """Names of the metrics in a section of the reference."""
    found = PAGE.partition(f"## {section}")[2].partition("\n## ")[0]
    return {
        name for row in re.findall(r"^\| (`.*?) \|", found, re.MULTILINE) for name in re.findall(r"`(\w+)`", row)
    }


TWILIO = {"NOTIFIER_TWILIO_ACCOUNT_SID": f"AC{'0' * 32}", "NOTIFIER_TWILIO_AUTH_TOKEN": "0" * 32}


class Scrape:
    """One answer of `/metrics`, read by Prometheus's own parser."""

    def __init__(self, url: str) -> None:
        reply = call("GET", f"{url}/metrics")
        assert reply.headers["content-type"].startswith("text/plain; version=")
        self.text = reply.body.decode()
        families = list(text_string_to_metric_families(self.text))
        self.names = {f"{one.name}_total" if one.type == "counter" else one.name for one in families}
        self.values = {(one.name, *sorted(one.labels.items())): one.value for f in families for one in f.samples}

    def get(self, name: str, **labels: str) -> float:
        return self.values[(name, *sorted(labels.items()))]


def test_every_program_tells_what_it_does(database_url: str, redis_broker_url: str, tmp_path: Path) -> None:
    ports = {name: free_port() for name in ("intake", "beat", "worker-urgent", "worker-normal", "callbacks")}
    own = {name: {"NOTIFIER_METRICS_PORT": str(port)} for name, port in ports.items()}
    urls = {name: f"http://127.0.0.1:{port}" for name, port in ports.items()}
    kind: Any = {"channel": "sms", "lane": "urgent"}
    with (
        running_service(database_url, redis_broker_url, tmp_path, own=own, callbacks=True),
        running_api(database_url, redis_broker_url, tmp_path, **TWILIO) as api,
        Client(redis_broker_url, producer="shop", timeout_seconds=10) as client,
    ):
        client.send("login_code", "+15550100123", lane="urgent", context={"code": "042137", "valid_minutes": 10})
        publish_raw(redis_broker_url, "email.normal", b"no JSON")

        accepted = "notifier_accepted_to_sent_seconds_count"
        wait_until(lambda: Scrape(urls["worker-urgent"]).get(accepted, **kind) == 1, 30)
        rejected = partial(Scrape.get, name="notifier_rejected_total", fault="not_json")
        wait_until(lambda: rejected(Scrape(urls["intake"])) == 1, 30)
        swept = partial(Scrape.get, name="notifier_sweep_last_success_timestamp_seconds")
        wait_until(lambda: any(swept(Scrape(urls[name])) for name in ("worker-urgent", "worker-normal")), 30)

        def whole_scrape() -> Scrape | None:
            # A broker that does not answer within 2 s, on a busy machine too, is left out.
            scrape = Scrape(api.url)
            return scrape if scrape.get("notifier_broker_up") == 1 else None

        scrapes = {name: Scrape(url) for name, url in urls.items()} | {"api": wait_until(whole_scrape, 30)}
        for scrape in scrapes.values():
            assert documented("Of a process") <= scrape.names
            promtool("check", "metrics", folder=tmp_path, given=scrape.text)
        front = scrapes["api"]
        assert documented("Of the record") | documented("Of the broker") <= front.names
        assert front.get("notifier_notifications_waiting", channel="email", lane="bulk", status="queued") == 0
        assert front.get("notifier_circuits_open", provider="twilio") == 0
        assert front.get("notifier_queue_messages", queue="notify.dead") == 0
        assert front.get("notifier_partition_months") == 4
        assert scrapes["intake"].get("notifier_accepted_total", **kind, source="queue") == 1
        worker = scrapes["worker-urgent"]
        assert worker.get("notifier_attempts_total", provider="twilio", outcome="accepted") == 1
        assert worker.get("notifier_attempts_total", provider="smtp", outcome="rejected") == 0
        assert worker.get("notifier_attempt_seconds_count", provider="twilio") == 1
        newest = {"accept": "application/openmetrics-text; version=1.0.0"}
        page = call("GET", f"{urls['beat']}/metrics", headers=newest).body
        assert list(read_openmetrics(page.decode()))  # type: ignore[no-untyped-call]
        assert call("GET", f"{urls['beat']}/healthz").json == {"status": "ok", "program": "beat"}
        assert call("GET", f"{urls['beat']}/").status == 404


def test_a_port_that_is_taken_is_named_with_its_fix() -> None:
    server = MetricsServer("127.0.0.1", 0, "worker")
    try:
        with pytest.raises(
            ConfigurationError, match=rf"127\.0\.0\.1:{server.port}.*NOTIFIER_METRICS_PORT"
        ) as caught:
            MetricsServer("127.0.0.1", server.port, "worker")
        assert caught.value.setting == "NOTIFIER_METRICS_PORT"
    finally:
        server.close()


def test_rabbitmq_tells_what_waits_in_each_queue_and_who_reads_it(amqp_url: str) -> None:
    with Broker.connect(amqp_url) as broker:
        broker.declare()
    publish_raw(amqp_url, "email.normal", b"no JSON")
    states = {one.queue: one for one in queue_states(amqp_url, seconds=patient(10))}
    assert len(states) == 15
    assert states["notify.email.normal"].messages == 1
    [up, messages, readers] = broker_families(list(states.values()))
    assert [sample.value for sample in up.samples] == [1]
    assert sum(sample.value for sample in messages.samples) == 1
    assert {sample.labels["queue"]: sample.value for sample in readers.samples} == dict.fromkeys(states, 0)
