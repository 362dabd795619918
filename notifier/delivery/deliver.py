"""Leads a batch of ids through delivery and writes every step.

Database work and rendering run in the calling thread; provider calls run on the process's event loop, all of a
batch at once, and their results are written as they come in.

Crash points. After the claim, before the attempt's row: the lease ends, no call was made, it is tried again.
After the attempt's row: nobody knows, the outcome is unknown; it is looked up where that is possible, then the
template's policy decides. After the result: done. No transaction is open during a call.

Answers that are lost, with the process alive. A claim is repeated with the token of this task, the beginning of
attempts for the same numbers, and each finds what it had done. If that is not to be had while there is time for
the call, nobody is called, and the claim is given back: an attempt that may stand open for it is closed as not
called. Results are kept until they are written: see `result_writer`.

A process that is told to end. What only waits for its claim gives up at once. That claim may be in the record
although its answer was lost: nobody was called for it, its lease ends, and the sweep finds it, as after a kill at
that moment. What is claimed is delivered, or given back, and its results are written, as long as the grace lasts.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from threading import BoundedSemaphore, Event
from uuid import UUID, uuid4

from notifier.config.logs import log, log_failure
from notifier.config.settings import Settings
from notifier.delivery.attachments import PORTIONS_AT_ONCE, Files
from notifier.delivery.circuit_breaker import Circuits
from notifier.delivery.failover import Routed, goes_on, new_attempt, no_route, onward_from
from notifier.delivery.prepare import Prepared, prepare
from notifier.delivery.provider_calls import LEASE_NEARLY_OVER, MARGIN_SECONDS, Call, Caller, not_called
from notifier.delivery.rate_limiter import Go, Pacer
from notifier.delivery.repeat import until_answered
from notifier.delivery.result_writer import ResultWriter
from notifier.delivery.results import Held, Results, failed, result_of
from notifier.domain.destinations import destination_of
from notifier.domain.errors import RenderingFailed, SendError, ServiceUnavailable, Unavailable
from notifier.domain.retry_policy import wait_for_circuit
from notifier.domain.routing import Candidate, Route
from notifier.domain.statuses import SIMULATOR, Channel, Reason
from notifier.providers.base import Attachment, Provider, Receipt
from notifier.rendering import Renderer
from notifier.security.recipient_hash import HashKey
from notifier.security.tokens import Tokens
from notifier.store.attachments import AttachmentRepository
from notifier.store.ledger import Ledger
from notifier.store.records import Claimed, DeliveryResult, NewAttempt, Started

#: A task waits so long for the database to come back, or as long as a lease if that is more, before it is left to
#: the sweep. Seconds.
CLAIM_DEADLINE_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of the ids of a task."""

    claimed: int = 0
    sent: int = 0
    other: int = 0


@dataclass(slots=True)
class _Task:
    """One batch on its way."""

    #: When its claims were asked for: their leases end no sooner than counted from then.
    begun: float
    #: By id: what is given back if this goes wrong.
    held: dict[UUID, Held]
    writer: ResultWriter = field(default_factory=ResultWriter)


class Deliverer:
    """Delivers batches of ids. Thread-safe; one a process, with the providers of that process's event loop.

    `providers` has the simulator beside the configured ones. Which of the two a notification goes to is decided in
    `_route_all` alone, by its mark; `start_attempts` commits no attempt that goes against the mark, and without
    one there is no call. `stop` is set when the process is to end.
    """

    def __init__(
        self,
        ledger: Ledger,
        renderer: Renderer,
        providers: Mapping[str, Provider],
        settings: Settings,
        hash_key: HashKey,
        tokens: Tokens,
        *,
        attachments: AttachmentRepository,
        circuits: Circuits,
        pacer: Pacer,
        caller: Caller,
        stop: Event | None = None,
    ) -> None:
        self._ledger = ledger
        self._renderer = renderer
        self._providers = providers
        self._settings = settings
        self._hash_key = hash_key
        self._tokens = tokens
        self._attachments = attachments
        self._portions = BoundedSemaphore(PORTIONS_AT_ONCE)
        self._circuits = circuits
        self._pacer = pacer
        self._caller = caller
        self._stop = stop
        self._results = Results(settings, providers, hash_key)

    def deliver(self, ids: Sequence[UUID]) -> Summary:
        """Send those of `ids` that are queued; the others are somebody else's or done.

        Raises:
            ServiceUnavailable: the database went away. What was claimed is tried again when its lease ends.
        """
        claims, begun = self._claim(ids)
        task = _Task(begun, {claim.id: Held(claim) for claim in claims})
        try:
            sent = self._deliver(claims, task)
        except Exception as error:
            # Not the death of a worker: for whom nobody is called is given back, so that it does not count as one.
            log_failure("deliver.failed", error, count=len(task.held))
            fault = Unavailable("not called: delivering it failed; see the log", reason=Reason.TECHNICAL_ERROR)
            self._give_back(list(task.held), fault, task)
            raise
        finally:
            task.writer.flush()
        if claims:
            log.info("deliver.batch", count=len(claims), sent=sent, seconds=round(time.monotonic() - begun, 3))
        return Summary(len(claims), sent, len(claims) - sent)

    def _claim(self, ids: Sequence[UUID]) -> tuple[list[Claimed], float]:
        """The claims, and when they were asked for: their leases end no sooner than counted from then.

        Waits for a database that is away for a moment: a task that is lost waits for the sweep. As long as it may
        hold something, whose lease would have to end first; no longer when the process is to end.
        """
        token, lease = uuid4(), self._settings.lease_seconds

        def claim(again: bool) -> tuple[list[Claimed], float]:
            begun = time.monotonic()
            return self._ledger.claim(ids, lease_seconds=lease, token=token, again=again), begun

        gives_up_at = time.monotonic() + max(CLAIM_DEADLINE_SECONDS, lease)
        return until_answered(claim, gives_up_at=gives_up_at, stop=self._stop)

    def _deliver(self, claims: Sequence[Claimed], task: _Task) -> int:
        heavy = [claim for claim in claims if claim.attachments]
        if not heavy:
            return self._deliver_portion(claims, {}, task)
        plain = [claim for claim in claims if not claim.attachments]
        sent = self._deliver_portion(plain, {}, task)
        files = Files(self._attachments)
        for portion in files.portions(heavy):
            with self._portions:
                if time.monotonic() <= self._start_by(task):
                    sent += self._deliver_portion(portion, files.of(portion), task)
                    continue
            # Given back at once: a lease that runs out would count as the death of a worker.
            self._give_back([claim.id for claim in portion], not_called(LEASE_NEARLY_OVER), task)
        return sent

    def _give_back(self, ids: Sequence[UUID], fault: SendError, task: _Task) -> None:
        """For these nobody is called."""
        task.writer.write([self._results.not_called(task.held[id_], fault) for id_ in ids], self._ledger.give_back)
        for id_ in ids:
            del task.held[id_]

    def _end(self, results: Sequence[DeliveryResult], task: _Task) -> None:
        """Write results of those for which no call was begun."""
        task.writer.write(results, self._ledger.finish)
        for result in results:
            del task.held[result.id]

    def _start_by(self, task: _Task) -> float:
        """The last moment to begin a call."""
        return task.begun + self._settings.lease_seconds - self._margin_seconds

    @property
    def _margin_seconds(self) -> float:
        """Between the last moment to begin a call and the end of its lease."""
        return self._settings.call_deadline_seconds + MARGIN_SECONDS

    def _deliver_portion(self, claims: Sequence[Claimed], files: Mapping[UUID, Attachment], task: _Task) -> int:
        prepared, ended = self._prepare_all(claims, files)
        routed, waiting = self._route_all(prepared)
        self._end(ended + waiting, task)
        sent = 0
        while routed:
            accepted, routed = self._attempt(routed, task)
            sent += accepted
        return sent

    def _prepare_all(
        self, claims: Sequence[Claimed], files: Mapping[UUID, Attachment]
    ) -> tuple[list[Prepared], list[DeliveryResult]]:
        prepared: list[Prepared] = []
        results: list[DeliveryResult] = []
        for claim in claims:
            try:
                prepared.append(
                    prepare(claim, self._renderer, self._settings, self._hash_key, self._tokens, files)
                )
            except SendError as error:
                results.append(self._results.without_attempt(claim, error))
            except RenderingFailed as error:
                results.append(failed(claim, Reason.TEMPLATE_ERROR, str(error)))
            except Exception as error:
                log_failure("deliver.prepare_failed", error, notification_id=str(claim.id))
                results.append(failed(claim, Reason.TECHNICAL_ERROR, "preparing it failed; see the log"))
        return prepared, results

    def _route_all(self, prepared: Sequence[Prepared]) -> tuple[list[Routed], list[DeliveryResult]]:
        """Those that can go now, and results for those that have to wait for a provider."""
        by_channel: defaultdict[Channel, list[Prepared]] = defaultdict(list)
        routed: list[Routed] = []
        for one in prepared:
            if one.claim.is_test:
                routed.append(Routed(one, (SIMULATOR,)))
            else:
                by_channel[one.claim.channel].append(one)
        waiting: list[DeliveryResult] = []
        for channel, ones in by_channel.items():
            candidates = [self._candidate(one) for one in ones]
            for one, found in zip(ones, self._circuits.routes(channel, candidates), strict=True):
                if found.providers:
                    routed.append(Routed(one, found.providers, found.probe, found.is_partial))
                else:
                    waiting.append(self._without_route(one, channel, found))
        return routed, waiting

    def _candidate(self, one: Prepared) -> Candidate:
        claim = one.claim
        situation = self._results.situation(claim, max(1, claim.tries))
        left = situation.seconds_left(self._settings.retry(claim.lane))
        return Candidate(
            claim.id, one.identity, left, situation.is_untried, destination_of(claim.channel, claim.recipient)
        )

    def _without_route(self, one: Prepared, channel: Channel, found: Route) -> DeliveryResult:
        claim, error = one.claim, no_route(one, channel, found)
        if found.reason in (Reason.NOT_CONFIGURED, Reason.OPERATOR):
            return self._results.without_attempt(claim, error)
        policy, situation = self._settings.retry(claim.lane), self._results.situation(claim, max(1, claim.tries))
        decision = wait_for_circuit(found.reason, found.wait_seconds, policy, situation)
        return result_of(claim, decision, error.detail)

    def _attempt(self, routed: Sequence[Routed], task: _Task) -> tuple[int, list[Routed]]:
        """One call for each, to the first provider of its route. Returns how many were accepted, and those that go
        on to their next provider."""
        turns, later = self._pacer.turns([(one.prepared, one.providers[0]) for one in routed])
        waits = [self._results.rate_limited(routed[index].prepared.claim, wait) for index, wait in later.items()]
        self._end(waits, task)
        goes = {routed[index].prepared.claim.id: (routed[index], go) for index, go in turns.items()}
        started = self._start([new_attempt(one) for one, _ in goes.values()], task)
        # They are suppressed, or somebody else's by now, and left alone; or there is no time for the call.
        left_out = [id_ for id_ in goes if id_ not in started]
        self._give_back(left_out, not_called(LEASE_NEARLY_OVER), task)
        calls = [self._call(*goes[id_], begun) for id_, begun in started.items()]
        chunks = self._caller.run(calls, start_by=self._start_by(task))
        for id_ in started:
            del task.held[id_]
        accepted = 0
        onward: list[Routed] = []
        for chunk in chunks:
            answered = [(self._settled(call), goes[call.started.id][0]) for call in chunk]
            moved = [(call, one) for call, one in answered if goes_on(call, one)]
            final = [(call, one) for call, one in answered if not goes_on(call, one)]
            failed_ones = [self._results.failed_attempt(call) for call, _ in moved]
            task.writer.write(failed_ones, self._ledger.note_failed_attempts)
            task.writer.write([self._results.final(call, one) for call, one in final], self._ledger.finish)
            self._learn([call for call, _ in answered])
            onward += [onward_from(call, one) for call, one in moved]
            accepted += sum(isinstance(call.answer, Receipt) for call, _ in final)
        # The answers of this round are written before there are others to the same messages.
        task.writer.flush()
        # If the next round cannot begin, these are given back, too.
        task.held.update({one.prepared.claim.id: Held(one.prepared.claim, one.earlier) for one in onward})
        return accepted, onward

    def _start(self, attempts: Sequence[NewAttempt], task: _Task) -> dict[UUID, Started]:
        def start(again: bool) -> dict[UUID, Started]:
            return self._ledger.start_attempts(attempts, margin_seconds=self._margin_seconds, again=again)

        return until_answered(start, gives_up_at=self._start_by(task))

    def _call(self, one: Routed, go: Go, started: Started) -> Call:
        name = one.providers[0]
        return Call(one.prepared, started, self._providers[name], name == one.probe, go)

    def _settled(self, call: Call) -> Call:
        try:
            return call if call.prepared.claim.is_test else self._circuits.settled(call)
        except ServiceUnavailable:
            # It stays in doubt, and waits.
            return call
        except Exception as error:
            log_failure("deliver.answer_not_settled", error, notification_id=str(call.started.id))
            return call

    def _learn(self, calls: Sequence[Call]) -> None:
        real = [call for call in calls if call.was_made and not call.prepared.claim.is_test]
        try:
            if real:
                self._circuits.note(real)
        except ServiceUnavailable:
            # Health is advice; the results themselves are written.
            log.warning("deliver.health_not_noted", count=len(calls))
        except Exception as error:
            log_failure("deliver.health_not_noted", error, count=len(calls))
