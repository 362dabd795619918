"""Records the span of a callback, and writes the header by which the endpoint joins the same trace."""

from __future__ import annotations

import time

from notifier.callbacks.http import CallbackAnswer
from notifier.store.callbacks import ClaimedCallback
from notifier.telemetry import traces
from notifier.telemetry.traces import Attributes, OpenSpan, SpanName


def begin_span(claimed: ClaimedCallback) -> OpenSpan | None:
    """Begin the span; None: tracing is off, or the notification has no recorded trace."""
    if not traces.are_on() or claimed.traceparent is None:
        return None
    attributes: Attributes = {
        traces.NOTIFICATION: str(claimed.notification_id),
        traces.PRODUCER: claimed.producer,
        traces.CHANNEL: claimed.channel or "",
        traces.IS_TEST: claimed.is_test,
        traces.STATUS: claimed.status,
        traces.CALL: claimed.number,
        traces.HTTP_METHOD: "POST",
    }
    return traces.go_on(SpanName.CALLBACK, "", attributes, parent=claimed.traceparent, at=time.time_ns())


def trace_headers(claimed: ClaimedCallback, span: OpenSpan | None) -> dict[str, str]:
    """The header for the endpoint. Without a span of ours, the producer's own context is passed on, as W3C
    specifies."""
    traceparent = claimed.traceparent if span is None else span.traceparent
    return {} if traceparent is None else {"traceparent": traceparent}


def end_span(span: OpenSpan, answer: CallbackAnswer) -> None:
    status = {} if answer.http_status is None else {traces.HTTP_STATUS: answer.http_status}
    span.end(status, error=answer.failure)
