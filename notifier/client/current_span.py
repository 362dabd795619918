"""Reads the producer's current OpenTelemetry span, so that its messages belong to its trace."""

from __future__ import annotations

import sys


def current_traceparent() -> str | None:
    """Return the W3C `traceparent` of the caller's span; None: there is none. Never raises: a tracer must not stop
    a message.

    Imports nothing: a caller with a span has already imported OpenTelemetry.
    """
    api = sys.modules.get("opentelemetry.trace")
    if api is None:
        return None
    try:
        context = api.get_current_span().get_span_context()
        if not context.is_valid:
            return None
        return f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags & 0xFF:02x}"
    except Exception:
        return None
