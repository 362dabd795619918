"""Small calculations: percentiles, and whether a series of measurements rises."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import linear_regression


def percentiles(values: Sequence[float]) -> dict[str, float]:
    """p50, p95 and p99 (nearest rank), the maximum, and the count."""
    ordered = sorted(values)
    if not ordered:
        return {"count": 0}
    found = {f"p{rank}": round(ordered[max(0, -(-len(ordered) * rank // 100) - 1)], 2) for rank in (50, 95, 99)}
    return found | {"max": round(ordered[-1], 2), "count": len(ordered)}


def slope(points: Sequence[tuple[float, float]]) -> float:
    """How much the second value grows for each unit of the first; 0 with fewer than two points."""
    if len({x for x, _ in points}) < 2:
        return 0.0
    return float(linear_regression([x for x, _ in points], [y for _, y in points]).slope)
