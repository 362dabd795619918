"""Delivers a batch of notifications, given their ids, and writes every step to the record.

Database work and rendering run in the calling thread. The provider calls of a batch run at the same time, on the
process's event loop, and their results are written as they come in.

A new notification is read, rendered and routed. Then one statement claims it and starts its first attempt, which
saves a commit. All other notifications are claimed first: those of a redelivered task, and those that the sweep
dispatched again. So if rendering one of them kills its worker, the lease that ends shows it. A new notification
that needs no call is claimed before its result is written.

Crash points. While a new notification is rendered, nothing is written yet: the broker delivers the task again, or
the sweep dispatches the notification again, and then it is claimed first. After the claim, before the attempt's
row: the lease ends, no call was made, and the notification is tried again. After the attempt's row: the outcome is
unknown. It is looked up where the provider allows that; then the template's policy decides. After the result:
done. No transaction is open during a call. Counts and spans come last: a crash before them loses a count and a
span, nothing else. The attempt's row holds the provider, the sender's address and the template's version from the
start. The notification's own row gets provider and version with the result: if the worker died in a call, it shows
the previous ones until the next result.

Slow answers keep no thread: see `late_answers`. The task ends, and is acknowledged, while its calls are under way.
A crash after that leaves the same state as a crash before it: an open attempt, whose lease ends. A redelivered
task could not have claimed it either.

If no thread is free for mails with files, they are left unclaimed and made due again in a moment. If that cannot
be written, the sweep finds them as it finds lost tasks. A batch that takes long to render is sent in parts, and
the leases are checked between them. Claims with too little time left are given back; notifications that were only
read are left to the sweep.

Lost answers of the database. A claim is repeated with this task's token, a start of attempts with the same
numbers, and the statement that does both with both: each finds what it had done. If the answer comes too late for
the call, no provider is called. What the token claimed is given back, and an attempt that may be open for it is
closed as not called. Results are kept until they are written: see `result_writer`.

Shutdown. A task that only waits for its claim gives up at once. The claim may be recorded although its answer was
lost; nobody was called for it, so its lease ends and the sweep finds it, as after a kill at that moment. As long
as the grace period lasts, claimed notifications are delivered or given back, and their results are written.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from threading import BoundedSemaphore, Event
from typing import TypeVar
from uuid import UUID

from notifier.config.logs import log, log_failure
from notifier.config.settings import Settings
from notifier.delivery.attachments import AGAIN_SECONDS, PORTIONS_AT_ONCE, Files
from notifier.delivery.attempt_counts import count_attempts
from notifier.delivery.attempt_spans import trace_attempts
from notifier.delivery.circuit_breaker import CircuitBreaker
from notifier.delivery.delivery import Delivery
from notifier.delivery.failover import goes_on
from notifier.delivery.late_answers import KEEP_THREAD_SECONDS, Awaited, LateAnswers, Steps
from notifier.delivery.prepare import Composer
from notifier.delivery.provider_calls import (
    LEASE_NEARLY_OVER,
    MARGIN_SECONDS,
    OpenCalls,
    ProviderCaller,
    not_called,
)
from notifier.delivery.repeat import until_answered
from notifier.delivery.results import Results, failed
from notifier.delivery.router import Router
from notifier.delivery.task import DeliverySummary, DeliveryTask
from notifier.domain.errors import RenderingFailed, SendError, Unavailable
from notifier.domain.statuses import Reason
from notifier.providers.base import Attachment
from notifier.runtime.thread_share import ThreadShare
from notifier.store.ledger import Ledger
from notifier.store.records import NewAttempt, NotificationToSend, Started

T = TypeVar("T")

#: A task waits this long for the database, or as long as a lease if that is more; then the sweep takes over.
#: Seconds.
CLAIM_DEADLINE_SECONDS = 60.0
#: What is rendered is sent after this, before the rest of its batch is rendered. Seconds.
RENDER_SECONDS = 5.0
#: What was only read is left to the sweep after this, which dispatches it again before long. Seconds.
READ_SECONDS = 20.0


class Deliverer:
    """Delivers batches of ids. Thread-safe; one per process, with the providers of that process's event loop.

    Only `Router.route` decides whether a notification goes to a provider or to the simulator, by its `is_test`;
    no statement commits an attempt that contradicts it, and without an attempt there is no call. `stop` is set
    when the process must end. `late`: drives tasks whose answers take long; without it each keeps its thread.
    """

    def __init__(
        self,
        ledger: Ledger,
        composer: Composer,
        breaker: CircuitBreaker,
        caller: ProviderCaller,
        results: Results,
        settings: Settings,
        stop: Event | None = None,
        late: LateAnswers | None = None,
    ) -> None:
        self._ledger = ledger
        self._composer = composer
        self._router = Router(breaker, results, settings)
        self._caller = caller
        self._results = results
        self._settings = settings
        self._stop = stop
        self._late = late
        self._portions = BoundedSemaphore(PORTIONS_AT_ONCE)
        # Of mails with files: a server that is slow with them holds up nothing else.
        self._for_files = ThreadShare(settings.worker_threads // 2)

    def deliver(self, ids: Sequence[UUID], *, is_redelivered: bool = False) -> DeliverySummary:
        """Send those of `ids` that are queued; the others are done, or another worker's.

        `is_redelivered`: another worker had this task, and may have died of one of them.

        Raises:
            ServiceUnavailable: the database went away. What was claimed is tried again when its lease ends.
        """
        summary, rest, with_files = DeliverySummary(), ids, list[UUID]()
        if not is_redelivered and self._settings.lease_seconds > self._margin_seconds:
            queued = self._until_answered(lambda _: self._ledger.read_queued(ids))
            summary += self._run(DeliveryTask([Delivery(one, is_claimed=False) for one in queued.new]))
            rest, with_files = queued.others, queued.with_files
        if rest:
            summary += self._claim_and_run(rest, DeliveryTask([]))
        if with_files:
            with self._for_files.turn() as is_ours:
                if is_ours:
                    summary += self._claim_and_run(with_files, DeliveryTask([], has_file_turn=True))
                else:
                    # Nobody's yet: another thread or worker takes them, or this one later.
                    self._ledger.requeue_soon(with_files, seconds=AGAIN_SECONDS)
        return summary

    def _claim_and_run(self, ids: Sequence[UUID], task: DeliveryTask) -> DeliverySummary:
        claimed, task.begun = self._claim(ids, task)
        task.deliveries = [Delivery(one) for one in claimed]
        return self._run(task)

    def _run(self, task: DeliveryTask) -> DeliverySummary:
        """Drive it to its end, or until another thread does."""
        steps = self._steps(task)
        for awaited in steps:
            summary = task.summary
            if self._hand_over(steps, awaited, task):
                return summary
            awaited.wait()
        return task.summary

    def _hand_over(self, steps: Steps[None], awaited: Awaited, task: DeliveryTask) -> bool:
        """Whether another thread drives it from now on."""
        if self._late is None or not task.only_waits or not isinstance(awaited, OpenCalls):
            return False
        return not awaited.wait(awaited.begun + KEEP_THREAD_SECONDS) and self._late.take(steps, awaited)

    def _steps(self, task: DeliveryTask) -> Steps[None]:
        begun, deliveries = time.monotonic(), task.deliveries
        try:
            yield from self._deliver(task)
        except Exception as error:
            # What was not called is given back, so that this does not count as the death of a worker.
            unstarted = [delivery for delivery in deliveries if delivery.is_unstarted]
            log_failure("deliver.failed", error, count=len(unstarted))
            fault = Unavailable("not called: delivering it failed; see the log", reason=Reason.TECHNICAL_ERROR)
            self._give_back(unstarted, fault, task)
            raise
        finally:
            yield from task.writer.flush()
        summary = task.summary
        if summary.claimed:
            seconds = round(time.monotonic() - begun, 3)
            log.info("deliver.batch", count=summary.claimed, sent=summary.sent, seconds=seconds)

    def _claim(self, ids: Sequence[UUID], task: DeliveryTask) -> tuple[list[NotificationToSend], float]:
        """Those that were claimed, and when that was requested."""
        lease = self._settings.lease_seconds

        def claim(again: bool) -> tuple[list[NotificationToSend], float]:
            begun = time.monotonic()
            return self._ledger.claim(ids, lease_seconds=lease, token=task.token, again=again), begun

        return self._until_answered(claim)

    def _until_answered(self, work: Callable[[bool], T]) -> T:
        """Wait for a database that is away for a moment, as a lost task would wait for the sweep: as long as it
        may hold a claim, whose lease would have to end first; no longer if the process must end."""
        gives_up_at = time.monotonic() + max(CLAIM_DEADLINE_SECONDS, self._settings.lease_seconds)
        return until_answered(work, gives_up_at=gives_up_at, stop=self._stop)

    def _claim_read(self, deliveries: Sequence[Delivery], task: DeliveryTask) -> list[Delivery]:
        """Claim those that were only read. Returns those that are ours now."""
        read = {delivery.notification.id: delivery for delivery in deliveries if not delivery.is_claimed}
        claimed, _ = self._claim(list(read), task) if read else ([], 0.0)
        for one in claimed:
            delivery = read[one.id]
            delivery.notification, delivery.is_claimed = one, True
            if delivery.result is not None:
                delivery.result = replace(delivery.result, claim=one.claim)
        return [delivery for delivery in deliveries if delivery.is_claimed]

    def _deliver(self, task: DeliveryTask) -> Steps[None]:
        """Those without files at once, the others a portion at a time."""
        heavy = [delivery for delivery in task.deliveries if delivery.notification.attachments]
        light = [delivery for delivery in task.deliveries if not delivery.notification.attachments]
        yield from self._deliver_portion(light, {}, task, is_last=not heavy)
        if not heavy:
            return
        with nullcontext(True) if task.has_file_turn else self._for_files.turn() as is_ours:
            if is_ours:
                yield from self._deliver_files(heavy, task)
            else:
                self._give_back(heavy, not_called("others with files are being sent"), task)

    def _deliver_files(self, heavy: Sequence[Delivery], task: DeliveryTask) -> Steps[None]:
        files = Files(self._composer.attachments)
        for portion in files.portions(heavy):
            with self._portions:
                if self._has_time(portion, task):
                    yield from self._deliver_portion(portion, files.of(portion), task, is_last=False)

    def _has_time(self, deliveries: Sequence[Delivery], task: DeliveryTask) -> bool:
        """Whether calls for these claims may still begin. Otherwise they are given back at once: a lease that ends
        would count as the death of a worker."""
        if time.monotonic() <= self._start_by(task):
            return True
        self._give_back(deliveries, not_called(LEASE_NEARLY_OVER), task)
        return False

    def _deliver_portion(
        self,
        deliveries: Sequence[Delivery],
        files: Mapping[UUID, Attachment],
        task: DeliveryTask,
        *,
        is_last: bool,
    ) -> Steps[None]:
        """Those that take long to render in parts, so that none waits for the rendering of all."""
        begun, left = time.monotonic(), list(deliveries)
        while left:
            part = self._rendered(left, files)
            del left[: len(part)]
            task.only_waits = is_last and not left
            yield from self._deliver_part(part, task)
            if left and not left[0].is_claimed and time.monotonic() - begun > READ_SECONDS:
                return
            if left and left[0].is_claimed and not self._has_time(left, task):
                return

    def _rendered(self, deliveries: Sequence[Delivery], files: Mapping[UUID, Attachment]) -> list[Delivery]:
        """As many of them, from the first on, as are rendered within `RENDER_SECONDS`; at least one."""
        ends_at, rendered = time.monotonic() + RENDER_SECONDS, list[Delivery]()
        for delivery in deliveries:
            if rendered and time.monotonic() > ends_at:
                break
            self._prepare(delivery, files)
            rendered.append(delivery)
        return rendered

    def _deliver_part(self, deliveries: Sequence[Delivery], task: DeliveryTask) -> Steps[None]:
        prepared = [delivery for delivery in deliveries if delivery.result is None]
        self._router.route(prepared)
        self._end_uncalled([delivery for delivery in deliveries if delivery.result is not None], task)
        going = [delivery for delivery in prepared if delivery.result is None]
        while going:
            going = yield from self._attempt(going, task)
        for delivery in prepared:
            del delivery.content  # its files are large, and there may be more portions

    def _prepare(self, delivery: Delivery, files: Mapping[UUID, Attachment]) -> None:
        """Give it its content, or a result if that fails."""
        notification = delivery.notification
        try:
            delivery.content = self._composer.prepare(notification, files)
        except SendError as error:
            delivery.result = self._results.without_attempt(notification, error)
        except RenderingFailed as error:
            delivery.result = failed(notification, Reason.TEMPLATE_ERROR, str(error))
        except Exception as error:
            log_failure("deliver.prepare_failed", error, **notification.log_ids)
            delivery.result = failed(notification, Reason.TECHNICAL_ERROR, "preparing it failed; see the log")

    def _attempt(self, deliveries: Sequence[Delivery], task: DeliveryTask) -> Steps[list[Delivery]]:
        """One call each, to the first provider of its route. Returns those that go on to the next provider."""
        permitted = self._permit(deliveries, task)
        started = self._start(permitted, task)
        onward: list[Delivery] = []
        calls = self._caller.call(started, start_by=self._start_by(task))
        while calls.are_open:
            yield calls
            onward += self._record(calls.take(), task)
        # This round is written before the next calls for the same messages.
        yield from task.writer.flush()
        for delivery in onward:
            delivery.go_on()
        return onward

    def _permit(self, deliveries: Sequence[Delivery], task: DeliveryTask) -> list[Delivery]:
        """Those that may call now under the limits; the others wait for their turn."""
        permitted, later = self._caller.permits(deliveries)
        for delivery, wait_seconds in later:
            delivery.result = self._results.rate_limited(delivery.notification, wait_seconds)
        self._end_uncalled([delivery for delivery, _ in later], task)
        return permitted

    def _end_uncalled(self, deliveries: Sequence[Delivery], task: DeliveryTask) -> None:
        """Write results for which no provider was called now."""
        task.write(self._claim_read(deliveries, task), self._ledger.finish)

    def _start(self, deliveries: Sequence[Delivery], task: DeliveryTask) -> list[Delivery]:
        """Those whose attempt is recorded: only they may be called."""
        attempts = [
            NewAttempt(
                delivery.notification,
                delivery.provider,
                template_version=delivery.content.rendered.version,
                sender_address=delivery.content.sender,
                guard=delivery.content.guard,
                earlier=delivery.earlier,
            )
            for delivery in deliveries
        ]
        are_read = any(not delivery.is_claimed for delivery in deliveries)
        if are_read:
            task.begun = time.monotonic()
        for delivery in deliveries:
            delivery.is_claimed = True

        def start(again: bool) -> Mapping[UUID, Started | None]:
            margin = self._margin_seconds
            if not are_read:
                return self._ledger.start_attempts(attempts, margin_seconds=margin, again=again)
            lease = self._settings.lease_seconds
            return self._ledger.claim_and_start(
                attempts, token=task.token, lease_seconds=lease, margin_seconds=margin, again=again
            )

        begun = until_answered(start, gives_up_at=self._start_by(task))
        started = []
        for delivery in deliveries:
            attempt = begun.get(delivery.notification.id)
            if attempt is not None:
                delivery.attempt = attempt
                started.append(delivery)
        # Suppressed, or another worker's by now, and left alone; or no time is left for the call.
        left_out = [delivery for delivery in deliveries if delivery.notification.id not in begun]
        self._give_back(left_out, not_called(LEASE_NEARLY_OVER), task)
        for delivery in left_out:
            delivery.is_claimed = not are_read
        return started

    def _record(self, answered: Sequence[Delivery], task: DeliveryTask) -> list[Delivery]:
        """Write the results of these calls. Returns those that go on to the next provider."""
        for delivery in answered:
            self._router.settle(delivery)
        onward = [delivery for delivery in answered if goes_on(delivery)]
        final = [delivery for delivery in answered if not goes_on(delivery)]
        for delivery in onward:
            delivery.result = self._results.failed_attempt(delivery)
        for delivery in final:
            delivery.result = self._results.final(delivery)
        task.write(onward, self._ledger.note_failed_attempts)
        task.write(final, self._ledger.finish)
        self._router.learn(answered)
        count_attempts(answered)
        trace_attempts(answered)
        return onward

    def _give_back(self, deliveries: Sequence[Delivery], fault: SendError, task: DeliveryTask) -> None:
        """End the claims of those that are not called."""
        ours = self._claim_read(deliveries, task)
        for delivery in ours:
            delivery.result = self._results.not_called(delivery, fault)
        task.write(ours, partial(self._ledger.give_back, token=task.token))

    def _start_by(self, task: DeliveryTask) -> float:
        """The last moment to start a call."""
        return task.begun + self._settings.lease_seconds - self._margin_seconds

    @property
    def _margin_seconds(self) -> float:
        """Between the last moment to start a call and the end of its lease."""
        return self._settings.call_deadline_seconds + MARGIN_SECONDS
