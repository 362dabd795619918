"""Calls providers on the process's event loop: as many at once as a provider has slots, each with a deadline.

A provider that keeps its own queue (`Queues`) gets its calls as slots become free, and reports how each ended. For
other providers, and for calls that need a turn under a rate limit, each call is a coroutine of its own.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from queue import Empty, SimpleQueue

from notifier.config.logs import log, log_failure
from notifier.delivery.delivery import Delivery, Permit
from notifier.delivery.prepare import Prepared
from notifier.delivery.rate_limiter import RateLimiter
from notifier.domain.errors import OutcomeUnknown, SendError, ServiceUnavailable, Unavailable
from notifier.domain.statuses import Outcome, Reason
from notifier.providers.base import Outgoing, Provider, Queues, Receipt

#: Time between the last moment to start a call and the end of the lease, on top of the call's deadline. Seconds.
MARGIN_SECONDS = 5.0
#: Results are collected for this long and written together; the last one of a batch is not delayed. A transaction
#: for each result would cost the database more than everything else, and waking the thread for each a third of our
#: own time. Seconds.
GATHER_SECONDS = 0.02
LEASE_NEARLY_OVER = "the lease was nearly over"


@dataclass(slots=True, eq=False)
class ProviderCall:
    """One call, and how it ended. It belongs to the event loop until it is reported."""

    delivery: Delivery
    provider: Provider
    content: Prepared
    #: Number of the attempt.
    number: int
    permit: Permit
    answer: Receipt | SendError | None = None
    #: When the call began, on the monotonic clock.
    begun: float = 0.0
    seconds: float = 0.0


class _Queued:
    """A call in the queue of its provider: see `QueuedCall`."""

    __slots__ = ("_call", "_ended", "_is_over", "outgoing", "start_by")

    def __init__(
        self, call: ProviderCall, start_by: float, ended: Callable[[_Queued, ProviderCall], None]
    ) -> None:
        self.outgoing: Outgoing
        self.start_by = start_by
        self._is_over = False
        self._call = call
        self._ended = ended
        call.begun = time.monotonic()

    def begin(self) -> SendError | None:
        is_late = self._is_over or time.monotonic() > self.start_by
        return not_called(LEASE_NEARLY_OVER) if is_late else None

    def end(self, answer: Receipt | SendError) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._call.answer, self._call.seconds = answer, time.monotonic() - self._call.begun
        self._ended(self, self._call)


def not_called(why: str) -> Unavailable:
    """The answer for a call that was not made."""
    return Unavailable(f"not called: {why}", reason=Reason.LEASE_EXPIRED)


class OpenCalls:
    """Calls that were made together, and their answers in groups as they come in. One thread at a time uses it.

    While `are_open`: wait until `is_over`, then take the answers.
    """

    def __init__(self, calls: Sequence[ProviderCall], ends_at: float) -> None:
        self._waiting = {call.delivery.notification.id: call for call in calls}
        self._answered: SimpleQueue[list[ProviderCall]] = SimpleQueue()
        #: A group that `wait` has received and `take` has not returned yet.
        self._next: list[ProviderCall] | None = None
        self._ready: Callable[[], None] | None = None
        self.begun = time.monotonic()
        #: Calls without an answer by then count as unanswered.
        self.ends_at = ends_at

    @property
    def are_open(self) -> bool:
        return bool(self._waiting)

    @property
    def calls(self) -> Mapping[str, int]:
        return Counter(call.provider.name for call in self._waiting.values())

    @property
    def is_over(self) -> bool:
        """Whether there are answers to take, or no more will come."""
        is_answered = self._next is not None or not self._answered.empty()
        return is_answered or time.monotonic() >= self.ends_at

    def wait(self, until: float | None = None) -> bool:
        """Return True when it is over; False at `until`, on the monotonic clock, if it is not over by then."""
        ends_at = self.ends_at if until is None else min(until, self.ends_at)
        if self._next is None:
            try:
                self._next = self._answered.get(timeout=max(0.0, ends_at - time.monotonic()))
            except Empty:
                return ends_at == self.ends_at
        return True

    def tell(self, ready: Callable[[], None]) -> None:
        self._ready = ready
        # Answers may have come before.
        if self.is_over:
            ready()

    def report(self, calls: list[ProviderCall]) -> None:
        """Called on the event loop: these calls have ended."""
        self._answered.put(calls)
        if self._ready is not None:
            self._ready()

    def take(self) -> list[Delivery]:
        """The next group of answers, once it is over. After `ends_at`, all open calls with an unknown outcome."""
        group, self._next, self._ready = self._next, None, None
        try:
            group = group or self._answered.get_nowait()
        except Empty:
            log.error("deliver.no_answer", count=len(self._waiting))
            late = OutcomeUnknown("the provider did not answer in time")
            group = [replace(call, answer=late) for call in self._waiting.values()]
        for call in group:
            self._waiting.pop(call.delivery.notification.id, None)
            call.delivery.answer = call.answer
            call.delivery.begun, call.delivery.seconds = call.begun, call.seconds
        return [call.delivery for call in group]


class _Gathered:
    """Collects calls that ended, and reports them in groups. On the event loop only."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, expected: int, report: Callable[[list[ProviderCall]], None]
    ) -> None:
        self._loop = loop
        self._left = expected
        self._report = report
        self._calls: list[ProviderCall] = []
        self._timer: asyncio.TimerHandle | None = None

    def add(self, call: ProviderCall) -> None:
        self._calls.append(call)
        self._left -= 1
        if not self._left:
            self._hand_over()
        elif self._timer is None:
            self._timer = self._loop.call_later(GATHER_SECONDS, self._hand_over)

    def _hand_over(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        calls, self._calls = self._calls, []
        self._report(calls)


class ProviderCaller:
    """Makes the calls of one process, under its rate limits."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        providers: Mapping[str, Provider],
        limiter: RateLimiter,
        *,
        slots: int,
        deadline_seconds: float,
    ) -> None:
        self._loop = loop
        self._providers = providers
        self._queues = {name: provider for name, provider in providers.items() if isinstance(provider, Queues)}
        self._limiter = limiter
        #: A semaphore for each provider, so that a provider that does not answer takes no slots from others.
        self._slots = {name: asyncio.Semaphore(slots) for name in providers}
        #: Batches take slots one after the other. So the results of a batch come, and are written, together.
        self._handing = {name: asyncio.Lock() for name in providers}
        self._deadline_seconds = deadline_seconds

    def permits(self, deliveries: Sequence[Delivery]) -> tuple[list[Delivery], list[tuple[Delivery, float]]]:
        return self._limiter.permits(deliveries)

    def call(self, deliveries: Sequence[Delivery], *, start_by: float) -> OpenCalls:
        """Make all of these calls: when this returns, they are under way. None starts after `start_by`, a time on
        the monotonic clock."""
        calls = [
            ProviderCall(one, self._providers[one.provider], one.content, one.attempt.number, one.permit)
            for one in deliveries
        ]
        # Every call has ended this long after `start_by`.
        ends_at = max(start_by, time.monotonic()) + self._deadline_seconds + 2 * MARGIN_SECONDS
        open_calls = OpenCalls(calls, ends_at)
        if not calls:
            # All were suppressed, or belong to another worker by now.
            return open_calls
        coroutine = self._call_all(calls, start_by, open_calls.report)
        try:
            asyncio.run_coroutine_threadsafe(coroutine, self._loop)
        except RuntimeError:
            # The loop is closed: no provider was called.
            coroutine.close()
            raise
        for delivery in deliveries:
            delivery.is_unstarted = False
        return open_calls

    async def _call_all(
        self, calls: Sequence[ProviderCall], start_by: float, report: Callable[[list[ProviderCall]], None]
    ) -> None:
        gathered = _Gathered(self._loop, len(calls), report)
        queued, alone = defaultdict[str, deque[ProviderCall]](deque), list[ProviderCall]()
        for call in calls:
            is_queued = call.delivery.provider in self._queues and not call.permit.turns
            (queued[call.delivery.provider] if is_queued else alone).append(call)
        works = [self._call(call, start_by, gathered) for call in alone]
        works += [self._queue(name, waiting, start_by, gathered) for name, waiting in queued.items()]
        await asyncio.gather(*works)

    async def _queue(
        self, provider: str, waiting: deque[ProviderCall], start_by: float, gathered: _Gathered
    ) -> None:
        """Put these calls into their provider's queue, each when it has a slot, and wait for all of them."""
        slots = self._slots[provider]
        under_way: set[_Queued] = set()
        all_ended = self._loop.create_future()

        def ended(queued: _Queued, call: ProviderCall) -> None:
            under_way.discard(queued)
            slots.release()
            gathered.add(call)
            if not under_way and not waiting and not all_ended.done():
                all_ended.set_result(None)

        try:
            # Providers keep their deadlines themselves; this guards against a provider that does not.
            async with asyncio.timeout(start_by - time.monotonic() + self._deadline_seconds + MARGIN_SECONDS / 2):
                async with self._handing[provider]:
                    while waiting:
                        await slots.acquire()
                        self._put(waiting.popleft(), start_by, under_way, ended)
                await all_ended
        except TimeoutError:
            for queued in list(under_way):
                queued.end(OutcomeUnknown("the provider did not answer in time"))
        finally:
            for call in waiting:
                call.answer = not_called(LEASE_NEARLY_OVER)
                gathered.add(call)

    def _put(
        self,
        call: ProviderCall,
        start_by: float,
        under_way: set[_Queued],
        ended: Callable[[_Queued, ProviderCall], None],
    ) -> None:
        queued = _Queued(call, start_by, ended)
        under_way.add(queued)
        try:
            hindrance = queued.begin()
            if hindrance is not None:
                queued.end(hindrance)
                return
            queued.outgoing = call.content.outgoing(call.number)
            self._queues[call.delivery.provider].put(queued, deadline_seconds=self._deadline_seconds)
        except Exception as error:
            queued.end(_provider_failed(call, error))

    async def _call(self, call: ProviderCall, start_by: float, gathered: _Gathered) -> None:
        call.begun = time.monotonic()
        answer: Receipt | SendError | None = None
        try:
            # Wait for the turn under a rate limit without a slot; replace a missed turn while holding one.
            await self._limiter.wait(call.permit)
            async with self._slots[call.delivery.provider]:
                hindrance = await self._hindrance(call, start_by)
                call.begun = time.monotonic()
                # The outcome is unknown until the provider answers.
                answer = hindrance or OutcomeUnknown("the call was interrupted")
                answer = hindrance or await self._answer(call)
        except Exception as error:
            log_failure("deliver.call_failed", error, **call.delivery.notification.log_ids)
        finally:
            call.answer = answer or not_called("waiting for its turn failed; see the log")
            call.seconds = time.monotonic() - call.begun
            gathered.add(call)

    async def _hindrance(self, call: ProviderCall, start_by: float) -> SendError | None:
        """Why the call must not be made. None: it may start now, and holds its turn under the rate limits."""
        try:
            if call.permit.is_late:
                async with asyncio.timeout(start_by - time.monotonic()):
                    await self._limiter.renew(call.permit)
        except (ServiceUnavailable, TimeoutError):
            return not_called("there was no turn for it in time")
        if time.monotonic() > start_by:
            # Another worker may hold the notification by the time the call ends.
            return not_called(LEASE_NEARLY_OVER)
        return None

    async def _answer(self, call: ProviderCall) -> Receipt | SendError:
        try:
            # Guards against providers that do not keep the deadline themselves.
            async with asyncio.timeout(self._deadline_seconds + MARGIN_SECONDS / 2):
                return await call.provider.send(
                    call.content.outgoing(call.number),
                    deadline_seconds=self._deadline_seconds,
                )
        except SendError as error:
            return error
        except TimeoutError:
            return OutcomeUnknown("the provider did not answer in time")
        except Exception as error:
            return _provider_failed(call, error)


def _provider_failed(call: ProviderCall, error: Exception) -> SendError:
    """The answer after a bug in the provider's code: nobody knows whether the message was taken."""
    log_failure(
        "deliver.provider_failed", error, provider=call.provider.name, **call.delivery.notification.log_ids
    )
    failure = SendError("the provider's code failed; see the log", reason=Reason.TECHNICAL_ERROR)
    failure.outcome = Outcome.UNKNOWN
    return failure
