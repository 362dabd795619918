"""The sweep: what is due → deliver tasks. Scheduled messages, retries, lost tasks and dead workers are all this.

Crash point: rows are moved and committed before their tasks are published. If that fails, or we die in between,
they are due again after `ledger.REDISPATCH_SECONDS`.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from uuid import UUID

from notifier.retrying import RESEND_AFTER_SECONDS
from notifier.status import Channel, Lane
from notifier.store.ledger import Ledger
from notifier.telemetry import log

#: Rows of one round; a tick makes rounds until one is not full, at most so many.
LIMIT, ROUNDS = 1000, 20


class Dispatcher:
    """Harmless when several run at once: rows are taken with SKIP LOCKED."""

    def __init__(self, ledger: Ledger, publish_tasks: Callable[[Channel, Lane, Sequence[UUID]], None]) -> None:
        self._ledger = ledger
        self._publish_tasks = publish_tasks

    def dispatch_due(self) -> int:
        """Give out everything that is due. Returns how many notifications were."""
        total = 0
        for _ in range(ROUNDS):
            due = self._ledger.take_due(limit=LIMIT, resend_after_seconds=RESEND_AFTER_SECONDS)
            groups: dict[tuple[Channel, Lane], list[UUID]] = defaultdict(list)
            for row in due:
                groups[row.channel, row.lane].append(row.id)
            for (channel, lane), ids in groups.items():
                self._publish_tasks(channel, lane, ids)
            total += len(due)
            if len(due) < LIMIT:
                break
        if total:
            log.info("dispatch.due", count=total)
        return total
