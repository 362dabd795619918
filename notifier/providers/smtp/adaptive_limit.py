"""Finds by experiment how many connections to a mail server should be busy at once.

A server that takes 100 ms for each mail handles ten a second on one connection. A server that answers at once is
no faster with a hundred connections. While mails wait for a connection, a higher limit is tried, at first twice as
high. It stays if each mail still takes about as long, because then the server worked on more of them at once. If
mails take longer, they only waited in another queue (the server's, or for our own processor), and the limit goes
back.
"""

from __future__ import annotations

import statistics

#: The first limit: fewer connections than servers usually allow one client.
START = 20
#: Size of a step up, as a share of the limit: before the first step that brings nothing, and after it.
_FIRST_STEP, _LATER_STEP = 1.0, 0.25
#: A step stays if it lengthens the time of a mail by less than this share of its own size. A useless step
#: lengthens the time by its whole size.
_WORTH = 0.4
#: If mails take this many times as long as before at this limit, the server is overloaded: start again.
_MUCH_LONGER = 2.0
#: Pause after a step that brought nothing. Seconds.
REST_SECONDS = 2.0
#: Pause after a refused connection, or when the server is overloaded. Seconds.
LONG_REST_SECONDS = 20.0
#: Minimum number of mails for a median.
_FEWEST = 40


class AdaptiveLimit:
    """The limit for one pool of connections."""

    def __init__(self, most: int) -> None:
        self._most = most
        #: The current limit.
        self.now = min(START, most)
        #: Time of each mail since the last change or median, and whether any mail waited during that time.
        self._seconds: list[float] = []
        self._has_queue = False
        #: Mails that started before the last change and have not ended.
        self._stale = 0
        #: Time of a mail, and limit, before the step that is being tried; None: none is.
        self._before: tuple[float, int] | None = None
        #: Shortest time of a mail at this limit; None: unknown.
        self._usual: float | None = None
        self._step = _FIRST_STEP
        self._rests_until = 0.0

    def took(self, seconds: float, *, at: float, is_wanted: bool) -> None:
        """Record that a mail took `seconds`. `at`: now, on a monotonic clock. `is_wanted`: another mail waits."""
        if self._stale:
            self._stale -= 1
            return
        self._has_queue = self._has_queue or is_wanted
        self._seconds.append(seconds)
        if len(self._seconds) >= max(_FEWEST, self.now):
            median, has_queue = statistics.median(self._seconds), self._has_queue
            self._seconds, self._has_queue = [], False
            self._judge(median, at, has_queue)

    def refused(self, *, at: float, at_work: int) -> bool:
        """Record that the server refused a connection while `at_work` others were busy. If none were, the server
        refuses everyone, which says nothing about the limit. Returns whether this is the first refusal for a
        while."""
        is_news = at >= self._rests_until
        self._settle(min(self.now, at_work) or min(START, self._most), at + LONG_REST_SECONDS)
        return is_news

    def _judge(self, median: float, at: float, has_queue: bool) -> None:
        if self._before is not None and median > self._before[0] * (1 + _WORTH * self._step):
            self._step = _LATER_STEP
            self._settle(self._before[1], at + REST_SECONDS)
            return
        if self._before is None and self._usual is not None:
            if median > self._usual * _MUCH_LONGER:
                self._step = _FIRST_STEP
                self._settle(min(START, self.now), at + LONG_REST_SECONDS)
                return
            median = min(median, self._usual)
        self._before, self._usual = None, median
        if has_queue and self.now < self._most and at >= self._rests_until:
            self._before = median, self.now
            self._change(min(self._most, self.now + max(1, int(self.now * self._step))))

    def _settle(self, limit: int, until: float) -> None:
        """Keep this limit until then."""
        self._before = self._usual = None
        self._rests_until = until
        self._change(limit)

    def _change(self, limit: int) -> None:
        self._stale = max(limit, self.now)
        self._seconds, self._has_queue = [], False
        self.now = limit
