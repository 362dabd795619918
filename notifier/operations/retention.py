"""Retention: decides what is redacted, deleted and dropped, and when, by the tables `[retention.<channel>]`.

Redacting comes first, and dropping before deleting, because what goes with its month need not be deleted row by
row. A month holds both channels, so it is dropped after the longer of their times. The channel with the shorter
time is deleted in pages.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import partial
from uuid import UUID

from notifier.config.limits import Retention
from notifier.domain.statuses import Channel
from notifier.store.retention import RetentionRepository, Span, Walked
from notifier.store.schema.partitions import LAST_ID, Month, first_id

#: On this day of each month the walks start from the beginning, because a message's id may be older than the mark
#: when it arrives.
_WHOLE_WALK_DAY = 1
#: The mark of the walk over keys of tests: when the walk was last completed.
_TEST_KEYS = "test_keys"


@dataclass
class RetentionRun:
    """What a run did, or would do: counts of rows, and names of months."""

    redacted: dict[str, int] = field(default_factory=dict)
    deleted: dict[str, int] = field(default_factory=dict)
    rejected: dict[str, int] = field(default_factory=dict)
    #: Messages that ended without being sent and whose secrets were wiped.
    wiped: int = 0
    dropped: list[str] = field(default_factory=list)
    #: Months that stay because something in them has not ended.
    held: list[str] = field(default_factory=list)
    #: Months whose tables or rows were in use; the next run tries again.
    in_use: list[str] = field(default_factory=list)
    #: False: the next run continues.
    is_complete: bool = True

    @property
    def total(self) -> int:
        """Total rows, without those of dropped months."""
        return sum((*self.redacted.values(), *self.deleted.values(), *self.rejected.values(), self.wiped))

    @property
    def is_empty(self) -> bool:
        return not self.total and not self.dropped


class RetentionJob:
    """Applies the retention tables. Thread-safe; several runs at once do no harm."""

    def __init__(self, repository: RetentionRepository, tables: Mapping[Channel, Retention]) -> None:
        self._repository = repository
        self._tables = tables

    @property
    def tables(self) -> dict[str, dict[str, int | None]]:
        """The retention times it uses, as JSON."""
        return {str(channel): table.model_dump() for channel, table in self._tables.items()}

    def run(
        self, *, seconds: float | None = None, progress: Callable[[RetentionRun], None] | None = None
    ) -> RetentionRun:
        """Do everything, or as much as `seconds` allow. Raises `ServiceUnavailable`; pages completed before that
        stay done."""
        kept = RetentionRun()
        over = None if seconds is None else time.monotonic() + seconds
        for _ in self._steps(kept):
            if progress:
                progress(kept)
            if over is not None and time.monotonic() > over:
                kept.is_complete = False
                break
        return kept

    def kept_from(self) -> datetime | None:
        """Whatever has an id from after this time is not deleted yet, on any channel; None: nothing is ever
        deleted."""
        days = [table.drop_after_days for table in self._tables.values() if table.drop_after_days is not None]
        return self._end(min(days)) if days else None

    def preview(self) -> RetentionRun:
        """What a run would do now."""
        kept = RetentionRun()
        cutoffs = self._cutoffs()
        for channel, table in self._tables.items():
            if table.redact_after_days is not None:
                spans = self._spans(channel, table.redact_after_days)
                kept.redacted[channel] = sum(self._repository.count(span, is_redaction=True) for span in spans)
            days = _rejected_days(table)
            if days is not None:
                kept.rejected[channel] = self._repository.count_rejected(channel, days)
        for month in self._behind(cutoffs):
            (kept.held if self._repository.live_in(month) else kept.dropped).append(month.name)
        for channel, before in cutoffs.items():
            old, ahead = self._spans(channel, self._tables[channel].drop_after_days or 0)
            deleted = [ahead] if self._goes_with_months(before, cutoffs) else [old, ahead]
            count = sum(self._repository.count(span, is_redaction=False) for span in deleted)
            if count or old in deleted:
                kept.deleted[channel] = count
        return kept

    def _steps(self, kept: RetentionRun) -> Iterator[None]:
        while count := self._repository.wipe_secrets_page():
            kept.wiped += count
            yield
        for channel, table in self._tables.items():
            if table.redact_after_days is not None:
                old, ahead = self._spans(channel, table.redact_after_days)
                yield from self._walk(f"redact:{channel}", old, self._repository.redact_page, kept.redacted)
                yield from self._walk(None, ahead, self._repository.redact_page, kept.redacted)
            days = _rejected_days(table)
            while days is not None and (count := self._repository.delete_rejected_page(channel, days)):
                kept.rejected[channel] = kept.rejected.get(channel, 0) + count
                yield
        cutoffs = self._cutoffs()
        for month in self._behind(cutoffs):
            yield from self._drop(month, kept)
        for channel, before in cutoffs.items():
            only_default = self._goes_with_months(before, cutoffs)
            task = f"delete:{channel}{':default' if only_default else ''}"
            old, ahead = self._spans(channel, self._tables[channel].drop_after_days or 0)
            look = partial(self._repository.delete_page, only_default=only_default)
            yield from self._walk(task, old, look, kept.deleted)
            everywhere = partial(self._repository.delete_page, only_default=False)
            yield from self._walk(None, ahead, everywhere, kept.deleted)
        yield from self._forget_test_keys()

    def _forget_test_keys(self) -> Iterator[None]:
        """Delete keys of tests that outlived their notifications. Only a program of the previous version leaves
        any, so the walk is made once, and together with the whole walks."""
        now = self._repository.now()
        if now.day != _WHOLE_WALK_DAY and self._repository.mark(_TEST_KEYS).int:
            return
        for owner in self._repository.owners_of_test_keys():
            after: str | None = ""
            while after is not None:
                after = self._repository.forget_test_keys_page(owner, after)
                yield
        self._repository.set_mark(_TEST_KEYS, first_id(now))

    def _walk(
        self, task: str | None, span: Span, look: Callable[[Span], Walked], counts: dict[str, int]
    ) -> Iterator[None]:
        """Walk from the task's mark, if it has one, to the end. The mark moves on as long as nothing is left
        behind it."""
        if task is not None and self._repository.now().day != _WHOLE_WALK_DAY:
            span = replace(span, after=self._repository.mark(task))
        is_clean = True
        while (page := look(span)).last is not None:
            if page.changed or task is not None:
                counts[span.channel] = counts.get(span.channel, 0) + page.changed
            is_clean = is_clean and not page.is_left
            span = replace(span, after=page.last)
            if task is not None and is_clean:
                self._repository.set_mark(task, page.last)
            yield

    def _drop(self, month: Month, kept: RetentionRun) -> Iterator[None]:
        """Drop a month. First delete states, keys and callbacks of its notifications, because their tables have no
        months. A run that ends in between has deleted keys of notifications that still exist, but these are too
        old to be repeated. If something becomes active or is accepted in between, its rows stay, and so does the
        month."""
        if self._repository.live_in(month):
            kept.held.append(month.name)
            return
        after: UUID | None = UUID(int=0)
        while after is not None:
            after = self._repository.forget_page_of(month, after)
            yield
        if self._repository.drop(month):
            kept.dropped.append(month.name)
        else:
            (kept.held if self._repository.live_in(month) else kept.in_use).append(month.name)
        yield

    def _cutoffs(self) -> dict[Channel, UUID]:
        days = {channel: table.drop_after_days for channel, table in self._tables.items()}
        return {channel: first_id(self._end(count)) for channel, count in days.items() if count is not None}

    def _behind(self, cutoffs: Mapping[Channel, UUID]) -> list[Month]:
        """Months that are older than what any channel keeps."""
        if len(cutoffs) < len(Channel):
            return []
        return [month for month in self._repository.months() if month.high <= min(cutoffs.values())]

    @staticmethod
    def _goes_with_months(before: UUID, cutoffs: Mapping[Channel, UUID]) -> bool:
        """Whether this channel is kept longest: then only rows that are in no month have to be deleted."""
        return len(cutoffs) == len(Channel) and before == min(cutoffs.values())

    def _spans(self, channel: Channel, days: int) -> tuple[Span, Span]:
        """Two spans: notifications of that age by their ids, and those accepted that long ago under an id in the
        future. A wrong clock made such an id, and they would be kept too long."""
        end = self._end(days)
        old = Span(channel, UUID(int=0), first_id(end))
        return old, Span(channel, first_id(self._repository.now()), LAST_ID, accepted_before=end)

    def _end(self, days: int) -> datetime:
        # Rounded to the day, so that channels with the same number of days end at the same time.
        today = self._repository.now().replace(hour=0, minute=0, second=0, microsecond=0)
        return today - timedelta(days=days)


def _rejected_days(table: Retention) -> int | None:
    """A rejected message is deleted when the shorter of the two times is over."""
    days = [count for count in (table.redact_after_days, table.drop_after_days) if count is not None]
    return min(days, default=None)
