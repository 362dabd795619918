"""A Prometheus histogram that takes many values at once.

prometheus-client's own histogram takes one value at a time, with three locks each: a microsecond or more for every
mail. Here a batch costs one lock, and a value costs a search among a dozen bounds.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Sequence
from itertools import accumulate
from threading import Lock

from prometheus_client.metrics_core import HistogramMetricFamily
from prometheus_client.registry import Collector, CollectorRegistry
from prometheus_client.utils import floatToGoString


class BatchHistogram(Collector):
    """The histogram. Thread-safe."""

    def __init__(
        self,
        name: str,
        text: str,
        labels: Sequence[str],
        bounds: Sequence[float],
        registry: CollectorRegistry,
    ) -> None:
        """`bounds`: upper bounds of the buckets in ascending order; a bound belongs to its bucket. A last bucket
        has no bound."""
        self._name, self._text, self._labels, self._bounds = name, text, tuple(labels), tuple(bounds)
        self._lock = Lock()
        #: Label values → number of values in each bucket, and their sum.
        self._series: dict[tuple[str, ...], tuple[list[int], list[float]]] = {}
        registry.register(self)

    def prepare(self, *labels: str) -> None:
        """Start this series at 0."""
        self.observe(labels, ())

    def observe(self, labels: tuple[str, ...], values: Sequence[float]) -> None:
        """Count these values for one set of labels, given in the order of the label names."""
        bounds = self._bounds
        places = [bisect_left(bounds, value) for value in values]
        total = sum(values)
        with self._lock:
            counts, sums = self._series.setdefault(labels, ([0] * (len(bounds) + 1), [0.0]))
            for place in places:
                counts[place] += 1
            sums[0] += total

    def counts(self) -> dict[tuple[str, ...], list[int]]:
        """Label values → number of values in each bucket; the last one is for values above all bounds."""
        with self._lock:
            return {labels: list(counts) for labels, (counts, _) in self._series.items()}

    def describe(self) -> Iterator[HistogramMetricFamily]:
        yield HistogramMetricFamily(self._name, self._text, labels=self._labels)

    def collect(self) -> Iterator[HistogramMetricFamily]:
        with self._lock:
            series = {labels: (list(counts), sums[0]) for labels, (counts, sums) in self._series.items()}
        ends = [*map(floatToGoString, self._bounds), "+Inf"]
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        for labels, (counts, total) in series.items():
            family.add_metric([*map(str, labels)], list(zip(ends, accumulate(counts), strict=True)), total)
        yield family
