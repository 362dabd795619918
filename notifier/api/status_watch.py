"""Requests that wait for a notification share one read of the record, a few times a second.

A request that waits holds its connection and nothing else: no thread, no connection to the database. However many
wait, one read at a time asks about all of them.

Crash points: none. It only reads, and who loses an answer asks again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

from fastapi.concurrency import run_in_threadpool

from notifier.domain.errors import InvalidMessage
from notifier.domain.notification_status import NotificationStatus
from notifier.operations.api_keys import Holder
from notifier.store.status_lookup import AskedStatus, FoundStatus

#: Between two reads for those who wait. Seconds.
PERIOD_SECONDS = 0.25
#: Longest wait of one request; below the limits of common proxies. Seconds.
MAX_WAIT_SECONDS = 30.0
#: Notifications of one read.
_READ_AT_ONCE = 250

_Find = Callable[[Collection[AskedStatus]], Mapping[AskedStatus, FoundStatus]]


@dataclass(slots=True, eq=False)
class _Waiter:
    asked: AskedStatus
    holder: Holder
    ends_at: float
    answer: asyncio.Future[NotificationStatus | None]
    is_new: bool = True


@dataclass(slots=True)
class StatusWatch:
    """One for each process, on one event loop."""

    find: _Find
    #: Requests that wait at once, and at most half as many of one key; another is answered at once with what is
    #: known. Fewer than one client address may have connections: a proxy has one address for everybody, and what
    #: asks for its health has to come through.
    max_waiting: int
    _waiters: list[_Waiter] = field(default_factory=list)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _reader: asyncio.Task[None] | None = None
    _is_ending: bool = False

    async def status(
        self, asked: AskedStatus, holder: Holder, wait_seconds: float = 0.0
    ) -> NotificationStatus | None:
        """As soon as it is ready, or after `wait_seconds` what it is then. None: there is none that the holder may
        see.

        Raises:
            ServiceUnavailable: the database is away.
            InvalidMessage: the id or the key was accepted for another content, which the holder may see.
        """
        waits = 0.0 if self._is_full(holder.key_id) else wait_seconds
        answer: asyncio.Future[NotificationStatus | None] = asyncio.get_running_loop().create_future()
        waiter = _Waiter(asked, holder, time.monotonic() + waits, answer)
        self._waiters.append(waiter)
        if self._reader is None or self._reader.done():
            self._wake = asyncio.Event()
            self._reader = asyncio.create_task(self._read_on())
        self._wake.set()
        try:
            return await answer
        finally:
            # Its client may have gone.
            self._waiters.remove(waiter)

    def end(self) -> None:
        """Answer all who wait, because the process ends; nobody waits from here on."""
        self._is_ending = True
        self._wake.set()

    def _is_full(self, key_id: str | None) -> bool:
        of_key = sum(waiter.holder.key_id == key_id for waiter in self._waiters)
        return of_key >= self.max_waiting // 2 or len(self._waiters) >= self.max_waiting

    async def _read_on(self) -> None:
        next_at = 0.0
        while waiters := [waiter for waiter in self._waiters if not waiter.answer.done()]:
            self._wake.clear()
            if is_due := self._is_ending or time.monotonic() >= next_at:
                next_at = time.monotonic() + PERIOD_SECONDS
            # What has just come is read at once, the others when their time has come.
            due = [waiter for waiter in waiters if is_due or waiter.is_new]
            for start in range(0, len(due), _READ_AT_ONCE):
                await self._answer(due[start : start + _READ_AT_ONCE])
            try:
                async with asyncio.timeout(max(0.0, next_at - time.monotonic())):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _answer(self, waiters: list[_Waiter]) -> None:
        """Those that are ready or over their time."""
        try:
            found = await run_in_threadpool(self.find, {waiter.asked for waiter in waiters})
        except Exception as error:
            for waiter in waiters:
                if not waiter.answer.done():
                    waiter.answer.set_exception(error)
            return
        now = time.monotonic()
        for waiter in waiters:
            waiter.is_new = False
            if waiter.answer.done():
                continue
            one = found.get(waiter.asked)
            # Also what is asked about others' with the right content is answered as if there were none.
            visible = one if one is not None and waiter.holder.sees(one.status) else None
            is_over = self._is_ending or waiter.ends_at <= now
            if visible is not None and visible.fault is not None:
                waiter.answer.set_exception(InvalidMessage([visible.fault]))
            elif is_over or (visible is not None and visible.status.is_ready):
                waiter.answer.set_result(visible.status if visible is not None else None)
