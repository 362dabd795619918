"""W3C Trace Context: reads the `traceparent` that makes a message part of a trace.

https://www.w3.org/TR/trace-context/. Only the text is read here; `telemetry.traces` makes the spans.
"""

from __future__ import annotations

import re
from uuid import UUID

# Version, trace id, parent id, flags, and whatever a later version may add.
_TRACEPARENT = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.DOTALL)
_SAMPLED = 0x01


def read_traceparent(value: object) -> str | None:
    """A `traceparent` in the form of version 00. None: it is not valid and must be ignored. Never raises."""
    if isinstance(value, bytes):
        value = value.decode("ascii", "replace")
    found = _TRACEPARENT.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return None
    version, trace_id, parent_id, flags, more = found.groups()
    is_known = version != "ff" and not (version == "00" and more)
    if not is_known or trace_id == "0" * 32 or parent_id == "0" * 16:
        return None
    return f"00-{trace_id}-{parent_id}-{flags}"


def trace_id_of(traceparent: str) -> str:
    """The id of the trace, 32 hexadecimal digits, from a value that `read_traceparent` returned."""
    return traceparent[3:35]


def parent_id_of(traceparent: str) -> str:
    """The id of the parent span, 16 hexadecimal digits."""
    return traceparent[36:52]


def is_sampled(traceparent: str) -> bool:
    """Whether the service that began the trace records it."""
    return bool(int(traceparent[53:55], 16) & _SAMPLED)


def log_ids(notification_id: UUID, traceparent: str | None) -> dict[str, str]:
    """The fields of a log line about one notification. `trace_id` is there only if it has one."""
    ids = {"notification_id": str(notification_id)}
    return ids if traceparent is None else {**ids, "trace_id": trace_id_of(traceparent)}
