"""Traces attempts: a span for each attempt that ended, from the times of its call."""

from __future__ import annotations

import time
from collections.abc import Sequence

from notifier.delivery.delivery import Delivery
from notifier.domain.statuses import Outcome
from notifier.telemetry import traces
from notifier.telemetry.traces import Attributes, SpanName


def trace_attempts(answered: Sequence[Delivery]) -> None:
    """Trace the deliveries whose provider was called and whose notification has a trace."""
    if not traces.are_on():
        return
    # The Unix time at which the monotonic clock was 0. Nanoseconds.
    epoch = time.time_ns() - time.monotonic_ns()
    for delivery in answered:
        if delivery.notification.traceparent is not None and delivery.was_called:
            _trace(delivery, epoch)


def _trace(delivery: Delivery, epoch: int) -> None:
    one, attempt = delivery.notification, delivery.attempt
    attributes: Attributes = {
        **traces.about(one.id, one.channel, one.lane, one.template, one.producer),
        traces.IS_TEST: one.is_test,
        traces.PROVIDER: attempt.provider,
        traces.ATTEMPT: attempt.number,
        traces.OUTCOME: delivery.outcome,
    }
    begun = epoch + int(delivery.begun * 1e9)
    span = traces.go_on(SpanName.ATTEMPT, attempt.provider, attributes, parent=one.traceparent, at=begun)
    if span is None:
        return
    status = {} if delivery.result is None else {traces.STATUS: delivery.result.status}
    reason = getattr(delivery.answer, "reason", None)
    error = None if delivery.outcome is Outcome.ACCEPTED else str(reason or delivery.outcome)
    span.end(status, error=error, at=begun + int(delivery.seconds * 1e9))
