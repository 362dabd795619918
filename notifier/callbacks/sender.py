"""Sends callbacks, given their ids: claim → sign → call → record, then the next ones due for the same endpoint.

A task only starts this. The calls run on a separate event loop, so no Celery thread waits for a slow endpoint, and
no producer waits for another's endpoint (`slots`). If the process dies, its callbacks are due again when their
lease ends.

Crash points: see `store.callbacks`. No transaction is open while an endpoint is called.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import TypeVar
from uuid import UUID

from notifier.callbacks import payload, signing
from notifier.callbacks.http import DEADLINE_SECONDS, CallbackAnswer, CallbackCaller
from notifier.callbacks.policy import pause_after
from notifier.callbacks.slots import FairSlots
from notifier.callbacks.spans import begin_span, end_span, trace_headers
from notifier.config.callbacks import CallbackTable
from notifier.config.logs import log, log_failure
from notifier.domain.errors import ConfigurationError, ServiceUnavailable
from notifier.domain.statuses import CallbackFailure
from notifier.store.callbacks import PER_PRODUCER, CallbackRepository, CallbackResult, ClaimedCallback
from notifier.telemetry import metrics

#: Lease of a claim: covers its turn, the call and the writing. Seconds.
LEASE_SECONDS = 60.0
#: Maximum number of concurrent calls in one process; `PER_PRODUCER` is the maximum for one producer.
CALLS = 200
#: Threads that write to the database.
_WRITERS = 4
#: A call starts only if at least this much of the lease is left. Seconds.
_MARGIN_SECONDS = DEADLINE_SECONDS + 10.0
#: Pause before results that could not be written are tried again. Seconds.
_WRITE_AGAIN_SECONDS = 1.0

T = TypeVar("T")


class CallbackSender:
    """Sends callbacks, one object for each process. Create it in the event loop in which it works."""

    def __init__(
        self,
        repository: CallbackRepository,
        tables: Mapping[str, CallbackTable],
        caller: CallbackCaller,
        loop: asyncio.AbstractEventLoop,
        *,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._repository = repository
        self._tables = tables
        self._caller = caller
        self._loop = loop
        self._chance = chance
        self._slots = FairSlots(CALLS, PER_PRODUCER)
        self._threads = ThreadPoolExecutor(_WRITERS, thread_name_prefix="callbacks")
        self._is_stopping = False
        self._running: set[Future[None]] = set()

    def start(self, ids: Sequence[UUID]) -> Future[None]:
        """Claim these callbacks and begin to call; may be called from any thread. The future ends when nothing is
        left to call.

        Raises:
            ServiceUnavailable: the database cannot be used now; the callbacks are dispatched again.
        """
        claimed = self._repository.claim(ids, lease_seconds=LEASE_SECONDS)
        found = asyncio.run_coroutine_threadsafe(self._run(claimed), self._loop)
        self._running.add(found)
        found.add_done_callback(self._running.discard)
        return found

    async def stop(self) -> None:
        """Let the calls in progress end, and start no more."""
        self._is_stopping = True
        running = [asyncio.wrap_future(one, loop=self._loop) for one in tuple(self._running)]
        if running:
            await asyncio.wait(running, timeout=DEADLINE_SECONDS + 2)
        await self._caller.close()
        self._threads.shutdown(wait=False)

    async def _run(self, claimed: Sequence[ClaimedCallback]) -> None:
        try:
            while claimed:
                results = await asyncio.gather(*(self._call(one) for one in claimed))
                await self._write([result for result in results if result is not None], claimed[0])
                if self._is_stopping:
                    return
                # So the same endpoint's next round does not wait for the sweep.
                claimed = await self._in_thread(partial(self._take_more, claimed[0].endpoint))
        except ServiceUnavailable as error:
            log.warning("callbacks.interrupted", error=type(error).__name__)
        except Exception as error:
            log_failure("callbacks.failed", error)

    def _take_more(self, endpoint: str) -> list[ClaimedCallback]:
        ids = self._repository.give_out(endpoint).get(endpoint)
        return self._repository.claim(ids, lease_seconds=LEASE_SECONDS) if ids else []

    async def _call(self, claimed: ClaimedCallback) -> CallbackResult | None:
        """Make one call; None: its turn came too late for this lease."""
        async with self._slots.hold(claimed.producer):
            waited = time.monotonic() - claimed.claimed_monotonic
            if waited > LEASE_SECONDS - _MARGIN_SECONDS:
                return None
            try:
                answer = await self._answer(claimed, round(claimed.claimed_at + waited))
            except Exception as error:
                log_failure("callbacks.failed", error, **claimed.log_ids)
                answer = CallbackAnswer(CallbackFailure.TECHNICAL_ERROR)
        if answer.failure is None:
            return CallbackResult(claimed.id, claimed.number, None, answer.http_status)
        pause = pause_after(
            answer.failure, claimed.tries, claimed.age_seconds, answer.retry_after_seconds, self._chance()
        )
        log.info(
            "callbacks.not_delivered",
            producer=claimed.producer,
            **claimed.log_ids,
            attempt=claimed.number,
            reason=answer.failure,
            code=answer.http_status,
            seconds=pause,
        )
        return CallbackResult(claimed.id, claimed.number, answer.failure, answer.http_status, pause)

    async def _answer(self, claimed: ClaimedCallback, timestamp: int) -> CallbackAnswer:
        if not claimed.is_in_record:
            return CallbackAnswer(CallbackFailure.NOT_IN_RECORD)
        if claimed.callback_url is None and claimed.endpoint != claimed.producer:
            # The message's own server is part of its URL, which is gone. Another endpoint is not called instead.
            return CallbackAnswer(CallbackFailure.REDACTED)
        table = self._tables.get(claimed.producer)
        url = claimed.callback_url or (table.url if table else None)
        if table is None or url is None:
            return CallbackAnswer(CallbackFailure.NOT_CONFIGURED)
        try:
            keys = table.keys(claimed.producer)
        except ConfigurationError:
            return CallbackAnswer(CallbackFailure.NOT_CONFIGURED)
        body = payload.encode(claimed)
        headers = signing.headers(keys, str(claimed.id), timestamp, body)
        span = begin_span(claimed)
        answer = await self._caller.call(url, {**headers, **trace_headers(claimed, span)}, body)
        if span is not None:
            end_span(span, answer)
        return answer

    async def _write(self, results: Sequence[CallbackResult], one: ClaimedCallback) -> None:
        """Record the results. While the database is unreachable, retry until the lease ends."""
        while True:
            try:
                suspended = await self._in_thread(partial(self._repository.record, results))
                break
            except ServiceUnavailable:
                if time.monotonic() - one.claimed_monotonic > LEASE_SECONDS:
                    raise
                await asyncio.sleep(_WRITE_AGAIN_SECONDS)
        metrics.count(metrics.CALLBACK_CALLS, [(result.failure or metrics.TAKEN,) for result in results])
        failed = sum(result.failure is not None for result in results)
        log.info("callbacks.called", producer=one.producer, sent=len(results) - failed, failed=failed)
        if suspended:
            log.warning("callbacks.suspended", producer=one.producer)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await self._loop.run_in_executor(self._threads, work)
