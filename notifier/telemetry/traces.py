"""The trace of a notification, in spans of OpenTelemetry: every name is here, and nowhere else.

Off until `use` is called; until then they cost a mail no more than an `if`. A span is of one notification. It is
made from recorded times, because tasks and statements are of many, and it is never the current one of a thread.
All spans after `accept` are children of what was stored with the notification, whichever process makes them.

Attributes are ids, numbers, and words of closed lists or of the configuration: nothing about a person, and no
provider's words.

Crash points. A span is exported after what it tells of was committed: a process that dies between the two loses
the span, and never a message. Spans of what is tried again after a lost answer may be missing too; the trace id
stays the same.
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
#: What an accept, an attempt or a report came to.
OUTCOME = "notifier.outcome"
#: The status that it got, was reported or is told of.
STATUS = "notifier.status"
PROVIDER = "notifier.provider"
#: Number of the attempt at a provider, from 1.
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
    """A step of a notification's way: the first word of its span's name."""

    ACCEPT = "accept"  #: it gets into the record
    ATTEMPT = "attempt"  #: one call of one provider
    REPORT = "report"  #: its provider reports on it
    CALLBACK = "callback"  #: its producer's endpoint is called


class OpenSpan(Protocol):
    """A span under way. Neither raises."""

    @property
    def traceparent(self) -> str:
        """For what follows from it."""
        ...

    @property
    def is_recorded(self) -> bool:
        """False: whoever decides about samples has decided against it."""
        ...

    def end(self, attributes: Attributes, *, error: str | None = None, at: int | None = None) -> None:
        """`error`: a word for why it failed. `at`: Unix time in nanoseconds; None: now."""
        ...


class SpanRecorder(Protocol):
    """What makes spans and sends them somewhere."""

    def begin(
        self, name: SpanName, target: str, attributes: Attributes, *, parent: str | None, at: int
    ) -> OpenSpan | None:
        """None: it failed. Never raises."""
        ...


_recorder: SpanRecorder | None = None


def use(recorder: SpanRecorder | None) -> None:
    """Make spans by it from now on, in the whole process; None: make none."""
    global _recorder
    _recorder = recorder


def are_on() -> bool:
    return _recorder is not None


def begin_trace(
    name: SpanName, target: str, attributes: Attributes, *, parent: str | None, at: int
) -> OpenSpan | None:
    """A span of a trace that goes on from `parent`, or begins. `at`: Unix time in nanoseconds.

    None: there are no spans, or who began the trace does not record it.
    """
    if _recorder is None or (parent is not None and not is_sampled(parent)):
        return None
    return _recorder.begin(name, target, attributes, parent=parent, at=at)


def go_on(name: SpanName, target: str, attributes: Attributes, *, parent: str | None, at: int) -> OpenSpan | None:
    """As `begin_trace`, but without a `parent` there is no span: half a trace tells nothing."""
    return None if parent is None else begin_trace(name, target, attributes, parent=parent, at=at)


def about(notification_id: UUID, channel: str, lane: str, template: str, producer: str) -> dict[str, str]:
    """The attributes that say which notification it is."""
    return {
        NOTIFICATION: str(notification_id),
        CHANNEL: channel,
        LANE: lane,
        TEMPLATE: template,
        PRODUCER: producer,
    }
