"""From an accepted request to the workers: a thread of its own publishes deliver tasks after the answer.

The row is committed before, so a request waits for the database only, even while the broker hangs, and one task
carries what many requests brought: the first goes at once, those that follow closely gather. What cannot be
published is made due for the sweep soon; what is lost with the process the sweep finds by itself.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Sequence
from queue import SimpleQueue
from uuid import UUID

from notifier.config.logs import log
from notifier.domain.errors import ServiceUnavailable
from notifier.domain.statuses import Channel, Lane
from notifier.intake.batch import PublishTasks
from notifier.store.ledger import Ledger

_Item = tuple[Channel, Lane, Sequence[UUID]]

#: After a task, those that are not urgent gather this long for the next one: publishing takes as much time for one
#: notification as for a hundred. Seconds.
GATHER_SECONDS = 0.01
#: At the end of the process, time to publish what waits. Seconds.
CLOSE_SECONDS = 10.0


class Handover:
    """One for each process. `put` never blocks and never fails."""

    def __init__(self, publish: PublishTasks, ledger: Ledger, *, gather_seconds: float = GATHER_SECONDS) -> None:
        self._publish = publish
        self._ledger = ledger
        self._gather_seconds = gather_seconds
        #: Something urgent waits, or it is the end.
        self._hurry = threading.Event()
        self._waiting: SimpleQueue[_Item | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="handover", daemon=True)
        self._thread.start()

    def put(self, channel: Channel, lane: Lane, ids: Sequence[UUID]) -> None:
        self._waiting.put((channel, lane, ids))
        if lane is Lane.URGENT:
            self._hurry.set()

    def close(self) -> None:
        """Publish what waits, for a limited time; the sweep does the rest."""
        self._waiting.put(None)
        self._hurry.set()
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        is_open = True
        next_at = 0.0
        while is_open:
            items = [self._waiting.get()]
            self._hurry.wait(max(0.0, next_at - time.monotonic()))
            self._hurry.clear()
            while not self._waiting.empty():
                items.append(self._waiting.get())
            is_open = None not in items
            groups: defaultdict[tuple[Channel, Lane], list[UUID]] = defaultdict(list)
            for item in items:
                if item is not None:
                    groups[item[0], item[1]].extend(item[2])
            for (channel, lane), ids in groups.items():
                self._hand_over(channel, lane, ids)
            next_at = time.monotonic() + self._gather_seconds

    def _hand_over(self, channel: Channel, lane: Lane, ids: Sequence[UUID]) -> None:
        try:
            self._publish(channel, lane, ids)
        except Exception as error:
            log.warning("api.tasks_not_published", count=len(ids), error=type(error).__name__)
            try:
                self._ledger.requeue_soon(ids)
            except ServiceUnavailable:
                pass  # then they are due after their lane's time
