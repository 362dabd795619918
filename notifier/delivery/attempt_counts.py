"""Counts ended attempts, with their outcomes, their durations and the age of the notifications; and counts
notifications that were given up."""

from __future__ import annotations

import time
from collections.abc import Sequence

from notifier.delivery.delivery import Delivery
from notifier.domain.statuses import SIMULATOR, Channel, Lane, Outcome, Reason, Status
from notifier.telemetry import metrics

#: Provider, outcome, channel, lane.
_Kind = tuple[str, str, Channel, Lane]
#: For fast look-up.
_REASONS = frozenset(Reason)


def count_attempts(answered: Sequence[Delivery]) -> None:
    """Count the deliveries whose provider was called. Batched: one count for each kind of answer."""
    now = time.monotonic()
    kinds: dict[_Kind, tuple[list[float], list[float]]] = {}
    for delivery in answered:
        if not delivery.was_called:
            continue
        notification = delivery.notification
        kind = (delivery.attempt.provider, delivery.outcome, notification.channel, notification.lane)
        found = kinds.get(kind)
        if found is None:
            found = kinds[kind] = ([], [])
        found[0].append(delivery.seconds)
        found[1].append(notification.age_seconds - notification.read_at)
    for (provider, outcome, channel, lane), (seconds, waits) in kinds.items():
        metrics.ATTEMPTS.labels(provider, outcome).inc(len(seconds))
        metrics.ATTEMPT_SECONDS.observe((provider,), seconds)
        # Alarms judge how sending goes by these: tests, which always go well, would hide what fails.
        if outcome == Outcome.ACCEPTED and provider != SIMULATOR:
            metrics.ACCEPTED_TO_SENT.observe((channel, lane), [now + wait for wait in waits])


def count_failed(ended: Sequence[Delivery]) -> None:
    """Count the deliveries that were given up: failed or expired, with or without a call."""
    given_up = [
        # A third-party provider may invent reasons, but labels must be a closed list.
        (
            delivery.notification.channel,
            reason if (reason := delivery.result.reason) in _REASONS else Reason.TECHNICAL_ERROR,
        )
        for delivery in ended
        if delivery.result is not None
        and delivery.result.status in (Status.FAILED, Status.EXPIRED)
        and not delivery.notification.is_test
    ]
    metrics.count(metrics.FAILED, given_up)
