"""From ids to recorded results: claim → render → attempt → send → record. Plain Python; knows no Celery.

Database work and rendering run in the calling thread; provider calls run on the process's event loop, all of a
batch at once, and their results are written as they come in.

Crash points. After the claim, before the attempt's row: the lease ends, no call was made, it is tried again.
After the attempt's row: nobody knows, the outcome is unknown and the template's policy decides. After the result:
done. No transaction is open during a call.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from queue import Empty, SimpleQueue
from uuid import UUID

from notifier.config import Settings
from notifier.errors import (
    NotFound,
    OutcomeUnknown,
    RenderingFailed,
    SendError,
    ServiceUnavailable,
    TemplateInvalid,
    Throttled,
    Unavailable,
)
from notifier.providers.base import Outgoing, Provider, Receipt
from notifier.rendering import Rendered, Renderer
from notifier.retrying import Decision, Situation, decide
from notifier.status import Channel, Outcome, Reason, Status
from notifier.store.ledger import Claimed, Ledger, Result, Started
from notifier.telemetry import log

#: Between the last moment to begin a call and the end of the lease, besides the call's own deadline. Seconds.
MARGIN_SECONDS = 5.0
#: Pauses between tries to write results while the database is away; the last one repeats. Seconds.
WRITE_PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)
#: After this long the results are given up: the leases are over and the outcomes count as unknown. Seconds.
WRITE_DEADLINE_SECONDS = 300.0


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of the ids of a task."""

    claimed: int = 0
    sent: int = 0
    other: int = 0


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A claim, rendered, with the identities it goes out under."""

    claim: Claimed
    rendered: Rendered
    sender: str
    reply_to: str | None

    def outgoing(self, number: int) -> Outgoing:
        return Outgoing(
            notification_id=self.claim.id,
            attempt=number,
            to=self.claim.recipient,
            sender=self.sender,
            text=self.rendered.text,
            subject=self.rendered.subject,
            html=self.rendered.html,
            locale=self.rendered.locale,
            reply_to=self.reply_to,
            expires_at=self.claim.expires_at,
        )


@dataclass(frozen=True, slots=True)
class _Call:
    """One attempt under way, and how it ended."""

    prepared: _Prepared
    started: Started
    answer: Receipt | SendError | None = None


class Deliverer:
    """Delivers batches of ids. Thread-safe; one a process, with the providers of that process's event loop."""

    def __init__(
        self,
        ledger: Ledger,
        renderer: Renderer,
        providers: Mapping[Channel, Sequence[Provider]],
        settings: Settings,
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._ledger = ledger
        self._renderer = renderer
        self._providers = providers
        self._settings = settings
        self._loop = loop
        self._slots = asyncio.Semaphore(settings.worker_calls)

    def deliver(self, ids: Sequence[UUID]) -> Summary:
        """Send those of `ids` that are queued; the others are somebody else's or done.

        Raises:
            ServiceUnavailable: the database went away. What was claimed is tried again when its lease ends.
        """
        begun = time.monotonic()
        claims = self._ledger.claim(ids, lease_seconds=self._settings.lease_seconds)
        prepared, results = self._prepare_all(claims)
        if results:
            self._ledger.finish(results)
        sent = 0
        position = 0
        while prepared:
            failed_over, accepted = self._attempt(prepared, position, begun)
            prepared, position = failed_over, position + 1
            sent += accepted
        if claims:
            log.info("deliver.batch", count=len(claims), sent=sent, seconds=round(time.monotonic() - begun, 3))
        return Summary(len(claims), sent, len(claims) - sent)

    def _prepare_all(self, claims: Sequence[Claimed]) -> tuple[list[_Prepared], list[Result]]:
        prepared, results = [], []
        for claim in claims:
            try:
                prepared.append(self._prepare(claim))
            except SendError as error:
                results.append(self._result(claim, decide_for(error, claim, self._settings), error.detail))
            except RenderingFailed as error:
                results.append(_failed(claim, Reason.TEMPLATE_ERROR, str(error)))
            except Exception:
                log.exception("deliver.prepare_failed", notification_id=str(claim.id))
                results.append(_failed(claim, Reason.TECHNICAL_ERROR, "preparing it failed; see the log"))
        return prepared, results

    def _prepare(self, claim: Claimed) -> _Prepared:
        if not self._providers.get(claim.channel):
            raise Unavailable(f"no provider for {claim.channel} is configured", reason=Reason.NOT_CONFIGURED)
        try:
            template = self._renderer.template(claim.channel, claim.template)
            rendered = self._renderer.render(claim.channel, claim.template, claim.locale, claim.context)
        except (NotFound, TemplateInvalid) as error:
            # It was there when the message was accepted: somebody is about to mend it.
            raise Unavailable(str(error), reason=Reason.TEMPLATE_ERROR) from error
        identity = self._settings.sender(claim.sender or template.sender)
        sender = identity.email if claim.channel is Channel.EMAIL else identity.sms
        if sender is None:
            raise Unavailable(f"no sender identity for {claim.channel}", reason=Reason.NOT_CONFIGURED)
        reply_to = self._settings.sender(claim.reply_to).email if claim.reply_to else None
        return _Prepared(claim, rendered, sender, reply_to)

    def _attempt(self, prepared: Sequence[_Prepared], position: int, begun: float) -> tuple[list[_Prepared], int]:
        """One call for each, to the provider at `position`. Returns those that go on to the next one, and how many
        were accepted."""
        provider_of = {p.claim.id: self._providers[p.claim.channel][position] for p in prepared}
        margin = self._settings.call_deadline_seconds + MARGIN_SECONDS
        started = self._ledger.start_attempts(
            [(p.claim, provider_of[p.claim.id].name) for p in prepared], margin_seconds=margin
        )
        calls = [_Call(p, started[p.claim.id]) for p in prepared if p.claim.id in started]
        failed_over: list[_Prepared] = []
        accepted = 0
        start_by = begun + self._settings.lease_seconds - margin
        for chunk in self._run(calls, provider_of, start_by):
            onward: list[_Call] = []
            final: list[_Call] = []
            for call in chunk:
                (onward if self._goes_on(call, position) else final).append(call)
            self._write([self._result_of(call, final=False) for call in onward], self._ledger.note_failed_attempts)
            self._write([self._result_of(call, final=True) for call in final], self._ledger.finish)
            failed_over += [call.prepared for call in onward]
            accepted += sum(isinstance(call.answer, Receipt) for call in final)
        return failed_over, accepted

    def _run(
        self, calls: Sequence[_Call], provider_of: Mapping[UUID, Provider], start_by: float
    ) -> Iterator[list[_Call]]:
        """Make all calls on the loop; yield them with their answers, as many at a time as have come in."""
        done: SimpleQueue[_Call] = SimpleQueue()
        asyncio.run_coroutine_threadsafe(self._call_all(calls, provider_of, start_by, done.put), self._loop)
        left = len(calls)
        while left:
            chunk = [done.get(timeout=self._settings.lease_seconds + MARGIN_SECONDS)]
            try:
                while True:
                    chunk.append(done.get_nowait())
            except Empty:
                left -= len(chunk)
            yield chunk

    async def _call_all(
        self,
        calls: Sequence[_Call],
        provider_of: Mapping[UUID, Provider],
        start_by: float,
        report: Callable[[_Call], None],
    ) -> None:
        await asyncio.gather(*(self._call(call, provider_of[call.started.id], start_by, report) for call in calls))

    async def _call(
        self, call: _Call, provider: Provider, start_by: float, report: Callable[[_Call], None]
    ) -> None:
        try:
            answer: Receipt | SendError = await self._send(call, provider, start_by)
        except SendError as error:
            answer = error
        except TimeoutError:
            answer = OutcomeUnknown("the provider did not answer in time")
        except Exception:
            # A bug in the provider's code, at a point we know nothing about.
            log.exception("deliver.provider_failed", provider=provider.name, notification_id=str(call.started.id))
            answer = SendError("the provider's code failed; see the log", reason=Reason.TECHNICAL_ERROR)
            answer.outcome = Outcome.UNKNOWN
        report(_Call(call.prepared, call.started, answer))

    async def _send(self, call: _Call, provider: Provider, start_by: float) -> Receipt:
        deadline = self._settings.call_deadline_seconds
        async with self._slots:
            if time.monotonic() > start_by:
                # Whoever comes next may hold it by the time we are through.
                raise Unavailable("not called: the lease was nearly over")
            # The provider keeps the deadline itself; this guards against one that does not.
            async with asyncio.timeout(deadline + MARGIN_SECONDS / 2):
                return await provider.send(call.prepared.outgoing(call.started.number), deadline_seconds=deadline)

    def _goes_on(self, call: _Call, position: int) -> bool:
        """Only what was surely not accepted may go to another provider."""
        has_next = position + 1 < len(self._providers[call.prepared.claim.channel])
        return has_next and isinstance(call.answer, Throttled | Unavailable)

    def _result_of(self, call: _Call, *, final: bool) -> Result:
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
            )
        error = answer or OutcomeUnknown("no answer")
        decision = decide_for(error, claim, self._settings) if final else Decision(Status.SENDING, error.reason)
        return self._result(claim, decision, error.detail, error, call.started.number)

    def _result(
        self,
        claim: Claimed,
        decision: Decision,
        detail: str,
        error: SendError | None = None,
        number: int | None = None,
    ) -> Result:
        return Result(
            claim.id,
            claim.claim,
            decision.status,
            reason=decision.reason,
            detail=detail,
            due_in_seconds=decision.due_in_seconds,
            number=number,
            outcome=error.outcome if error else None,
            code=(error.code or None) if error else None,
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


def decide_for(error: SendError, claim: Claimed, settings: Settings) -> Decision:
    """`retrying.decide` for this claim, now."""
    to_expiry = (claim.expires_at - datetime.now(UTC)).total_seconds() if claim.expires_at else None
    situation = Situation(
        attempt=claim.claim,
        age_seconds=claim.age_seconds,
        seconds_to_expiry=to_expiry,
        on_unknown=claim.on_unknown,
        jitter=random.random(),  # noqa: S311 - spreads load, keeps no secret
    )
    return decide(error, settings.retry(claim.lane), situation)


def _failed(claim: Claimed, reason: Reason, detail: str) -> Result:
    return Result(claim.id, claim.claim, Status.FAILED, reason=reason, detail=detail)
