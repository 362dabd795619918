"""How many messages came and went in each minute, and how long they took: for charts.

Every program that accepts or sends adds what its own metrics counted, every ten seconds, to the minute in which it
writes. So a chart costs a few rows, however many notifications there are. A program that dies takes its last
seconds with it, and one whose answer to a commit is lost counts it twice: the record has the truth, and
`daily_statistics` counts that.
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

#: A program adds what it counted this often. Seconds.
EVERY_SECONDS = 10.0
#: At the end of a program the last counts have so long: charts are no reason to end late. Seconds.
CLOSE_SECONDS = 1.0
#: An addition to a minute is committed this long after it at the latest: a statement has 30 s. Seconds.
SETTLE_SECONDS = 120.0
#: One for each bound, and one for what took longer.
_BUCKETS = len(metrics.SENT_BOUNDS) + 1

Pair = tuple[str, str]


@dataclass(frozen=True, slots=True)
class RatePoint:
    """One span of time in a chart."""

    begins_at: datetime
    #: A minute.
    accepted: float
    sent: float
    #: From acceptance to the provider's receipt, interpolated within a bucket; None: nothing was sent. Seconds.
    p50: float | None
    p95: float | None
    waiting: int | None


class RateHistory:
    def __init__(self, repository: MinuteCountRepository, gauges: GaugeRepository) -> None:
        self._repository = repository
        self._gauges = gauges
        #: By their length in seconds, those of the last chart that have settled.
        self._settled: dict[int, dict[datetime, SpanCounts]] = {}

    def note_waiting(self) -> None:
        """Once a minute, by one worker. Charts are no reason to fail: what cannot be written is logged."""
        try:
            found = self._gauges.read()
            counts: Counter[Pair] = Counter(dict.fromkeys(product(Channel, Lane), 0))
            for backlog in found.waiting:
                counts[backlog.channel, backlog.lane] += backlog.count
            self._repository.note_waiting([WaitingNow(*pair, count) for pair, count in counts.items()])
        except ServiceUnavailable as error:
            log.warning("rates.not_recorded", reason=str(error))

    def points(self, length: timedelta, *, step: timedelta) -> list[RatePoint]:
        """Of the last `length`, oldest first, one for each `step`; spans in which nothing was have zeros.

        The span of now is left out: it is not over.
        """
        seconds = int(step.total_seconds())
        now = self._repository.now()
        last = int(now.timestamp() // seconds) * seconds
        times = range(last - int(length.total_seconds()), last, seconds)
        found = self._spans([datetime.fromtimestamp(each, UTC) for each in times], seconds, now)
        return [_point(span, seconds) for span in found.values()]

    def _spans(self, begins: Sequence[datetime], seconds: int, now: datetime) -> dict[datetime, SpanCounts]:
        """Programs add to the minute of now alone, so what is over is read once: a week is 60 000 rows."""
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
    """Below which this share of the values lies, as Prometheus's `histogram_quantile` has it; None without values.

    `counts`: of each bucket, and of what lies above the last bound, for which the last bound is returned.
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
    """Adds what this process counted to the minutes, by a thread of its own, from `start` to `close`."""

    def __init__(self, repository: MinuteCountRepository) -> None:
        self._repository = repository
        self._stop = Event()
        self._written, self._failed = _counted(), _failed()
        self._thread = Thread(target=self._run, name="rate-recorder", daemon=True)

    def start(self) -> RateRecorder:
        self._thread.start()
        return self

    def close(self) -> None:
        """Write what is left, unless the database takes long to answer."""
        self._stop.set()
        self._thread.join(CLOSE_SECONDS)

    def write(self) -> None:
        """Add what was counted since the last time. What cannot be written is added the next time."""
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


#: Accepted, and sent by bucket.
_Counts = tuple[int, tuple[int, ...]]


def _counted() -> dict[Pair, _Counts]:
    """By channel and lane, since this process began."""
    accepted: Counter[Pair] = Counter()
    for family in metrics.ACCEPTED.collect():
        for sample in family.samples:
            accepted[sample.labels["channel"], sample.labels["lane"]] += int(sample.value)
    sent = metrics.ACCEPTED_TO_SENT.counts()
    return {(str(a), str(b)): (accepted[str(a), str(b)], tuple(counts)) for (a, b), counts in sent.items()}


def _failed() -> Counter[Pair]:
    """By channel and reason, since this process began."""
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
