"""The pool of connections to one mail server, which are reused: a new one costs several round trips and a TLS
handshake.

Letters wait in one queue, and each line that becomes free takes the next. As many lines work as the server can use
(see `adaptive_limit`); the others are idle. One timer watches the deadlines of all of them.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable

import aiosmtplib

from notifier.config.logs import log
from notifier.domain.errors import SendError
from notifier.providers.outcomes import UNAVAILABLE
from notifier.providers.smtp.adaptive_limit import AdaptiveLimit
from notifier.providers.smtp.letter import Letter
from notifier.providers.smtp.line import SmtpLine

#: A connection that was idle for longer than this is checked before it is used. Servers close idle connections
#: after minutes (RFC 5321 section 4.5.3.2.7: at least 5), firewalls on the way sooner and silently. Seconds.
CHECK_AFTER_SECONDS = 5.0
#: Timers ring at most this much too early.
_TICK_SECONDS = 0.001


class Lines:
    """The pool. At most `max_connections` work at once. `line.Post` describes what a line calls."""

    def __init__(
        self,
        connect: Callable[[], Awaitable[aiosmtplib.SMTP]],
        failed_to_connect: Callable[[Exception], SendError],
        *,
        max_connections: int,
        max_messages: int,
        max_age_seconds: float,
        check_after_seconds: float = CHECK_AFTER_SECONDS,
    ) -> None:
        self._connect = connect
        self._failed_to_connect = failed_to_connect
        self._max_messages = max_messages
        self._max_age_seconds = max_age_seconds
        self._check_after_seconds = check_after_seconds
        self._limit = AdaptiveLimit(max_connections)
        self._waiting: deque[Letter] = deque()
        #: Letters that wait for a new line, because a reused line ended under them.
        self._again: deque[Letter] = deque()
        self._busy: set[SmtpLine] = set()
        #: Of the busy lines, those that will soon be free, or turn out to be closed.
        self._clearing: set[SmtpLine] = set()
        #: Last in, first out: under light load the others grow old and are closed.
        self._idle: list[SmtpLine] = []
        self._opening: set[asyncio.Task[None]] = set()
        #: Connections refused in a row while no line was busy.
        self._refusals = 0
        self._closed = False
        self._timer: asyncio.TimerHandle | None = None
        self._rings_at = 0.0

    def put(self, letter: Letter) -> None:
        """Send the letter on the first line that is free."""
        if self._closed:
            letter.end(_closing())
            return
        self._waiting.append(letter)
        self._man()
        if letter.stage is None and not letter.is_over:
            self.watch(letter.waits_until)

    async def close(self) -> None:
        """Close every connection: idle ones with QUIT, busy ones at once."""
        self._closed = True
        self._stop_timer()
        for letter in self._take_all_waiting():
            letter.end(_closing())
        for line in list(self._busy):
            line.drop()
        for opening in self._opening:
            opening.cancel()
        idle, self._idle = self._idle, []
        await asyncio.gather(*(line.quit() for line in idle), *self._opening, return_exceptions=True)
        # The event loop closes the sockets in its next round.
        await asyncio.sleep(0)

    # Called by lines.

    def clears(self, line: SmtpLine) -> None:
        """See `Post.clears`."""
        self._clearing.add(line)

    def free(self, line: SmtpLine) -> None:
        """See `Post.free`."""
        self._clearing.discard(line)
        letter = None if line.needs_reset else self._next_for(line)
        if letter is not None:
            line.carry(letter)
            return
        self._busy.discard(line)
        if self._closed or self._is_worn(line):
            line.retire()
            return
        self._idle.append(line)
        line.rest(line.opened_at + self._max_age_seconds)
        self._man()

    def next_behind(self, line: SmtpLine) -> Letter | None:
        """See `Post.next_behind`. The last letters go to whichever line is free first, because this line may take
        long."""
        return self._next_for(line) if len(self._waiting) >= len(self._busy) else None

    def took(self, seconds: float) -> None:
        """See `Post.took`."""
        self._limit.took(seconds, at=time.monotonic(), is_wanted=bool(self._waiting))
        if self._waiting:
            # The limit may be higher now.
            self._man()

    def send_again(self, letter: Letter) -> None:
        """See `Post.send_again`."""
        if self._closed:
            letter.end(_closing())
            return
        letter.wait_anew()
        self._again.append(letter)
        self.watch(letter.waits_until)

    def left(self, line: SmtpLine) -> None:
        """See `Post.left`."""
        self._busy.discard(line)
        self._clearing.discard(line)
        if line in self._idle:
            self._idle.remove(line)
        self._man()

    def watch(self, due: float) -> None:
        """See `Post.watch`."""
        if self._closed or (self._timer is not None and self._rings_at <= due):
            return
        self._stop_timer()
        self._rings_at = due
        delay = max(0.0, due - time.monotonic())
        self._timer = asyncio.get_running_loop().call_later(delay, self._ring)

    # Which line takes which letter.

    def _next_for(self, line: SmtpLine) -> Letter | None:
        """The next letter that this line may begin with."""
        if self._closed or self._is_worn(line) or self._at_work > self._limit.now:
            return None
        if not line.is_new:
            queue = self._waiting
            if len(self._again) > len(self._opening) and self._at_work >= self._limit.now:
                # This line makes room for a new one.
                return None
        else:
            queue = self._again or self._waiting
        while queue:
            letter = queue.popleft()
            if letter.begins(line.extensions):
                return letter
        return None

    def _is_worn(self, line: SmtpLine) -> bool:
        return line.letters >= self._max_messages or time.monotonic() - line.opened_at >= self._max_age_seconds

    @property
    def _at_work(self) -> int:
        return len(self._busy) + len(self._opening)

    def _man(self) -> None:
        """Put lines to work: one for each letter that no line is about to take, within the limit."""
        while not self._closed and self._at_work < self._limit.now:
            if len(self._again) > len(self._opening):
                self._open()
            elif len(self._waiting) + len(self._again) <= len(self._opening) + len(self._clearing):
                return
            elif self._idle:
                self._wake(self._idle.pop())
            else:
                self._open()

    def _wake(self, line: SmtpLine) -> None:
        now = time.monotonic()
        if not line.is_usable:
            line.drop()
        elif self._is_worn(line):
            line.retire()
        elif line.needs_reset or now - line.used_at >= self._check_after_seconds:
            self._busy.add(line)
            self._clearing.add(line)
            line.check()
        else:
            self._busy.add(line)
            self.free(line)

    def _open(self) -> None:
        # No longer than the present letters wait: a letter that comes later may open another connection.
        until = max(queue[-1].waits_until for queue in (self._waiting, self._again) if queue)
        opening = asyncio.get_running_loop().create_task(self._open_until(until))
        self._opening.add(opening)

    async def _open_until(self, until: float) -> None:
        this = asyncio.current_task()
        assert this is not None
        try:
            async with asyncio.timeout(max(0.0, until - time.monotonic())) as limit:
                smtp = await self._connect()
        except Exception as error:
            self._opening.discard(this)
            if not limit.expired():
                self._failed_to_open(error)
            self._man()
        except BaseException:
            self._opening.discard(this)
            raise
        else:
            self._opening.discard(this)
            self._refusals = 0
            line = SmtpLine(smtp, self)
            self._busy.add(line)
            self.free(line)

    def _failed_to_open(self, error: Exception) -> None:
        """Handle a connection that could not be opened. If the server refuses it while others are open, it has
        enough of them, and letters wait for those. If none is open, each failed attempt ends one letter."""
        others = self._at_work
        if _may_mean_too_many(error):
            is_news = self._limit.refused(at=time.monotonic(), at_work=others)
            if is_news and others:
                log.warning("smtp.connection_refused", count=others, error=type(error).__name__)
            if others:
                self._refusals += not self._busy
                return
        count, self._refusals = 1 + self._refusals, 0
        for _ in range(count):
            queue = self._again or self._waiting
            if queue:
                queue.popleft().end(self._failed_to_connect(error))

    def _take_all_waiting(self) -> list[Letter]:
        letters = [*self._again, *self._waiting]
        self._again.clear()
        self._waiting.clear()
        return letters

    # Deadlines.

    def _ring(self) -> None:
        """End what is overdue, and set the timer for the next deadline."""
        self._timer = None
        try:
            self._end_overdue(time.monotonic() + _TICK_SECONDS)
        finally:
            dues = [line.due for lines in (self._busy, self._idle) for line in lines]
            dues += [letter.waits_until for queue in (self._again, self._waiting) for letter in queue]
            if dues:
                self.watch(min(dues))

    def _end_overdue(self, now: float) -> None:
        for queue in (self._again, self._waiting):
            for letter in [letter for letter in queue if letter.waits_until <= now]:
                queue.remove(letter)
                letter.timed_out()
        for line in [line for line in self._idle if line.due <= now]:
            line.retire()
        for line in [line for line in self._busy if line.due <= now]:
            line.overdue()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


def _closing() -> SendError:
    return UNAVAILABLE.error("this provider is being closed")


def _may_mean_too_many(error: Exception) -> bool:
    """Whether the error may mean that the server has enough of our connections: a 4xx, or it hung up."""
    if isinstance(error, aiosmtplib.SMTPResponseException):
        return 400 <= error.code < 500
    return isinstance(error, OSError)
