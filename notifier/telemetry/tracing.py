"""Whether this process makes spans, and where they go: the variables OTEL_* decide, as everywhere.

OpenTelemetry is an extra. It is looked for only where the environment asks for traces.
"""

from __future__ import annotations

import os
from importlib.metadata import EntryPoint, entry_points
from importlib.util import find_spec

from notifier.domain.errors import add_extra
from notifier.telemetry import traces

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_EXPORTER = "OTEL_TRACES_EXPORTER"
_PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")


def wanted_exporters() -> list[str]:
    """The names that OpenTelemetry's packages give to the exporters that are asked for; empty: no traces."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    given = os.environ.get(_EXPORTER) or ("otlp" if any(map(os.environ.get, _ENDPOINTS)) else "")
    names = [name.strip() for name in given.split(",")]
    is_grpc = next(filter(None, map(os.environ.get, _PROTOCOLS)), "") == "grpc"
    otlp = "otlp_proto_grpc" if is_grpc else "otlp_proto_http"
    return [otlp if name == "otlp" else name for name in names if name and name != "none"]


def tracing_problem() -> str | None:
    """Why the spans that are asked for cannot be made, and the fix; None: they can, or none are asked for."""
    names = wanted_exporters()
    # To look for a module, its package is imported, so that must be there.
    if names and not all(map(find_spec, ("opentelemetry", "opentelemetry.sdk"))):
        return f"the environment asks for traces, and OpenTelemetry is not installed: {add_extra('otel')}"
    missing = [name for name in names if _entry_point(name) is None]
    return f"no installed package exports traces to {', '.join(missing)}: correct {_EXPORTER}" if missing else None


def start_tracing(program: str) -> str | None:
    """Make spans from now on, if they are asked for. Call it in the process that makes them: its thread that
    exports does not survive a fork.

    Returns why they are not made although they are asked for, with the fix.
    """
    problem = tracing_problem()
    names = wanted_exporters()
    if problem is not None or not names:
        return problem
    from notifier.telemetry.span_recorder import make_recorder

    try:
        exporters = [point.load()() for name in names if (point := _entry_point(name))]
        traces.use(make_recorder(program, exporters))
    except Exception as error:
        # A variable that the library does not understand, for one. Its words may hold the endpoint's password.
        return f"OpenTelemetry does not start ({type(error).__name__}): check the variables OTEL_*"
    return None


def _entry_point(name: str) -> EntryPoint | None:
    return next(iter(entry_points(group="opentelemetry_traces_exporter", name=name)), None)
