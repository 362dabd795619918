"""Publishes deliver tasks for accepted requests, from a thread of its own and after the answer.

The row is committed before. So a request waits only for the database, even while the broker hangs, and one task
carries the notifications of many requests: the first is published at once, and those that follow closely gather.
Notifications that cannot be published are made due for the sweep soon. If the process dies, the sweep finds its
notifications by itself.
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

#: After a task, notifications that are not urgent gather this long for the next one: publishing a hundred takes as
#: long as publishing one. Seconds.
GATHER_SECONDS = 0.01
#: Time to publish what waits when the process ends. Seconds.
CLOSE_SECONDS = 10.0


class Handover:
    """The queue of a process. `put` never blocks and never fails."""

    def __init__(self, publish: PublishTasks, ledger: Ledger, *, gather_seconds: float = GATHER_SECONDS) -> None:
        self._publish = publish
        self._ledger = ledger
        self._gather_seconds = gather_seconds
        #: Set when something urgent waits, or the process ends.
        self._hurry = threading.Event()
        self._waiting: SimpleQueue[_Item | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="handover", daemon=True)
        self._thread.start()

    def put(self, channel: Channel, lane: Lane, ids: Sequence[UUID]) -> None:
        self._waiting.put((channel, lane, ids))
        if lane is Lane.URGENT:
            self._hurry.set()

    def close(self) -> None:
        """Publish what waits, within a time limit; the sweep does the rest."""
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
                pass  # they are due when their lane's time is over
