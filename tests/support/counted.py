"""Checks by how much a metric of this process rises."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from notifier.telemetry.metrics import REGISTRY


@contextmanager
def counted(name: str, number: float, **labels: str) -> Iterator[None]:
    """The metric must rise by this number during the block."""
    before = REGISTRY.get_sample_value(name, labels)
    assert before is not None, f"{name} with {labels} has no series yet"
    yield
    assert REGISTRY.get_sample_value(name, labels) == before + number
