"""The sweep: publishes tasks for everything that is due.

It covers scheduled messages, retries, lost tasks and dead workers. Unknown outcomes and missing receipts go to the
look-up in the same way.

Crash point: rows are moved and committed before their tasks are published. If the sweep dies in between, they are
due again after `acceptance.REDISPATCH_SECONDS`; if publishing fails, after a moment.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from uuid import UUID

from notifier.config.logs import log
from notifier.domain.errors import StatementCancelled
from notifier.domain.retry_policy import UNKNOWN_AFTER_SECONDS
from notifier.domain.statuses import Channel, Lane
from notifier.store.callbacks import CallbackRepository
from notifier.store.ledger import Ledger
from notifier.store.records import Due
from notifier.telemetry import metrics

#: Maximum number of rows in a round, and of rounds in a tick. A tick ends early when a round is not full.
LIMIT, ROUNDS = 1000, 20
#: If a look-up settles nothing, it is dispatched again after this. Seconds.
LOOK_UP_AGAIN_SECONDS, RECEIPT_AGAIN_SECONDS = 45.0, 900.0

Publish = Callable[[Channel, Lane, Sequence[UUID]], None]


class Dispatcher:
    """Dispatches what is due. Several may run at once: rows are taken with SKIP LOCKED."""

    def __init__(self, ledger: Ledger, publish_deliver: Publish, publish_reconcile: Publish) -> None:
        self._ledger = ledger
        self._publish_deliver = publish_deliver
        self._publish_reconcile = publish_reconcile

    def dispatch_due(self) -> int:
        """Dispatch everything that is due. Returns the number of notifications."""
        total = 0
        for _ in range(ROUNDS):
            due = self._take_due()
            self._publish([row for row in due if not row.alone])
            for row in due:
                if row.alone:
                    # In a task of its own, so that it hits no other notification if it crashes workers.
                    self._publish([row])
            total += len(due)
            if len(due) < LIMIT:
                break
        unanswered = self._ledger.take_unanswered(
            limit=LIMIT,
            unknown_again_after_seconds=LOOK_UP_AGAIN_SECONDS,
            receipt_again_after_seconds=RECEIPT_AGAIN_SECONDS,
        )
        for (channel, lane), ids in _groups(unanswered):
            self._publish_reconcile(channel, lane, ids)
        metrics.SWEPT.set_to_current_time()
        if total or unanswered:
            log.info("dispatch.due", count=total + len(unanswered))
        return total + len(unanswered)

    def _take_due(self) -> list[Due]:
        """Up to `LIMIT` rows; fewer if the database is so slow that it cancels the statement."""
        for limit in (LIMIT, LIMIT // 10):
            try:
                return self._ledger.take_due(limit=limit, unknown_after_seconds=UNKNOWN_AFTER_SECONDS)
            except StatementCancelled:
                log.warning("dispatch.too_slow", count=limit)
        return self._ledger.take_due(limit=LIMIT // 100, unknown_after_seconds=UNKNOWN_AFTER_SECONDS)

    def _publish(self, due: Iterable[Due]) -> None:
        for (channel, lane), ids in _groups(due):
            try:
                self._publish_deliver(channel, lane, ids)
            except Exception as error:
                # The other groups have their own queues; this group is tried again in a moment.
                log.warning("dispatch.tasks_not_published", count=len(ids), error=type(error).__name__)
                self._ledger.requeue_soon(ids)


def _groups(due: Iterable[Due]) -> Iterable[tuple[tuple[Channel, Lane], list[UUID]]]:
    groups: dict[tuple[Channel, Lane], list[UUID]] = defaultdict(list)
    for row in due:
        groups[row.channel, row.lane].append(row.id)
    return groups.items()


def dispatch_callbacks(repository: CallbackRepository, publish: Callable[[Sequence[UUID]], None]) -> int:
    """Dispatch the callbacks that are due, one task for each endpoint. Returns the number of callbacks.

    Crash point: as above. A callback whose task is lost or could not be published is due again after a while.
    """
    due = repository.give_out()
    for ids in due.values():
        try:
            publish(ids)
        except Exception as error:
            log.warning("dispatch.callbacks_not_published", count=len(ids), error=type(error).__name__)
    return sum(map(len, due.values()))
