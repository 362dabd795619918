"""The trace of a notification, as spans of OpenTelemetry. Every name is here and nowhere else.

Tracing is off until `use` is called; until then it costs a mail no more than an `if`. A span belongs to one
notification. It is made from recorded times, because tasks and statements are for many notifications, and it is
never a thread's current span. All spans after `accept` are children of what is stored with the notification,
whichever process makes them.

Attributes are ids, numbers, and words from closed lists or the configuration: nothing about a person, and no
provider's words.

Crash points: a span is exported after what it reports was committed. If a process dies between the two, the span
is lost, but never a message. Spans of work that is repeated after a lost answer may be missing as well; the trace
id stays the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from notifier.domain.trace_context import is_sampled

Attributes = Mapping[str, str | int | bool]

NOTIFICATION = "notifier.notification.id"
PRODUCER = "notifier.producer"
CHANNEL = "notifier.channel"
LANE = "notifier.lane"
TEMPLATE = "notifier.template"
IS_TEST = "notifier.is_test"
#: The result of an accept, an attempt or a report.
OUTCOME = "notifier.outcome"
#: The status that the notification got, that was reported, or of which the producer is notified.
STATUS = "notifier.status"
PROVIDER = "notifier.provider"
#: Number of the provider call, from 1.
ATTEMPT = "notifier.attempt"
#: Number of the call of a producer's endpoint, from 1.
CALL = "notifier.callback.call"
# https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
SYSTEM = "messaging.system"
DESTINATION = "messaging.destination.name"
OPERATION = "messaging.operation.name"
OPERATION_TYPE = "messaging.operation.type"
HTTP_METHOD = "http.request.method"
HTTP_STATUS = "http.response.status_code"
#: Why it failed, in a word of ours.
ERROR_TYPE = "error.type"


class SpanName(StrEnum):
    """A step in a notification's life: the first word of its span's name."""

    ACCEPT = "accept"  #: it gets into the record
    ATTEMPT = "attempt"  #: one call of one provider
    REPORT = "report"  #: its provider reports on it
    CALLBACK = "callback"  #: its producer's endpoint is called


class OpenSpan(Protocol):
    """A span that has begun. Its methods never raise."""

    @property
    def traceparent(self) -> str:
        """The `traceparent` for what follows from it."""
        ...

    @property
    def is_recorded(self) -> bool:
        """False if the sampler decided against recording it."""
        ...

    def end(self, attributes: Attributes, *, error: str | None = None, at: int | None = None) -> None:
        """End it. `error`: a word for why it failed. `at`: Unix time in nanoseconds; None: now."""
        ...


class SpanRecorder(Protocol):
    """Makes spans and sends them somewhere."""

    def begin(
        self, name: SpanName, target: str, attributes: Attributes, *, parent: str | None, at: int
    ) -> OpenSpan | None:
        """Begin a span; None: that failed. Never raises."""
        ...


_recorder: SpanRecorder | None = None


def use(recorder: SpanRecorder | None) -> None:
    """Make spans with this recorder from now on, in the whole process; None: make none."""
    global _recorder
    _recorder = recorder


def are_on() -> bool:
    return _recorder is not None


def begin_trace(
    name: SpanName, target: str, attributes: Attributes, *, parent: str | None, at: int
) -> OpenSpan | None:
    """Begin a span in the trace of `parent`, or in a new trace. `at`: Unix time in nanoseconds.

    None: tracing is off, or whoever began the trace does not record it.
    """
    if _recorder is None or (parent is not None and not is_sampled(parent)):
        return None
    return _recorder.begin(name, target, attributes, parent=parent, at=at)


def go_on(name: SpanName, target: str, attributes: Attributes, *, parent: str | None, at: int) -> OpenSpan | None:
    """Like `begin_trace`, but without a `parent` there is no span, because half a trace is of no use."""
    return None if parent is None else begin_trace(name, target, attributes, parent=parent, at=at)


def about(notification_id: UUID, channel: str, lane: str, template: str, producer: str) -> dict[str, str]:
    """The attributes that identify a notification."""
    return {
        NOTIFICATION: str(notification_id),
        CHANNEL: channel,
        LANE: lane,
        TEMPLATE: template,
        PRODUCER: producer,
    }
