"""Decides whether this process makes spans and where they go, by the usual variables OTEL_*.

OpenTelemetry is an extra. It is only looked for if the environment asks for traces.
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
    """The exporters that are asked for, by the names that OpenTelemetry's packages give them; empty: no traces."""
    if os.environ.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return []
    given = os.environ.get(_EXPORTER) or ("otlp" if any(map(os.environ.get, _ENDPOINTS)) else "")
    names = [name.strip() for name in given.split(",")]
    is_grpc = next(filter(None, map(os.environ.get, _PROTOCOLS)), "") == "grpc"
    otlp = "otlp_proto_grpc" if is_grpc else "otlp_proto_http"
    return [otlp if name == "otlp" else name for name in names if name and name != "none"]


def tracing_problem() -> str | None:
    """Why spans that are asked for cannot be made, and the fix; None: they can, or none are asked for."""
    names = wanted_exporters()
    # Finding a module imports its package, so the package must exist.
    if names and not all(map(find_spec, ("opentelemetry", "opentelemetry.sdk"))):
        return f"the environment asks for traces, and OpenTelemetry is not installed: {add_extra('otel')}"
    missing = [name for name in names if _entry_point(name) is None]
    return f"no installed package exports traces to {', '.join(missing)}: correct {_EXPORTER}" if missing else None


def start_tracing(program: str) -> str | None:
    """Make spans from now on, if they are asked for. Call it in the process that makes them, because the exporting
    thread does not survive a fork.

    Returns why spans are not made although they are asked for, with the fix; None: there is no problem.
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
        # For example because of a variable that the library does not understand. Its text may hold the endpoint's
        # password.
        return f"OpenTelemetry does not start ({type(error).__name__}): check the variables OTEL_*"
    return None


def _entry_point(name: str) -> EntryPoint | None:
    return next(iter(entry_points(group="opentelemetry_traces_exporter", name=name)), None)
