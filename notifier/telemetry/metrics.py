"""The metrics of a process. Every name is here and nowhere else, except metrics that are read from the record
(`api.record_metrics`).

Each is counted where the event happens, a batch at a time: once for each set of labels. Label values are closed
lists or configured names. Producers choose none of them, so nobody can make endless series, and none is about a
person. Series exist from the start with 0: if a series only appeared with its first event, an alert that compares
two scrapes would miss that event.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable
from enum import StrEnum
from itertools import product

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Info,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
)

from notifier.domain.statuses import CallbackFailure, Channel, Lane, Outcome, Reason
from notifier.telemetry.batch_histogram import BatchHistogram
from notifier.telemetry.version import installed_version

#: Codes of faults for which a message is rejected, or refused over HTTP.
FAULTS = (
    "attachments_not_here",
    "attachments_too_large",
    "bad_attachment_id",
    "bad_callback_url",
    "bad_choice",
    "bad_envelope",
    "bad_format",
    "bad_id",
    "bad_id_time",
    "bad_number",
    "bad_properties",
    "bad_recipient",
    "bad_time",
    "bad_utf8",
    "celery_message",
    "channel_not_allowed",
    "expires_before_send",
    "gave_up",
    "id_in_use",
    "idempotency_conflict",
    "invalid",
    "key_mismatch",
    "lane_not_allowed",
    "missing",
    "missing_variable",
    "more_faults",
    "no_callback_secret",
    "no_key",
    "not_an_address",
    "not_an_envelope",
    "not_an_object",
    "not_e164",
    "not_json",
    "not_storable",
    "nul_character",
    "producer_not_proven",
    "queue_mismatch",
    "sender_not_allowed",
    "technical_error",
    "template_invalid",
    "template_not_allowed",
    "too_far_ahead",
    "too_large",
    "too_long",
    "too_long_ago",
    "too_short",
    "unknown_attachment",
    "unknown_field",
    "unknown_sender",
    "unknown_template",
    "wrong_content_encoding",
    "wrong_content_type",
    "wrong_producer",
    "wrong_type",
)
#: Upper bounds of the buckets. Seconds.
CALL_BOUNDS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
SENT_BOUNDS = (0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0)
DELIVERED_BOUNDS = (1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 900.0, 3_600.0, 14_400.0, 86_400.0, 259_200.0)
#: The outcome of a callback that its endpoint accepted.
TAKEN = "delivered"


class IntakeSource(StrEnum):
    """How a message came in."""

    QUEUE = "queue"  #: through the broker
    HTTP = "http"  #: through the API


# Would double the number of series, with times that nobody looks at.
disable_created_metrics()  # type: ignore[no-untyped-call]

#: Our own registry, so that libraries add nothing to it.
REGISTRY = CollectorRegistry(auto_describe=True)
ProcessCollector(registry=REGISTRY)
PlatformCollector(registry=REGISTRY)
GCCollector(registry=REGISTRY)

BUILD = Info("notifier_build", "The version that runs.", registry=REGISTRY)
ACCEPTED = Counter(
    "notifier_accepted_total",
    "Messages accepted, without duplicates.",
    ("channel", "lane", "source"),
    registry=REGISTRY,
)
REJECTED = Counter(
    "notifier_rejected_total",
    "Messages rejected, or refused over HTTP, by the first fault of each.",
    ("fault",),
    registry=REGISTRY,
)
ACCEPTED_TO_SENT = BatchHistogram(
    "notifier_accepted_to_sent_seconds",
    "From acceptance, the time it was scheduled for, or an operator's retry, to the provider's receipt; without "
    "those of test keys.",
    ("channel", "lane"),
    SENT_BOUNDS,
    REGISTRY,
)
ATTEMPTS = Counter(
    "notifier_attempts_total", "Calls to providers that ended.", ("provider", "outcome"), registry=REGISTRY
)
ATTEMPT_SECONDS = BatchHistogram(
    "notifier_attempt_seconds", "How long calls to providers took.", ("provider",), CALL_BOUNDS, REGISTRY
)
FAILED = Counter(
    "notifier_failed_total",
    "Sends that ended as failed or expired, without those of test keys.",
    ("channel", "reason"),
    registry=REGISTRY,
)
SENT_TO_DELIVERED = BatchHistogram(
    "notifier_sent_to_delivered_seconds",
    "From the provider's receipt to its report that the message arrived.",
    ("channel",),
    DELIVERED_BOUNDS,
    REGISTRY,
)
LEASES_EXPIRED = Counter(
    "notifier_leases_expired_total", "Claims whose worker went away before it wrote a result.", registry=REGISTRY
)
SWEPT = Gauge(
    "notifier_sweep_last_success_timestamp_seconds",
    "When this process last completed a sweep; 0: never.",
    registry=REGISTRY,
)
CALLBACK_CALLS = Counter(
    "notifier_callback_calls_total", "Calls of producers' endpoints that ended.", ("outcome",), registry=REGISTRY
)
RELAYED = Counter("notifier_relayed_total", "Messages that the relay published from an outbox.", registry=REGISTRY)


def count(counter: Counter, labels: Iterable[tuple[str, ...]]) -> None:
    """Add one for each member of `labels`, which are label values in the order of their names."""
    for values, number in Tally(labels).items():
        counter.labels(*values).inc(number)


def prepare_providers(names: Iterable[str]) -> None:
    """Start the series of these providers at 0."""
    for name in names:
        ATTEMPT_SECONDS.prepare(name)
        for outcome in Outcome:
            ATTEMPTS.labels(name, outcome)


def _prepare() -> None:
    BUILD.info({"version": installed_version() or "unknown"})
    for channel, lane in product(Channel, Lane):
        ACCEPTED_TO_SENT.prepare(channel, lane)
        for source in IntakeSource:
            ACCEPTED.labels(channel, lane, source)
    for channel in Channel:
        SENT_TO_DELIVERED.prepare(channel)
        for reason in Reason:
            FAILED.labels(channel, reason)
    for fault in FAULTS:
        REJECTED.labels(fault)
    for outcome in (TAKEN, *CallbackFailure):
        CALLBACK_CALLS.labels(outcome)


_prepare()
