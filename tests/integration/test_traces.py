"""One trace of one notification: from its producer's span, by every way in, to its producer's endpoint."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode
from sqlalchemy import text

from notifier.client.client import Client
from notifier.client.current_span import current_traceparent
from notifier.delivery.sweep import dispatch_callbacks
from notifier.dev.machine import free_port
from notifier.dev.twilio_server import TwilioRule, TwilioServer, running_twilio_server
from notifier.domain.statuses import Channel, Lane
from notifier.intake import Received
from notifier.operations.api_keys import Scope
from notifier.store.engine import transaction
from notifier.store.search import Story
from notifier.telemetry import traces
from notifier.telemetry.span_recorder import OpenTelemetryRecorder
from notifier.worker.runtime import CallbackLoop, DeliveryLoop
from tests.integration.test_delivery_receipts import listening
from tests.integration.test_intake import publish_when_ready, reading
from tests.support.api import Api
from tests.support.callbacks import SECRETS
from tests.support.receiver import Receiver, Say, receiver
from tests.support.templates import write_templates
from tests.waiting import patient, wait_until

NUMBER = "+15550100123"
#: What no span may show.
PRIVATE = (NUMBER, "4711", "order-1001", "ref-1001")
MESSAGE: dict[str, Any] = {
    "idempotency_key": "order-1001",
    "to": NUMBER,
    "template": "code",
    "context": {"code": "4711"},
    "reference": "ref-1001",
}
#: Twilio is busy once, and then takes it.
RULES = (TwilioRule(NUMBER, status=429, code=20429, times=1),)


@dataclass
class World:
    """The service in one process, with everything around it, and the spans that all of them make."""

    api: Api
    hooks: Receiver
    delivery: DeliveryLoop
    callbacks: CallbackLoop
    exporter: InMemorySpanExporter
    provider: TracerProvider
    tasks: list[UUID] = field(default_factory=list)

    def publish_tasks(self, _channel: Channel, _lane: Lane, ids: Sequence[UUID]) -> None:
        self.tasks += ids

    def retry(self) -> None:
        """As if the pause after a failure were over, and a sweep came by."""
        with transaction(self.api.services.engine) as connection:
            connection.execute(text("UPDATE states SET due_at = now() WHERE status = 'retrying'"))

        def deliver(_channel: Channel, _lane: Lane, ids: Sequence[UUID]) -> None:
            self.delivery.deliverer.deliver(ids)

        self.api.services.dispatcher(deliver, lambda *_: None).dispatch_due()

    def call_back(self) -> None:
        def start(ids: Sequence[UUID]) -> None:
            self.callbacks.runner.start(ids).result(patient(30))

        dispatch_callbacks(self.api.services.callbacks, start)

    def story(self, id_: UUID) -> Story:
        return self.api.services.audit.story(id_)

    def spans(self) -> list[ReadableSpan]:
        """In the order of their beginnings."""
        return sorted(self.exporter.get_finished_spans(), key=lambda span: span.start_time or 0)


@pytest.fixture
def world(database_url: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    # The broker's, whichever the test has; over HTTP none is asked.
    broker = request.getfixturevalue(request.param) if request.param else "amqp://127.0.0.1:1/"
    port, twilio = free_port(), TwilioServer(RULES)
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    with ExitStack() as closing:
        hooks = closing.enter_context(receiver())
        closing.enter_context(running_twilio_server(twilio))
        options = {"account_sid": twilio.account_sid, "auth_token": twilio.auth_token, "api_base": twilio.url}
        url = f"http://127.0.0.1:{hooks.port}/hooks"
        structure = {
            "senders": {"default": {"sms": "+15550100100"}},
            "providers": [{"name": "twilio", "kind": "twilio", **options}],
            "callbacks": {"shop": {"url": url, "secrets": SECRETS, "statuses": ["delivered"]}},
        }
        more: dict[str, Any] = {"public_url": f"http://127.0.0.1:{port}", "callback_allow_hosts": "127.0.0.1"}
        api = Api(database_url, write_templates(tmp_path), broker, structure, **more)
        closing.callback(api.close)
        delivery, callbacks = DeliveryLoop(api.services), CallbackLoop(api.services)
        closing.callback(delivery.stop)
        closing.callback(callbacks.stop)
        closing.enter_context(listening(api, port))
        closing.callback(traces.use, None)
        traces.use(OpenTelemetryRecorder(provider))
        yield World(api, hooks, delivery, callbacks, exporter, provider)


def publish_by_client(world: World) -> UUID:
    """On RabbitMQ: the client puts its span into the message."""
    settings = world.api.services.settings
    with reading(settings.require("broker_url"), world.api.services.intake(world.publish_tasks).process):
        with Client(settings.require("broker_url"), producer="shop") as client:
            client.send(lane="urgent", **MESSAGE)
        wait_until(lambda: world.tasks)
    return world.tasks[0]


def publish_with_header(world: World) -> UUID:
    """On Redis: a producer in another language puts it into a header."""
    url = world.api.services.settings.require("broker_url")
    with reading(url, world.api.services.intake(world.publish_tasks).process):
        body = json.dumps({"producer": "shop", **MESSAGE}).encode()
        publish_when_ready(url, "sms.urgent", body, headers={"traceparent": current_traceparent()})
        wait_until(lambda: world.tasks)
    return world.tasks[0]


def post(world: World) -> UUID:
    headers = {"traceparent": str(current_traceparent())}
    body = {"channel": "sms", "lane": "urgent", **MESSAGE}
    key = world.api.key(Scope.SEND)
    reply = world.api("POST", "/v1/notifications", key=key, json_body=body, headers=headers)
    assert reply.status == 202
    return UUID(reply.json["id"])


QUEUE = "accept notify.sms.urgent"


@pytest.mark.parametrize(
    ("world", "publish", "accept"),
    [
        pytest.param("amqp_url", publish_by_client, QUEUE, id="rabbitmq"),
        pytest.param("redis_broker_url", publish_with_header, QUEUE, id="redis"),
        pytest.param(None, post, "accept POST /v1/notifications", id="http"),
    ],
    indirect=["world"],
)
def test_one_trace_has_everything_that_became_of_a_notification(
    world: World, publish: Callable[[World], UUID], accept: str
) -> None:
    begun = time.time_ns()
    with world.provider.get_tracer("shop").start_as_current_span("order"):
        id_ = publish(world)
    world.delivery.deliverer.deliver([id_])
    world.retry()
    wait_until(lambda: world.story(id_).notification.status == "delivered")
    world.call_back()

    order, *ours = world.spans()
    accepted = ours[0]
    assert [span.name for span in ours] == [
        accept,
        "attempt twilio",
        "attempt twilio",
        # Twilio says "sent", then "delivered".
        "report twilio",
        "report twilio",
        "callback",
    ]
    assert accepted.parent is not None
    assert accepted.parent.span_id == order.context.span_id
    assert {span.parent and span.parent.span_id for span in ours[1:]} == {accepted.context.span_id}
    assert {span.context.trace_id for span in ours} == {order.context.trace_id}
    assert [span.kind for span in ours] == [SpanKind.CONSUMER, *[SpanKind.CLIENT] * 2, *[SpanKind.CONSUMER] * 2,
                                            SpanKind.CLIENT]  # fmt: skip
    assert all(begun <= (span.start_time or 0) <= (span.end_time or 0) <= time.time_ns() for span in ours)
    assert [span.status.status_code is StatusCode.ERROR for span in ours] == [False, True, *[False] * 4]
    # What the attributes say.
    assert {(span.attributes or {})["notifier.notification.id"] for span in ours} == {str(id_)}
    failed, taken, sent, delivered, called = (span.attributes or {} for span in ours[1:])
    assert [one["notifier.attempt"] for one in (failed, taken, sent, delivered)] == [1, 2, 2, 2]
    assert [one["notifier.outcome"] for one in (failed, taken)] == ["throttled", "accepted"]
    assert [one["notifier.status"] for one in (failed, taken, delivered)] == ["retrying", "sent", "delivered"]
    assert (failed["error.type"], called["http.response.status_code"]) == ("provider_throttled", 200)
    shown = " ".join(span.to_json() for span in ours)
    assert not [word for word in PRIVATE if word in shown]
    # The endpoint goes on from the call, and an auditor finds the trace.
    (got,) = world.hooks.got
    assert got.headers["traceparent"].split("-")[1:3] == [
        f"{order.context.trace_id:032x}",
        f"{ours[-1].context.span_id:016x}",
    ]
    assert world.story(id_).notification.trace_id == f"{order.context.trace_id:032x}"


@pytest.mark.parametrize("world", [None], indirect=True)
def test_a_context_is_kept_and_passed_on_without_spans_of_ours(world: World) -> None:
    traces.use(None)
    own, of_header = f"00-{'a' * 32}-{'b' * 16}-00", f"00-{'c' * 32}-{'d' * 16}-01"
    entries = [
        {**MESSAGE, "idempotency_key": "own", "traceparent": own},
        {**MESSAGE, "idempotency_key": "header", "traceparent": "nonsense"},
    ]
    body = json.dumps({"producer": "shop", "batch": entries}).encode()
    intake = world.api.services.intake(world.publish_tasks)
    received = Received(body, Channel.SMS, Lane.URGENT, headers={"traceparent": of_header})
    assert intake.process([received]).accepted == 2
    # In another span it is the same message.
    again = Received(body, Channel.SMS, Lane.URGENT, headers={"traceparent": own})
    assert intake.process([again]).duplicates == 2
    ids = list(world.tasks)
    assert [world.story(id_).notification.trace_id for id_ in ids] == ["a" * 32, "c" * 32]
    world.delivery.deliverer.deliver(ids)
    world.retry()
    wait_until(lambda: [world.story(id_).notification.status for id_ in ids] == ["delivered"] * 2)
    while len(world.hooks.got) < 2:
        world.call_back()
    assert sorted(got.headers["traceparent"] for got in world.hooks.got) == [own, of_header]
    assert world.exporter.get_finished_spans() == ()


@pytest.mark.parametrize("world", [None], indirect=True)
def test_a_trace_begins_at_the_service_where_the_producer_has_none(world: World) -> None:
    intake = world.api.services.intake(world.publish_tasks)
    body = json.dumps({"producer": "shop", **MESSAGE}).encode()
    received = Received(body, Channel.SMS, Lane.URGENT)
    intake.process([received])
    # A repetition says nothing new, and nobody waits for it in a trace.
    intake.process([received])
    (span,) = world.spans()
    assert span.parent is None
    assert world.story(world.tasks[0]).notification.trace_id == f"{span.context.trace_id:032x}"


PROGRAM = """
from notifier.cli.services import trace_notifications
from notifier.telemetry import traces
trace_notifications("worker")
traces.begin_trace(traces.SpanName.ACCEPT, "here", {}, parent=None, at=1).end({})
"""


@pytest.mark.parametrize("collector_hangs", [False, True])
def test_a_program_exports_what_is_left_when_it_ends_and_waits_for_no_collector(collector_hangs: bool) -> None:
    with receiver() as collector:
        gate = threading.Event()
        collector.otherwise = Say(gate=gate if collector_hangs else None)
        endpoint = {
            "OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{collector.port}",
            # Far longer than the program may take to end.
            "OTEL_EXPORTER_OTLP_TIMEOUT": "3600",
            "OTEL_BSP_SCHEDULE_DELAY": "3600000",
        }
        program = [sys.executable, "-c", PROGRAM]
        subprocess.run(program, check=True, timeout=patient(25), env={**os.environ, **endpoint})
        gate.set()
        (got,) = collector.got
    assert got.path == "/v1/traces"
    assert b"notifier-worker" in got.body
    assert b"accept here" in got.body
