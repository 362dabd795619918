"""The spans of accepted messages. They begin before the batch is written, because later spans go on from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from notifier.broker.topology import notify_queue_name
from notifier.store.records import Acceptance, NewNotification
from notifier.telemetry import traces
from notifier.telemetry.metrics import IntakeSource
from notifier.telemetry.traces import Attributes, OpenSpan, SpanName

_HTTP = "POST /v1/notifications"


class AcceptSpans:
    """The spans of one batch. Does nothing while traces are off."""

    def __init__(self, source: IntakeSource, broker: str, at: int) -> None:
        """`broker`: "rabbitmq" or "redis". `at`: when the batch came, Unix time in nanoseconds."""
        self._source = source
        self._broker = broker
        self._at = at
        self._begun: dict[int, tuple[NewNotification, OpenSpan]] = {}

    def begin(self, notifications: Sequence[NewNotification]) -> Sequence[NewNotification]:
        """Begin a span for each. Returns the same notifications, each with the context for its later spans."""
        return [self._begin(new) for new in notifications] if traces.are_on() else notifications

    def end(self, answers: Sequence[Acceptance]) -> None:
        """Call it after the commit. A duplicate has a span only if its producer sent a trace: the span says why
        nothing follows."""
        for answer in answers if self._begun else ():
            new, span = self._begun.get(answer.position, (None, None))
            if new is None or span is None or (answer.status is None and new.message.traceparent is None):
                continue
            about = traces.about(answer.id, new.channel, new.lane, new.message.template, new.message.producer)
            if answer.fault is not None:
                # No notification was made; the id may belong to another producer's notification.
                about.pop(traces.NOTIFICATION)
                span.end(about, error=answer.fault.code)
            elif answer.status is None:
                span.end({**about, traces.OUTCOME: "duplicate"})
            else:
                span.end({**about, traces.OUTCOME: "accepted", traces.STATUS: answer.status})

    def _begin(self, new: NewNotification) -> NewNotification:
        target, attributes = self._source_of(new)
        given = new.message.traceparent
        span = traces.begin_trace(SpanName.ACCEPT, target, attributes, parent=given, at=self._at)
        if span is None:
            return new
        self._begun[new.position] = (new, span)
        # If the producer sent no context and nobody records the span, it is not worth storing.
        return replace(new, traceparent=span.traceparent) if given or span.is_recorded else new

    def _source_of(self, new: NewNotification) -> tuple[str, Attributes]:
        is_test = {traces.IS_TEST: new.is_test}
        if self._source is IntakeSource.HTTP:
            return _HTTP, is_test
        queue = notify_queue_name(new.channel, new.lane)
        return queue, {
            **is_test,
            traces.SYSTEM: self._broker,
            traces.DESTINATION: queue,
            traces.OPERATION: SpanName.ACCEPT,
            traces.OPERATION_TYPE: "process",
        }
