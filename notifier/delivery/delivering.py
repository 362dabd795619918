"""Leads a batch of ids through delivery and writes every step.

Database work and rendering run in the calling thread; provider calls run on the process's event loop, all of a
batch at once, and their results are written as they come in.

Crash points. After the claim, before the attempt's row: the lease ends, no call was made, it is tried again.
After the attempt's row: nobody knows, the outcome is unknown; it is looked up where that is possible, then the
template's policy decides. After the result: done. No transaction is open during a call.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from threading import BoundedSemaphore
from uuid import UUID

from notifier.config import Settings
from notifier.delivery.asking import first_wait
from notifier.delivery.attaching import PORTIONS_AT_ONCE, Files
from notifier.delivery.calling import MARGIN_SECONDS, Call, Caller
from notifier.delivery.circuits import Circuits
from notifier.delivery.failover import Routed, detail_of, goes_on, new_attempt, no_route, onward_from, to_decide
from notifier.delivery.pacing import Pacer
from notifier.delivery.preparing import Prepared, prepare
from notifier.delivery.suppressing import suppression_of
from notifier.domain.destinations import destination_of
from notifier.errors import (
    OutcomeUnknown,
    Rejected,
    RenderingFailed,
    SendError,
    ServiceUnavailable,
    Unavailable,
)
from notifier.hashing import HashKey
from notifier.providers.base import Attachment, Provider, Receipt, id_space
from notifier.rendering import Renderer
from notifier.retrying import Decision, Situation, decide, wait_for_circuit
from notifier.routing import Candidate, Route
from notifier.status import SIMULATOR, Channel, Outcome, Reason, Status
from notifier.store.attachments import AttachmentBook
from notifier.store.ledger import Ledger
from notifier.store.suppressions import NewSuppression
from notifier.store.values import Claimed, Result
from notifier.telemetry import log, log_failure
from notifier.tokens import Tokens

#: Pauses between tries to write results while the database is away; the last one repeats. Seconds.
WRITE_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
#: A task waits so long for the database to come back before it is left to the sweep. Seconds.
CLAIM_DEADLINE_SECONDS = 60.0
#: After this long the results are given up: the leases are over and the outcomes count as unknown. Seconds.
WRITE_DEADLINE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of the ids of a task."""

    claimed: int = 0
    sent: int = 0
    other: int = 0


class Deliverer:
    """Delivers batches of ids. Thread-safe; one a process, with the providers of that process's event loop.

    `providers` has the simulator beside the configured ones. Which of the two a notification goes to is decided in
    `_route_all` alone, by its mark; `start_attempts` commits no attempt that goes against the mark, and without
    one there is no call.
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
        attachments: AttachmentBook,
        circuits: Circuits,
        pacer: Pacer,
        caller: Caller,
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
        #: Provider → how long after it took a message its receipt is missed.
        self._waits = {name: first_wait(provider) for name, provider in providers.items()}
        self._id_spaces = {name: id_space(provider) for name, provider in providers.items()}

    def deliver(self, ids: Sequence[UUID]) -> Summary:
        """Send those of `ids` that are queued; the others are somebody else's or done.

        Raises:
            ServiceUnavailable: the database went away. What was claimed is tried again when its lease ends.
        """
        claims, begun = self._claim(ids)
        #: Claims for which nothing was written yet and no provider called.
        untouched = {claim.id: claim for claim in claims}
        try:
            sent = self._deliver(claims, untouched, begun)
        except Exception as error:
            # Not the death of a worker: what was not touched is given back, so that it does not count as one.
            log_failure("deliver.failed", error, count=len(untouched))
            fault = Unavailable("delivering it failed; see the log", reason=Reason.TECHNICAL_ERROR)
            self._write([self._without_attempt(claim, fault) for claim in untouched.values()], self._ledger.finish)
            raise
        if claims:
            log.info("deliver.batch", count=len(claims), sent=sent, seconds=round(time.monotonic() - begun, 3))
        return Summary(len(claims), sent, len(claims) - sent)

    def _claim(self, ids: Sequence[UUID]) -> tuple[list[Claimed], float]:
        """The claims, and when they were asked for: their leases end no sooner than counted from then.

        Waits for a database that is away for a moment: a task that is lost waits for the sweep.
        """
        gives_up_at = time.monotonic() + CLAIM_DEADLINE_SECONDS
        tries = 0
        while True:
            begun = time.monotonic()
            try:
                return self._ledger.claim(ids, lease_seconds=self._settings.lease_seconds), begun
            except ServiceUnavailable:
                if time.monotonic() > gives_up_at:
                    raise
                time.sleep(WRITE_PAUSES[min(tries, len(WRITE_PAUSES) - 1)])
                tries += 1

    def _deliver(self, claims: Sequence[Claimed], untouched: dict[UUID, Claimed], begun: float) -> int:
        heavy = [claim for claim in claims if claim.attachments]
        if not heavy:
            return self._deliver_portion(claims, {}, untouched, begun)
        plain = [claim for claim in claims if not claim.attachments]
        sent = self._deliver_portion(plain, {}, untouched, begun)
        files = Files(self._attachments)
        for portion in files.portions(heavy):
            with self._portions:
                if time.monotonic() <= begun + self._settings.lease_seconds - self._margin_seconds:
                    sent += self._deliver_portion(portion, files.of(portion), untouched, begun)
                    continue
            # Given back at once: a lease that runs out would count as the death of a worker.
            late = Unavailable("not called: the lease was nearly over", reason=Reason.LEASE_EXPIRED)
            self._write([self._without_attempt(claim, late) for claim in portion], self._ledger.finish)
            for claim in portion:
                del untouched[claim.id]
        return sent

    @property
    def _margin_seconds(self) -> float:
        """Between the last moment to begin a call and the end of its lease."""
        return self._settings.call_deadline_seconds + MARGIN_SECONDS

    def _deliver_portion(
        self,
        claims: Sequence[Claimed],
        files: Mapping[UUID, Attachment],
        untouched: dict[UUID, Claimed],
        begun: float,
    ) -> int:
        prepared, ended = self._prepare_all(claims, files)
        routed, waiting = self._route_all(prepared)
        self._write(ended + waiting, self._ledger.finish)
        for result in ended + waiting:
            del untouched[result.id]
        sent = 0
        while routed:
            accepted, routed = self._attempt(routed, untouched, begun)
            sent += accepted
        return sent

    def _prepare_all(
        self, claims: Sequence[Claimed], files: Mapping[UUID, Attachment]
    ) -> tuple[list[Prepared], list[Result]]:
        prepared: list[Prepared] = []
        results: list[Result] = []
        for claim in claims:
            try:
                prepared.append(
                    prepare(claim, self._renderer, self._settings, self._hash_key, self._tokens, files)
                )
            except SendError as error:
                results.append(self._without_attempt(claim, error))
            except RenderingFailed as error:
                results.append(_failed(claim, Reason.TEMPLATE_ERROR, str(error)))
            except Exception as error:
                log_failure("deliver.prepare_failed", error, notification_id=str(claim.id))
                results.append(_failed(claim, Reason.TECHNICAL_ERROR, "preparing it failed; see the log"))
        return prepared, results

    def _route_all(self, prepared: Sequence[Prepared]) -> tuple[list[Routed], list[Result]]:
        """Those that can go now, and results for those that have to wait for a provider."""
        by_channel: defaultdict[Channel, list[Prepared]] = defaultdict(list)
        routed: list[Routed] = []
        for one in prepared:
            if one.claim.is_test:
                routed.append(Routed(one, (SIMULATOR,)))
            else:
                by_channel[one.claim.channel].append(one)
        waiting: list[Result] = []
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
        situation = self._situation(claim, max(1, claim.tries))
        left = situation.seconds_left(self._settings.retry(claim.lane))
        return Candidate(
            claim.id, one.identity, left, situation.is_untried, destination_of(claim.channel, claim.recipient)
        )

    def _without_route(self, one: Prepared, channel: Channel, found: Route) -> Result:
        claim, error = one.claim, no_route(one, channel, found)
        if found.reason in (Reason.NOT_CONFIGURED, Reason.OPERATOR):
            return self._without_attempt(claim, error)
        policy, situation = self._settings.retry(claim.lane), self._situation(claim, max(1, claim.tries))
        return _result(claim, wait_for_circuit(found.reason, found.wait_seconds, policy, situation), error.detail)

    def _attempt(
        self, routed: Sequence[Routed], untouched: dict[UUID, Claimed], begun: float
    ) -> tuple[int, list[Routed]]:
        """One call for each, to the first provider of its route. Returns how many were accepted, and those that go
        on to their next provider."""
        turns, later = self._pacer.turns([(one.prepared, one.providers[0]) for one in routed])
        if later:
            waits = [self._rate_limited(routed[index].prepared.claim, wait) for index, wait in later.items()]
            self._write(waits, self._ledger.finish)
            for result in waits:
                untouched.pop(result.id, None)
        goes = [index for index in range(len(routed)) if index in turns]
        margin = self._margin_seconds
        started = self._ledger.start_attempts(
            [new_attempt(routed[index]) for index in goes], margin_seconds=margin
        )
        for id_ in started:
            untouched.pop(id_, None)
        by_id = {routed[index].prepared.claim.id: routed[index] for index in goes}
        calls = [
            Call(
                one.prepared,
                started[one.prepared.claim.id],
                self._providers[one.providers[0]],
                one.providers[0] == one.probe,
                turns[index],
            )
            for index, one in ((index, routed[index]) for index in goes)
            if one.prepared.claim.id in started
        ]
        accepted = 0
        onward: list[Routed] = []
        for chunk in self._caller.run(calls, start_by=begun + self._settings.lease_seconds - margin):
            answered = [self._settled(call) for call in chunk]
            moved = [call for call in answered if goes_on(call, by_id[call.started.id])]
            final = [call for call in answered if not goes_on(call, by_id[call.started.id])]
            self._write([self._result_of(call, None) for call in moved], self._ledger.note_failed_attempts)
            self._write([self._final(call, by_id[call.started.id]) for call in final], self._ledger.finish)
            self._learn(answered)
            onward += [onward_from(call, by_id[call.started.id]) for call in moved]
            # Their attempts are closed: if the next round cannot begin, these are given back, too.
            untouched.update({call.started.id: call.prepared.claim for call in moved})
            accepted += sum(isinstance(call.answer, Receipt) for call in final)
        return accepted, onward

    def _settled(self, call: Call) -> Call:
        try:
            return call if call.prepared.claim.is_test else self._circuits.settled(call)
        except ServiceUnavailable:
            # It stays in doubt, and waits.
            return call

    def _learn(self, calls: Sequence[Call]) -> None:
        real = [call for call in calls if not call.prepared.claim.is_test]
        try:
            if real:
                self._circuits.note(real)
        except ServiceUnavailable:
            # Health is advice; the results themselves are written.
            log.warning("deliver.health_not_noted", count=len(calls))

    def _final(self, call: Call, routed: Routed) -> Result:
        if not isinstance(call.answer, SendError):
            return self._result_of(call, None)
        claim = call.prepared.claim
        calls = claim.tries + call.started.number - claim.attempt_count
        return self._result_of(call, self._decide(to_decide(call.answer, routed), claim, calls))

    def _result_of(self, call: Call, decision: Decision | None) -> Result:
        """`decision`: where it goes after an answer that is none of acceptance; None: on to its next provider."""
        claim, answer = call.prepared.claim, call.answer
        if isinstance(answer, Receipt):
            return Result(
                claim.id,
                claim.claim,
                Status.SENT,
                detail=answer.detail or None,
                template_version=call.prepared.rendered.version,
                number=call.started.number,
                outcome=Outcome.ACCEPTED,
                provider=call.started.provider,
                provider_message_id=answer.provider_message_id,
                id_space=self._id_spaces[call.started.provider],
                due_in_seconds=self._waits[call.started.provider],
            )
        error = answer or OutcomeUnknown("no answer")
        decision = decision or Decision(Status.SENDING, error.reason)
        return Result(
            claim.id,
            claim.claim,
            decision.status,
            reason=decision.reason,
            detail=detail_of(claim, error),
            due_in_seconds=decision.due_in_seconds,
            number=call.started.number,
            outcome=error.outcome,
            code=error.code or None,
            subject=error.subject,
            suppression=self._suppression(call, error),
        )

    def _suppression(self, call: Call, error: SendError) -> NewSuppression | None:
        if not isinstance(error, Rejected):
            return None
        prepared = call.prepared
        return suppression_of(prepared.claim, prepared.guard, error, call.started.provider, self._hash_key)

    def _without_attempt(self, claim: Claimed, error: SendError) -> Result:
        return _result(claim, self._decide(error, claim, max(1, claim.tries)), error.detail)

    def _decide(self, error: SendError, claim: Claimed, calls: int) -> Decision:
        return decide(error, self._settings.retry(claim.lane), self._situation(claim, calls))

    def _situation(self, claim: Claimed, calls: int) -> Situation:
        return Situation(
            attempt=calls,
            age_seconds=claim.age_seconds,
            seconds_to_expiry=claim.seconds_to_expiry_now(),
            jitter=random.random(),  # noqa: S311 - spreads load, keeps no secret
            is_untried=claim.tries == 0,
        )

    def _rate_limited(self, claim: Claimed, wait_seconds: float) -> Result:
        """It waits for its turn, however long: a limit of ours fails nothing but what expires meanwhile."""
        left = claim.seconds_to_expiry_now()
        if left is not None and wait_seconds >= left:
            return Result(claim.id, claim.claim, Status.EXPIRED, reason=Reason.RATE_LIMITED)
        return Result(
            claim.id,
            claim.claim,
            Status.RETRYING,
            reason=Reason.RATE_LIMITED,
            detail="waits for its turn under a limit",
            due_in_seconds=wait_seconds,
        )

    def _write(self, results: Sequence[Result], write: Callable[[Sequence[Result]], None]) -> None:
        """Write results, waiting for the database if it is away: a result that is lost is an unknown outcome."""
        gives_up_at = time.monotonic() + WRITE_DEADLINE_SECONDS
        tries = 0
        while results:
            try:
                write(results)
            except ServiceUnavailable:
                if time.monotonic() > gives_up_at:
                    raise
                log.warning("deliver.results_wait", count=len(results))
                time.sleep(WRITE_PAUSES[min(tries, len(WRITE_PAUSES) - 1)])
                tries += 1
            else:
                return


def _result(claim: Claimed, decision: Decision, detail: str) -> Result:
    return Result(
        claim.id,
        claim.claim,
        decision.status,
        reason=decision.reason,
        detail=detail,
        due_in_seconds=decision.due_in_seconds,
    )


def _failed(claim: Claimed, reason: Reason, detail: str) -> Result:
    return Result(claim.id, claim.claim, Status.FAILED, reason=reason, detail=detail)
