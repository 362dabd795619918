"""Whether sends fail: how much of what ended in the last hour failed, and mostly why.

It is told from what the programs counted, see `rate_history`: it is some seconds late, and reads no notification.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from notifier.domain.labels import REASONS
from notifier.operations.results import Stuck
from notifier.store.minute_counts import EndedCount, MinuteCountRepository

#: A channel fails if so many sends of an hour failed at least …
MANY = 10
#: … and so large a share of what ended in that hour, or in ten minutes of it: an outage is seen for an hour, with
#: however many good sends after it.
SHARE = 0.25


@dataclass(frozen=True, slots=True)
class FailingChannel:
    """One whose sends failed within the last hour more than they should."""

    #: "many_failed".
    cause: str
    channel: str
    #: Of an hour.
    failed: int
    ended: int
    #: The same of its worst ten minutes.
    worst_failed: int
    worst_ended: int
    #: The commonest.
    reason: str


@dataclass(frozen=True, slots=True)
class FailedLately:
    """Within the last hour."""

    #: Sends of all channels.
    failed: int
    #: The worst first.
    failing: tuple[Stuck[FailingChannel], ...]


def failed_lately(counts: MinuteCountRepository) -> FailedLately:
    """Raises `ServiceUnavailable`."""
    counted = counts.ended()
    channels = {one.channel for one in counted}
    judged = [_judged(channel, [one for one in counted if one.channel == channel]) for channel in channels]
    failing = sorted(filter(None, judged), key=lambda one: (-one.failed, one.channel))
    failed = sum(one.count for one in counted if one.reason is not None)
    return FailedLately(failed, tuple(Stuck(one, *_in_words(one)) for one in failing))


def _judged(channel: str, counted: Sequence[EndedCount]) -> FailingChannel | None:
    """None: it does not fail."""
    spans = [[one for one in counted if one.begins_at == begin] for begin in {one.begins_at for one in counted}]
    worst = max((_shares(span) for span in spans), key=lambda share: (_is_high(*share), share[0]))
    failed, ended = _shares(counted)
    if not _is_high(failed, ended) and not _is_high(*worst):
        return None
    reasons: Counter[str] = Counter()
    for one in counted:
        if one.reason is not None:
            reasons[one.reason] += one.count
    [(reason, _)] = reasons.most_common(1)
    return FailingChannel("many_failed", channel, failed, ended, *worst, reason)


def _shares(counted: Sequence[EndedCount]) -> tuple[int, int]:
    """How many failed, and how many ended."""
    return sum(one.count for one in counted if one.reason is not None), sum(one.count for one in counted)


def _is_high(failed: int, ended: int) -> bool:
    return failed >= MANY and failed >= SHARE * ended


def _in_words(one: FailingChannel) -> tuple[str, str]:
    at_worst = ""
    if not _is_high(one.failed, one.ended):
        at_worst = f", {one.worst_failed} of {one.worst_ended} in the worst ten minutes"
    return (
        f"{one.failed} of {one.ended} {one.channel} sends failed in the last hour{at_worst}; most often: "
        f"{REASONS.get(one.reason, one.reason)}",
        f"fix the cause, then retry them; this counts them by provider and template: notifier retry --reason "
        f"{one.reason} --since 24h --dry-run",
    )
