"""Threads that publish at once share messages of the broker.

One thread publishes and waits for the confirmation. What others want to publish meanwhile gathers, and what of it
is for the same queue goes out in one message next, in the batch form. Nobody waits for company.

Crash points: none of its own. A thread returns when the message that holds its entry is confirmed, as before; with
the process go threads that have not returned.
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

#: Publishes a body before a moment of `time.monotonic()`, or raises PublishFailed.
Send = Callable[[Channel, Lane, bytes, float], None]


@dataclass(slots=True, eq=False)
class _Publication:
    """What one thread wants published, and how that ended."""

    channel: Channel
    lane: Lane
    bodies: tuple[bytes, ...]
    #: Set when it is published or when it is this thread's turn; None for a thread whose turn it is at once.
    woken: threading.Event | None = None
    is_done: bool = False
    error: PublishFailed | None = None

    @property
    def size(self) -> int:
        """Of the joined bodies with a comma behind each. Bytes."""
        return sum(map(len, self.bodies)) + len(self.bodies)


class JointPublication:
    """Publishes for several threads through one `send`, which is never called twice at once."""

    def __init__(self, send: Send) -> None:
        self._send = send
        #: What nobody has begun to publish, oldest first, and whose turn it is. Changed under `_gate`.
        self._waiting: list[_Publication] = []
        self._turn: _Publication | None = None
        self._gate = threading.Lock()

    def publish(self, channel: Channel, lane: Lane, bodies: tuple[bytes, ...], seconds: float) -> None:
        """Return when these are published.

        Raises:
            PublishFailed: they are not, or not within `seconds`.
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
            # Whatever ended the wait, Ctrl-C for example: somebody has the turn, and it is a thread that is there.
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
        """Publish it together with what waits for the same queue: they share one message and how it ends."""
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
                # Each thread gets an error of its own: what several raise would gather all their tracebacks.
                one.error = error if one is mine or error is None else type(error)(str(error))
                one.is_done = True
                if one is not mine and one.woken is not None:
                    one.woken.set()

    def _take_with(self, mine: _Publication) -> list[_Publication]:
        """What goes out now; nothing if it is another thread's turn."""
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
