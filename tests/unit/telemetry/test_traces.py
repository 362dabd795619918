"""Traces cost nothing while they are off, begin with the variables OTEL_*, and no fault of theirs gets further."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF, DEFAULT_ON, Sampler
from opentelemetry.trace import SpanKind, StatusCode

from notifier.cli.checks import check_traces
from notifier.domain.trace_context import is_sampled
from notifier.telemetry import traces
from notifier.telemetry.span_recorder import OpenTelemetryRecorder, ToldExporter, make_recorder
from notifier.telemetry.traces import SpanName
from notifier.telemetry.tracing import start_tracing, tracing_problem, wanted_exporters

PARENT = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
ENDPOINT = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:4318"}


@pytest.fixture
def exporter() -> Iterator[InMemorySpanExporter]:
    yield InMemorySpanExporter()
    traces.use(None)


def record(exporter: InMemorySpanExporter, sampler: Sampler = DEFAULT_ON) -> None:
    provider = TracerProvider(sampler=sampler, shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    traces.use(OpenTelemetryRecorder(provider))


def test_without_traces_there_is_no_span_and_opentelemetry_is_not_loaded() -> None:
    assert traces.begin_trace(SpanName.ACCEPT, "x", {}, parent=PARENT, at=1) is None
    code = (
        "import sys, notifier, notifier.cli.services, notifier.telemetry.tracing as tracing\n"
        "assert tracing.start_tracing('worker') is None\n"
        "from notifier import RecordingClient\n"
        "client = RecordingClient()\n"
        "client.send('hello', 'ann@example.com')\n"
        "assert client.sent[0].message.traceparent is None\n"
        "assert not [name for name in sys.modules if name.startswith('opentelemetry')]"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_a_span_has_its_parent_its_times_and_its_kind(exporter: InMemorySpanExporter) -> None:
    record(exporter)
    span = traces.go_on(SpanName.ATTEMPT, "smtp", {traces.ATTEMPT: 2}, parent=PARENT, at=1_000)
    assert span is not None
    span.end({traces.STATUS: "retrying"}, error="provider_unavailable", at=3_000)
    (found,) = exporter.get_finished_spans()
    assert found.parent is not None
    assert span.traceparent == f"00-{found.parent.trace_id:032x}-{found.context.span_id:016x}-01"
    assert f"00-{found.parent.trace_id:032x}-{found.parent.span_id:016x}-01" == PARENT
    assert (found.name, found.kind, found.start_time, found.end_time) == (
        "attempt smtp",
        SpanKind.CLIENT,
        1_000,
        3_000,
    )
    assert found.status.status_code is StatusCode.ERROR
    assert dict(found.attributes or {}) == {
        "notifier.attempt": 2,
        "notifier.status": "retrying",
        "error.type": "provider_unavailable",
    }


def test_who_begins_a_trace_decides_whether_it_is_recorded(exporter: InMemorySpanExporter) -> None:
    record(exporter)
    assert traces.begin_trace(SpanName.ACCEPT, "x", {}, parent=f"{PARENT[:-2]}00", at=1) is None
    assert traces.go_on(SpanName.ATTEMPT, "x", {}, parent=None, at=1) is None
    record(exporter, ALWAYS_OFF)
    span = traces.begin_trace(SpanName.ACCEPT, "x", {}, parent=None, at=1)
    assert span is not None
    assert not span.is_recorded
    assert not is_sampled(span.traceparent)
    span.end({})
    assert exporter.get_finished_spans() == ()


class Broken(SpanProcessor):
    """A processor that fails at one of the two ends of a span."""

    def __init__(self, at_start: bool) -> None:
        self.at_start = at_start

    def on_start(self, span: Any, parent_context: Any = None) -> None:
        if self.at_start:
            raise RuntimeError("no")

    def on_end(self, span: ReadableSpan) -> None:
        raise RuntimeError("no")


@pytest.mark.parametrize("at_start", [True, False])
def test_what_fails_in_a_tracer_stays_there(
    exporter: InMemorySpanExporter, caplog: pytest.LogCaptureFixture, at_start: bool
) -> None:
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(Broken(at_start))
    traces.use(OpenTelemetryRecorder(provider))
    span = traces.begin_trace(SpanName.ACCEPT, "x", {}, parent=None, at=1)
    assert (span is None) is at_start
    if span is not None:
        span.end({})
    assert [record.getMessage() for record in caplog.records] == ["a span was not made (RuntimeError)"]


class Collector(InMemorySpanExporter):
    """Fails as it is told to, then takes everything."""

    def __init__(self, *results: SpanExportResult | Exception) -> None:
        super().__init__()
        self.results = list(results)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if not self.results:
            return super().export(spans)
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


def test_a_collector_that_is_away_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    away = SpanExportResult.FAILURE
    exporter = ToldExporter(Collector(away, OSError("the token is 4711"), away))
    spans = [ReadableSpan("accept x")] * 2
    assert [exporter.export(spans).name for _ in range(5)] == [*["FAILURE"] * 3, *["SUCCESS"] * 2]
    assert [record.getMessage() for record in caplog.records] == [
        "spans cannot be exported; is the collector there?",
        "spans are exported again; 6 were lost",
    ]


@pytest.mark.parametrize(
    ("environment", "exporters"),
    [
        ({}, []),
        (ENDPOINT, ["otlp_proto_http"]),
        ({"OTEL_EXPORTER_OTLP_TRACES_ENDPOINT": "http://127.0.0.1:4318/v1/traces"}, ["otlp_proto_http"]),
        ({**ENDPOINT, "OTEL_SDK_DISABLED": "True"}, []),
        ({**ENDPOINT, "OTEL_TRACES_EXPORTER": "none"}, []),
        ({"OTEL_TRACES_EXPORTER": "otlp, console"}, ["otlp_proto_http", "console"]),
        ({**ENDPOINT, "OTEL_EXPORTER_OTLP_PROTOCOL": "grpc"}, ["otlp_proto_grpc"]),
        ({"OTEL_SERVICE_NAME": "notifier"}, []),
    ],
)
def test_the_usual_variables_say_where_spans_go(
    environment: dict[str, str], exporters: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert wanted_exporters() == exporters


def test_an_exporter_that_is_not_there_is_a_problem_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert start_tracing("worker") is tracing_problem() is None
    monkeypatch.setenv("OTEL_TRACES_EXPORTER", "pigeon")
    expected = "no installed package exports traces to pigeon: correct OTEL_TRACES_EXPORTER"
    assert start_tracing("worker") == tracing_problem() == expected
    [check] = check_traces()
    assert (check.name, check.ok, check.fix) == ("traces", True, "correct OTEL_TRACES_EXPORTER")
    assert not traces.are_on()


@pytest.mark.parametrize("absent", ["opentelemetry", "opentelemetry.sdk"])
def test_without_the_extra_a_program_says_what_to_install(absent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # To Python it is not installed; a producer may have the API alone.
    monkeypatch.setitem(sys.modules, absent, None)
    assert tracing_problem() is None
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:4318")
    assert "install notifier[otel] from where you installed notifier" in str(start_tracing("worker"))
    assert not traces.are_on()


def test_a_program_is_a_service_of_its_own_unless_the_environment_names_it(
    monkeypatch: pytest.MonkeyPatch, exporter: InMemorySpanExporter
) -> None:
    def service() -> object:
        recorder = make_recorder("worker", [exporter])
        return recorder._tracer.resource.attributes["service.name"]  # type: ignore[attr-defined]

    assert service() == "notifier-worker"
    monkeypatch.setenv("OTEL_SERVICE_NAME", "mailer")
    assert service() == "mailer"
