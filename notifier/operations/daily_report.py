"""The daily report: a mail about yesterday to the people who run the service, sent like any other mail.

Crash points: a report is accepted once, however often its step runs, in parallel or after a crash, because its
idempotency key is the day and the recipient. If statuses have changed between two runs, the second message differs
and is refused for its key, which shows that the first was accepted. What a crash leaves out is done by the next
run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import date, timedelta
from typing import Any

from notifier.domain.errors import Fault, InvalidMessage, NotFound
from notifier.domain.message import Message
from notifier.domain.statuses import FINAL_STATUSES, Channel, Lane, Status
from notifier.operations.statistics import Statistics
from notifier.security.recipient_hash import HashKey
from notifier.store.daily_statistics import StatisticsKey

#: The report's producer and template.
PRODUCER, TEMPLATE = "notifier", "daily_report"
#: Days in the chart, and maximum number of producers that are named.
CHART_DAYS, NAMED_PRODUCERS = 7, 10

_SENT = (Status.SENT, Status.DELIVERED)
_DAY = timedelta(days=1)
_BEFORE = "idempotency_conflict"

#: Accepts messages as the intake does. Returns the faults of each message; none: it is in the record, from now or
#: before.
Accept = Callable[[Sequence[Message]], Sequence[tuple[Fault, ...]]]


class DailyReport:
    def __init__(
        self, statistics: Statistics, accept: Accept, hash_key: HashKey, recipients: Sequence[str]
    ) -> None:
        self._statistics = statistics
        self._accept = accept
        self._hash_key = hash_key
        self._recipients = recipients

    def send(self) -> dict[str, Any]:
        """Send yesterday's report to everybody who has not received it. Returns its day.

        Raises:
            NotFound: the day has not been counted.
            InvalidMessage: the intake refuses the report, for example because its template is missing.
        """
        day = self._statistics.today() - _DAY
        context = self._context(day)
        found = self._accept([self._message(day, recipient, context) for recipient in self._recipients])
        faults = dict.fromkeys(fault for one in found for fault in one if fault.code != _BEFORE)
        if faults:
            raise InvalidMessage(list(faults))
        return {"day": str(day)}

    def _message(self, day: date, recipient: str, context: dict[str, Any]) -> Message:
        whose = self._hash_key.recipient(Channel.EMAIL, recipient).hex()[:16]
        return Message(
            producer=PRODUCER,
            idempotency_key=f"daily report {day} {whose}",
            channel=Channel.EMAIL,
            lane=Lane.NORMAL,
            to=recipient,
            template=TEMPLATE,
            context=context,
        )

    def _context(self, day: date) -> dict[str, Any]:
        first = day - (CHART_DAYS - 1) * _DAY
        week = self._statistics.report(first, day + _DAY, [StatisticsKey.DAY, StatisticsKey.STATUS])
        if day in week.missing:
            raise NotFound(f"{day} has not been counted: notifier schedule run statistics")
        producers = sorted(self._counts(day, StatisticsKey.PRODUCER), key=lambda row: -row.count)
        by_channel = self._counts(day, StatisticsKey.CHANNEL)
        return {
            "day": str(day),
            "zone": self._statistics.zone.key,
            "total": sum(row.count for row in by_channel),
            "days": _chart([(row.values[0], row.values[1], row.count) for row in week.rows]),
            "channels": [
                {"channel": row.values[0], "count": row.count}
                | ({} if row.sent_seconds_p95 is None else {"seconds": round(row.sent_seconds_p95, 1)})
                for row in by_channel
            ],
            "lanes": [
                {"channel": row.values[0], "lane": row.values[1], "count": row.count}
                | ({} if row.share_within_10s is None else {"percent": round(row.share_within_10s * 100, 1)})
                for row in self._counts(day, StatisticsKey.CHANNEL, StatisticsKey.LANE)
            ],
            "statuses": [
                {"channel": row.values[0], "status": row.values[1], "count": row.count}
                for row in self._counts(day, StatisticsKey.CHANNEL, StatisticsKey.STATUS)
            ],
            "producers": [{"name": row.values[0], "count": row.count} for row in producers[:NAMED_PRODUCERS]],
        }

    def _counts(self, day: date, *by: StatisticsKey) -> Any:
        return self._statistics.report(day, day + _DAY, by).rows


def _chart(counts: Sequence[tuple[Any, Any, int]]) -> list[dict[str, Any]]:
    """A bar for each day: the widths of its parts, in percent of the day with most."""
    days = sorted({day for day, _, _ in counts})
    totals = {day: sum(count for one, _, count in counts if one == day) for day in days}
    most = max(totals.values(), default=0)
    bars = []
    for day in days:
        parts = {"sent_width": 0, "open_width": 0, "ended_width": 0}
        for one, status, count in counts:
            if one == day and count:
                parts[_part(status)] += count
        # A part that is not zero is visible, and the parts never add up to too much.
        widths = {name: max(1, count * 97 // most) if count else 0 for name, count in parts.items()}
        bars.append({"day": str(day), "count": totals[day], **widths, "rest_width": 100 - sum(widths.values())})
    return bars


def _part(status: str) -> str:
    if status in _SENT:
        return "sent_width"
    return "ended_width" if status in FINAL_STATUSES else "open_width"
