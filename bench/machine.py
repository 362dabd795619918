"""Describes the machine of a measurement. Nothing here says whose machine it is."""

from __future__ import annotations

import importlib.metadata
import platform
from pathlib import Path

import psutil

from bench.servers import rabbitmq_version
from bench.subjects import Ground

#: Packages on which the figures depend.
PACKAGES = (
    "celery",
    "kombu",
    "sqlalchemy",
    "psycopg",
    "aiosmtplib",
    "uvloop",
    "django",
    "django-post-office",
    "jinja2",
)


def machine(ground: Ground) -> dict[str, str | int]:
    """Cores, memory, processor, programs."""
    return {
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _processor(),
        "cores": psutil.cpu_count() or 0,
        "memory_gib": round(psutil.virtual_memory().total / 2**30),
        "python": platform.python_version(),
        "postgresql": ground.postgres.version(),
        "rabbitmq": rabbitmq_version(ground.rabbitmq.url),
    }


def versions() -> dict[str, str]:
    """Versions of the packages that take part; packages that are not installed are left out."""
    found = {}
    for name in PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor() or "unknown"
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
