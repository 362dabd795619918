"""Lets threads that publish at the same time share messages of the broker.

One thread publishes and waits for the confirmation. Meanwhile the messages of other threads gather. Those for the
same queue go out next, as one message in the batch form. No thread waits for others to join.

Crash points: none of its own. A thread returns when the message that holds its entry is confirmed, as it would
alone. If the process dies, only threads that have not returned die with it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from notifier.broker.batch_form import MAX_ENTRY_BYTES, join
from notifier.domain.errors import PublishFailed
from notifier.domain.message import MAX_BATCH_ENTRIES
from notifier.domain.statuses import Channel, Lane

#: Publishes a body before a time of `time.monotonic()`, or raises PublishFailed.
Send = Callable[[Channel, Lane, bytes, float], None]


@dataclass(slots=True, eq=False)
class _Publication:
    """What one thread wants to publish, and the outcome."""

    channel: Channel
    lane: Lane
    bodies: tuple[bytes, ...]
    #: Set when it is published, or when it is this thread's turn. None: it was the thread's turn at once.
    woken: threading.Event | None = None
    is_done: bool = False
    error: PublishFailed | None = None

    @property
    def size(self) -> int:
        """Size of the joined bodies with a comma after each. Bytes."""
        return sum(map(len, self.bodies)) + len(self.bodies)


class JointPublication:
    """Publishes for several threads through one `send`, which is never called twice at once."""

    def __init__(self, send: Send) -> None:
        self._send = send
        #: Publications that nobody has begun, oldest first, and the one whose turn it is. Changed under `_gate`.
        self._waiting: list[_Publication] = []
        self._turn: _Publication | None = None
        self._gate = threading.Lock()

    def publish(self, channel: Channel, lane: Lane, bodies: tuple[bytes, ...], seconds: float) -> None:
        """Publish these bodies; return when they are confirmed.

        Raises:
            PublishFailed: they were not published, or not within `seconds`.
        """
        ends_at = time.monotonic() + seconds
        mine = _Publication(channel, lane, bodies)
        try:
            self._queue(mine)
            if mine.woken is not None:
                mine.woken.wait(seconds)
            if not mine.is_done:
                self._publish_with_others(mine, ends_at)
        finally:
            # Whatever ended the wait, even Ctrl-C: the turn must be with a thread that is still there.
            self._leave(mine)
        if mine.error is not None:
            raise mine.error

    def _queue(self, mine: _Publication) -> None:
        with self._gate:
            self._waiting.append(mine)
            if self._turn is None:
                self._turn = mine
            else:
                mine.woken = threading.Event()

    def _leave(self, mine: _Publication) -> None:
        with self._gate:
            if mine in self._waiting:
                self._waiting.remove(mine)
            if self._turn is mine:
                self._turn = self._waiting[0] if self._waiting else None
                if self._turn is not None and self._turn.woken is not None:
                    self._turn.woken.set()

    def _publish_with_others(self, mine: _Publication, ends_at: float) -> None:
        """Publish it together with others that wait for the same queue. They share one message and its outcome."""
        together = self._take_with(mine)
        if not together:
            raise PublishFailed(
                "the connection was busy, or the broker did not confirm the message in time; "
                "publish again with the same idempotency key"
            )
        error: PublishFailed | None = PublishFailed("publishing was interrupted; publish again")
        try:
            self._send(mine.channel, mine.lane, join([body for one in together for body in one.bodies]), ends_at)
            error = None
        except PublishFailed as failure:
            error = failure
        finally:
            for one in together:
                # An error object for each thread: one that several raise would collect all their tracebacks.
                one.error = error if one is mine or error is None else type(error)(str(error))
                one.is_done = True
                if one is not mine and one.woken is not None:
                    one.woken.set()

    def _take_with(self, mine: _Publication) -> list[_Publication]:
        """The publications that go out now. Empty: it is another thread's turn."""
        with self._gate:
            if self._turn is not mine:
                return []
            together, count, size = [mine], len(mine.bodies), mine.size
            for one in self._waiting:
                if one is mine or (one.channel, one.lane) != (mine.channel, mine.lane):
                    continue
                if count + len(one.bodies) > MAX_BATCH_ENTRIES or size + one.size - 1 > MAX_ENTRY_BYTES:
                    break
                together.append(one)
                count, size = count + len(one.bodies), size + one.size
            self._waiting = [one for one in self._waiting if one not in together]
        return together
