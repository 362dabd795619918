"""Counts for charts: how many messages came and went in each minute, and how long they took.

Every program that accepts or sends adds what its own metrics counted, every ten seconds, to the current minute. So
a chart costs a few rows, however many notifications there are. If a program dies, its last seconds are missing; if
the answer to its commit is lost, it counts them twice. The record has the exact numbers, and `daily_statistics`
counts those.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from threading import Event, Thread

from notifier.config.logs import log
from notifier.domain.errors import ServiceUnavailable
from notifier.domain.statuses import Channel, Lane
from notifier.store.metrics import GaugeRepository
from notifier.store.minute_counts import (
    FailedAddition,
    MinuteAddition,
    MinuteCountRepository,
    SpanCounts,
    WaitingNow,
)
from notifier.telemetry import metrics

#: How often a program adds what it counted. Seconds.
EVERY_SECONDS = 10.0
#: Time for the last counts when a program ends: charts are not worth a longer wait. Seconds.
CLOSE_SECONDS = 1.0
#: An addition to a minute is committed at most this long after the minute, because a statement has 30 s. Seconds.
SETTLE_SECONDS = 120.0
#: One bucket for each bound, and one for what took longer.
_BUCKETS = len(metrics.SENT_BOUNDS) + 1

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class RatePoint:
    """One time span in a chart."""

    begins_at: datetime
    #: Per minute.
    accepted: float
    sent: float
    #: Median time from acceptance to the provider's receipt, interpolated within a bucket; None: nothing was sent.
    #: Seconds.
    p50: float | None
    p95: float | None
    waiting: int | None


class RateHistory:
    def __init__(self, repository: MinuteCountRepository, gauges: GaugeRepository) -> None:
        self._repository = repository
        self._gauges = gauges
        #: By length in seconds: the spans of the last chart that can no longer change.
        self._settled: dict[int, dict[datetime, SpanCounts]] = {}

    def note_waiting(self) -> None:
        """Note how much waits. Called once a minute by one worker. Errors are only logged, because charts must not
        fail anything."""
        try:
            found = self._gauges.read()
            counts: Counter[Pair] = Counter(dict.fromkeys(product(Channel, Lane), 0))
            for backlog in found.waiting:
                counts[backlog.channel, backlog.lane] += backlog.count
            self._repository.note_waiting([WaitingNow(*pair, count) for pair, count in counts.items()])
        except ServiceUnavailable as error:
            log.warning("rates.not_recorded", reason=str(error))

    def points(self, length: timedelta, *, step: timedelta) -> list[RatePoint]:
        """The last `length`, oldest first, one point for each `step`. Spans without messages have zeros.

        The current span is left out, because it is not over.
        """
        seconds = int(step.total_seconds())
        now = self._repository.now()
        last = int(now.timestamp() // seconds) * seconds
        times = range(last - int(length.total_seconds()), last, seconds)
        found = self._spans([datetime.fromtimestamp(each, UTC) for each in times], seconds, now)
        return [_point(span, seconds) for span in found.values()]

    def _spans(self, begins: Sequence[datetime], seconds: int, now: datetime) -> dict[datetime, SpanCounts]:
        """The counts of these spans. Programs only add to the current minute, so finished spans are read once: a
        week is 60 000 rows."""
        settled = self._settled.get(seconds, {})
        missing = [begin for begin in begins if begin not in settled]
        read = self._repository.spans(missing[0], seconds, _BUCKETS) if missing else []
        known = {one.begins_at: one for one in read} | settled
        found = {begin: known.get(begin) or SpanCounts(begin, 0, [], None) for begin in begins}
        until = now - timedelta(seconds=seconds + SETTLE_SECONDS)
        self._settled[seconds] = {begin: span for begin, span in found.items() if begin <= until}
        return found


def _point(counted: SpanCounts, seconds: int) -> RatePoint:
    a_minute = 60 / seconds
    return RatePoint(
        begins_at=counted.begins_at,
        accepted=counted.accepted * a_minute,
        sent=sum(counted.sent) * a_minute,
        p50=quantile(counted.sent, 0.5),
        p95=quantile(counted.sent, 0.95),
        waiting=counted.waiting,
    )


def quantile(counts: Sequence[int], share: float, bounds: Sequence[float] = metrics.SENT_BOUNDS) -> float | None:
    """The value below which this share of the values lies, computed like Prometheus's `histogram_quantile`. None
    without values.

    `counts`: for each bucket, and for values above the last bound. For these the last bound is returned.
    """
    rank = share * sum(counts)
    if not rank:
        return None
    below, low = 0, 0.0
    for count, high in zip(counts, bounds, strict=False):
        if below + count >= rank:
            return low + (high - low) * (rank - below) / count
        below, low = below + count, high
    return bounds[-1]


class RateRecorder:
    """Adds what this process counted to the minutes, from its own thread, between `start` and `close`."""

    def __init__(self, repository: MinuteCountRepository) -> None:
        self._repository = repository
        self._stop = Event()
        self._written, self._failed = _counted(), _failed()
        self._thread = Thread(target=self._run, name="rate-recorder", daemon=True)

    def start(self) -> RateRecorder:
        self._thread.start()
        return self

    def close(self) -> None:
        """Write the rest, unless the database takes long to answer."""
        self._stop.set()
        self._thread.join(CLOSE_SECONDS)

    def write(self) -> None:
        """Add what was counted since the last call. Counts that cannot be written are added next time."""
        counted, failed = _counted(), _failed()
        added = [addition for pair, now in counted.items() if (addition := _added(pair, self._written[pair], now))]
        given_up = [FailedAddition(*kind, count) for kind, count in (failed - self._failed).items()]
        try:
            self._repository.add(added, given_up)
        except ServiceUnavailable as error:
            log.warning("rates.not_recorded", reason=str(error))
        else:
            self._written, self._failed = counted, failed

    def _run(self) -> None:
        while not self._stop.wait(EVERY_SECONDS):
            self.write()
        self.write()


#: Accepted messages, and sent messages by bucket.
_Counts = tuple[int, tuple[int, ...]]


def _counted() -> dict[Pair, _Counts]:
    """Counts by channel and lane, since this process began."""
    accepted: Counter[Pair] = Counter()
    for family in metrics.ACCEPTED.collect():
        for sample in family.samples:
            accepted[sample.labels["channel"], sample.labels["lane"]] += int(sample.value)
    sent = metrics.ACCEPTED_TO_SENT.counts()
    return {(str(a), str(b)): (accepted[str(a), str(b)], tuple(counts)) for (a, b), counts in sent.items()}


def _failed() -> Counter[Pair]:
    """Failures by channel and reason, since this process began."""
    [family] = metrics.FAILED.collect()
    return Counter(
        {
            (sample.labels["channel"], sample.labels["reason"]): int(sample.value)
            for sample in family.samples
            if sample.name.endswith("_total")
        }
    )


def _added(pair: Pair, before: _Counts, now: _Counts) -> MinuteAddition | None:
    accepted = now[0] - before[0]
    sent = tuple(b - a for a, b in zip(before[1], now[1], strict=True))
    return MinuteAddition(*pair, accepted, sent) if accepted or any(sent) else None
