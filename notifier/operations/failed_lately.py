"""Tells whether sends fail: how much of what ended in the last hour failed, and the main reason.

It uses what the programs counted (see `rate_history`), so it is some seconds behind and reads no notifications.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from notifier.domain.labels import REASONS
from notifier.operations.results import Stuck
from notifier.store.minute_counts import EndedCount, MinuteCountRepository

#: A channel is failing if at least this many sends failed in an hour …
MANY = 10
#: … and they are at least this share of what ended in that hour, or in any ten minutes of it. So an outage shows
#: for an hour, however many sends succeed after it.
SHARE = 0.25


@dataclass(frozen=True, slots=True)
class FailingChannel:
    """A channel in which more sends failed within the last hour than should."""

    #: "many_failed".
    cause: str
    channel: str
    #: Failed sends in the hour.
    failed: int
    ended: int
    #: Failed sends in its worst ten minutes.
    worst_failed: int
    worst_ended: int
    #: The most common reason.
    reason: str


@dataclass(frozen=True, slots=True)
class FailedLately:
    """Failures within the last hour."""

    #: Failed sends on all channels.
    failed: int
    #: Failing channels, the worst first.
    failing: tuple[Stuck[FailingChannel], ...]


def failed_lately(counts: MinuteCountRepository) -> FailedLately:
    """Read the counts. Raises `ServiceUnavailable`."""
    counted = counts.ended()
    channels = {one.channel for one in counted}
    judged = [_judged(channel, [one for one in counted if one.channel == channel]) for channel in channels]
    failing = sorted(filter(None, judged), key=lambda one: (-one.failed, one.channel))
    failed = sum(one.count for one in counted if one.reason is not None)
    return FailedLately(failed, tuple(Stuck(one, *_in_words(one)) for one in failing))


def _judged(channel: str, counted: Sequence[EndedCount]) -> FailingChannel | None:
    """The channel, if it is failing; otherwise None."""
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
    """How many sends failed, and how many ended."""
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
