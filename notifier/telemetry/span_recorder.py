"""Records spans with OpenTelemetry's SDK. Importing it takes a third of a second and 20 MB; `tracing` decides
about it."""

from __future__ import annotations

import atexit
import logging
import os
from collections.abc import Iterable, Sequence
from threading import Event, Thread

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import (
    SERVICE_INSTANCE_ID,
    SERVICE_NAME,
    SERVICE_NAMESPACE,
    SERVICE_VERSION,
    Resource,
)
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.trace import NonRecordingSpan, SpanContext, SpanKind, Status, StatusCode, TraceFlags

from notifier.domain.trace_context import is_sampled, parent_id_of, trace_id_of
from notifier.telemetry.traces import ERROR_TYPE, Attributes, SpanName
from notifier.telemetry.version import installed_version

#: Time to export what is left when a program ends: a collector that hangs does not hold it up for longer. Seconds.
CLOSE_SECONDS = 3.0

_KINDS = {
    SpanName.ACCEPT: SpanKind.CONSUMER,
    SpanName.ATTEMPT: SpanKind.CLIENT,
    SpanName.REPORT: SpanKind.CONSUMER,
    SpanName.CALLBACK: SpanKind.CLIENT,
}
_log = logging.getLogger(__name__)


class RecordedSpan:
    """The implementation of `traces.OpenSpan`."""

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    @property
    def traceparent(self) -> str:
        context = self._span.get_span_context()
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 0xFF:02x}"

    @property
    def is_recorded(self) -> bool:
        return self._span.is_recording()

    def end(self, attributes: Attributes, *, error: str | None = None, at: int | None = None) -> None:
        try:
            self._span.set_attributes(dict(attributes))
            if error is not None:
                self._span.set_attribute(ERROR_TYPE, error)
                self._span.set_status(Status(StatusCode.ERROR, error))
            self._span.end(end_time=at)
        except Exception as problem:
            _tell(problem)


class OpenTelemetryRecorder:
    """The implementation of `traces.SpanRecorder`. Its provider is private, so libraries that make their own spans
    do not find it."""

    def __init__(self, provider: TracerProvider) -> None:
        self._tracer = provider.get_tracer("notifier", installed_version() or "")

    def begin(
        self, name: SpanName, target: str, attributes: Attributes, *, parent: str | None, at: int
    ) -> RecordedSpan | None:
        try:
            span = self._tracer.start_span(
                f"{name} {target}".rstrip(),
                # Never the caller's context, because the thread may be working for other notifications.
                Context() if parent is None else _context(parent),
                _KINDS[name],
                dict(attributes),
                start_time=at,
            )
        except Exception as problem:
            _tell(problem)
            return None
        return RecordedSpan(span)


class ToldExporter(SpanExporter):
    """Logs once when spans cannot be exported, and once when they can again. The libraries' own lines, several for
    each batch, quote the collector's answers; `config.logs` drops them."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._lost = 0

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._exporter.export(spans)
        except Exception:
            result = SpanExportResult.FAILURE
        if result is not SpanExportResult.SUCCESS:
            if not self._lost:
                _log.warning("spans cannot be exported; is the collector there?")
            self._lost += len(spans)
        elif self._lost:
            _log.warning("spans are exported again; %d were lost", self._lost)
            self._lost = 0
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def make_recorder(program: str, exporters: Iterable[SpanExporter]) -> OpenTelemetryRecorder:
    """Make a recorder that sends spans to these exporters in batches, from a separate thread. If spans come
    faster than the exporters take them, the rest is dropped. At the end of the process the exporters get
    `CLOSE_SECONDS`."""
    provider = TracerProvider(resource=_resource(program), shutdown_on_exit=False)
    for exporter in exporters:
        provider.add_span_processor(BatchSpanProcessor(ToldExporter(exporter)))
    _close_at_exit(provider)
    return OpenTelemetryRecorder(provider)


def _resource(program: str) -> Resource:
    """OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES, and our own values for the rest."""
    ours = {
        SERVICE_NAME: f"notifier-{program}",
        SERVICE_NAMESPACE: "notifier",
        SERVICE_VERSION: installed_version() or "",
        SERVICE_INSTANCE_ID: f"{os.uname().nodename}-{os.getpid()}",
    }
    given = Resource.create().attributes
    is_named = not str(given.get(SERVICE_NAME, "")).startswith("unknown_service")
    kept = {name: value for name, value in given.items() if name != SERVICE_NAME or is_named}
    return Resource({**ours, **kept})


def _close_at_exit(provider: TracerProvider) -> None:
    """Close in a thread that already exists, because none can be started at exit."""
    is_over = Event()

    def close() -> None:
        is_over.wait()
        provider.shutdown()

    thread = Thread(target=close, name="traces", daemon=True)
    thread.start()

    @atexit.register
    def wait() -> None:
        is_over.set()
        thread.join(CLOSE_SECONDS)


def _context(traceparent: str) -> Context:
    parent = SpanContext(
        int(trace_id_of(traceparent), 16),
        int(parent_id_of(traceparent), 16),
        is_remote=True,
        trace_flags=TraceFlags(TraceFlags.SAMPLED if is_sampled(traceparent) else TraceFlags.DEFAULT),
    )
    return trace.set_span_in_context(NonRecordingSpan(parent), Context())


def _tell(problem: Exception) -> None:
    # A sampler or a processor that the environment names may be anybody's code. The message continues without its
    # span.
    _log.warning("a span was not made (%s)", type(problem).__name__)
