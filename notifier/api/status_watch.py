"""Lets requests wait for notifications: all of them share one read of the record, a few times a second.

A waiting request holds its network connection and nothing else: no thread, and no connection to the database.
However many wait, one read at a time asks about all of them.

Crash points: none. It only reads, and a client that loses its answer asks again.
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

#: Time between two reads of the record. Seconds.
PERIOD_SECONDS = 0.25
#: Longest wait of one request; below the limits of common proxies. Seconds.
MAX_WAIT_SECONDS = 30.0
#: Maximum notifications in one read.
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
    """Watches notifications for a process, on one event loop."""

    find: _Find
    #: Maximum requests that wait at once, and half as many for one key; further requests are answered at once with
    #: the current status. It is below the maximum of connections for one client address: behind a proxy everybody
    #: has one address, and health checks must still come through.
    max_waiting: int
    _waiters: list[_Waiter] = field(default_factory=list)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _reader: asyncio.Task[None] | None = None
    _is_ending: bool = False

    async def status(
        self, asked: AskedStatus, holder: Holder, wait_seconds: float = 0.0
    ) -> NotificationStatus | None:
        """Return the status as soon as the notification is ready, or its current status after `wait_seconds`.
        None: there is none that the holder may see.

        Raises:
            ServiceUnavailable: the database is unreachable.
            InvalidMessage: the id or the key was accepted for other content, which the holder may see.
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
            # The client may have gone.
            self._waiters.remove(waiter)

    def end(self) -> None:
        """Answer all requests that wait, because the process ends. No request waits after that."""
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
            # New requests are read at once, the others at the next period.
            due = [waiter for waiter in waiters if is_due or waiter.is_new]
            for start in range(0, len(due), _READ_AT_ONCE):
                await self._answer(due[start : start + _READ_AT_ONCE])
            try:
                async with asyncio.timeout(max(0.0, next_at - time.monotonic())):
                    await self._wake.wait()
            except TimeoutError:
                pass

    async def _answer(self, waiters: list[_Waiter]) -> None:
        """Answer the requests whose notification is ready or whose time is over."""
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
            # Notifications of other producers count as missing, even if the request has the right content hash.
            visible = one if one is not None and waiter.holder.sees(one.status) else None
            is_over = self._is_ending or waiter.ends_at <= now
            if visible is not None and visible.fault is not None:
                waiter.answer.set_exception(InvalidMessage([visible.fault]))
            elif is_over or (visible is not None and visible.status.is_ready):
                waiter.answer.set_result(visible.status if visible is not None else None)
