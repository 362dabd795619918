"""Routes of one batch. What opens and closes circuits is in tests/integration, with the database."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from uuid import uuid4

import pytest

from notifier.delivery.circuit_breaker import CircuitBreaker
from notifier.domain.routing import Candidate
from notifier.domain.statuses import Channel


class Healthy:
    """Nothing is known against anybody."""

    def states(self) -> Mapping[str, object]:
        return {}

    def windows(self, *, window_seconds: float) -> list[object]:
        return []


def routes(weights: Mapping[str, int], count: int) -> list[tuple[str, ...]]:
    known = Healthy()
    breaker = CircuitBreaker(known, known, {Channel.SMS: ("a", "b")}, weights, deadline_seconds=30.0)  # type: ignore[arg-type]
    candidates = [Candidate(uuid4(), f"sender {n % 3}", 600.0, True) for n in range(count)]
    return [found.providers for found in breaker.routes(Channel.SMS, candidates)]


def test_without_weights_all_of_a_batch_have_the_configured_order() -> None:
    assert routes({}, 4) == [("a", "b")] * 4


def test_weights_share_a_batch() -> None:
    first = Counter(found[0] for found in routes({"a": 80, "b": 20}, 4000))
    assert first["a"] / 4000 == pytest.approx(0.8, abs=0.05)
    assert first["a"] + first["b"] == 4000
