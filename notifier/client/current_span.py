"""The producer's own span, by which its messages belong to its trace."""

from __future__ import annotations

import sys


def current_traceparent() -> str | None:
    """W3C Trace Context of the caller's span; None: it has none. Never raises: no tracer keeps a message back.

    Who has a span has imported OpenTelemetry, so nothing is imported here.
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
