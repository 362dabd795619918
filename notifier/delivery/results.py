"""What a claim comes to: from an answer, or without a call."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, replace

from notifier.config.logs import log_failure
from notifier.config.settings import Settings
from notifier.delivery.failover import Routed, detail_of, to_decide
from notifier.delivery.provider_calls import Call
from notifier.delivery.suppression import suppression_of
from notifier.domain.errors import OutcomeUnknown, Rejected, SendError
from notifier.domain.retry_policy import MIN_PAUSE_SECONDS, UNKNOWN_AFTER_SECONDS, Decision, Situation, decide
from notifier.domain.statuses import Outcome, Reason, Status
from notifier.feedback.receipt_polling import first_wait
from notifier.providers.base import Provider, Receipt, id_space
from notifier.security.recipient_hash import HashKey
from notifier.store.records import Claimed, DeliveryResult, NewSuppression


@dataclass(frozen=True, slots=True)
class Held:
    """A claim of ours under which no call is under way."""

    claim: Claimed
    #: Calls that were made under it.
    earlier: int = 0


class Results:
    """Makes them. Thread-safe: it holds nothing that changes."""

    def __init__(self, settings: Settings, providers: Mapping[str, Provider], hash_key: HashKey) -> None:
        self._settings = settings
        self._hash_key = hash_key
        #: Provider → how long after it took a message its receipt is missed.
        self._waits = {name: first_wait(provider) for name, provider in providers.items()}
        self._id_spaces = {name: id_space(provider) for name, provider in providers.items()}

    def final(self, call: Call, routed: Routed) -> DeliveryResult:
        """Of an answer that ends this delivery. Never raises: an answer that nobody can make sense of is kept as
        what it surely is."""
        try:
            return self._final(call, routed)
        except Exception as error:
            log_failure("deliver.answer_not_understood", error, notification_id=str(call.started.id))
            return _plain(call)

    def failed_attempt(self, call: Call) -> DeliveryResult:
        """Of an answer after which its next provider is called."""
        answer = call.answer if isinstance(call.answer, SendError) else OutcomeUnknown("no answer")
        try:
            return self._of_error(call, answer, Decision(Status.SENDING, answer.reason))
        except Exception as error:
            log_failure("deliver.answer_not_understood", error, notification_id=str(call.started.id))
            return replace(_plain(call), status=Status.SENDING)

    def without_attempt(self, claim: Claimed, error: SendError) -> DeliveryResult:
        """For which no call was begun."""
        return result_of(claim, self._decide(error, claim, max(1, claim.tries)), error.detail)

    def not_called(self, held: Held, error: SendError) -> DeliveryResult:
        """For which a call may have been begun, and surely was not made: see `Ledger.give_back`."""
        number = held.claim.attempt_count + held.earlier + 1
        return replace(self.without_attempt(held.claim, error), number=number)

    def rate_limited(self, claim: Claimed, wait_seconds: float) -> DeliveryResult:
        """It waits for its turn, however long: a limit of ours fails nothing but what expires meanwhile."""
        left = claim.seconds_to_expiry_now()
        if left is not None and wait_seconds >= left:
            return DeliveryResult(claim.id, claim.claim, Status.EXPIRED, reason=Reason.RATE_LIMITED)
        decision = Decision(Status.RETRYING, Reason.RATE_LIMITED, wait_seconds)
        return result_of(claim, decision, "waits for its turn under a limit")

    def situation(self, claim: Claimed, calls: int) -> Situation:
        """What a decision about it depends on; `calls`: those for it so far."""
        return Situation(
            attempt=calls,
            age_seconds=claim.age_seconds,
            seconds_to_expiry=claim.seconds_to_expiry_now(),
            jitter=random.random(),  # noqa: S311 - spreads load, keeps no secret
            is_untried=claim.tries == 0,
        )

    def _final(self, call: Call, routed: Routed) -> DeliveryResult:
        claim, answer = call.prepared.claim, call.answer
        if isinstance(answer, Receipt):
            return self._accepted(call, answer)
        answer = answer or OutcomeUnknown("no answer")
        calls = claim.tries + call.started.number - claim.attempt_count
        return self._of_error(call, answer, self._decide(to_decide(answer, routed), claim, calls))

    def _accepted(self, call: Call, receipt: Receipt) -> DeliveryResult:
        claim, provider = call.prepared.claim, call.started.provider
        return DeliveryResult(
            claim.id,
            claim.claim,
            Status.SENT,
            detail=receipt.detail or None,
            template_version=call.prepared.rendered.version,
            number=call.started.number,
            outcome=Outcome.ACCEPTED,
            provider=provider,
            provider_message_id=receipt.provider_message_id,
            id_space=self._id_spaces[provider],
            due_in_seconds=self._waits[provider],
        )

    def _of_error(self, call: Call, error: SendError, decision: Decision) -> DeliveryResult:
        return replace(
            result_of(call.prepared.claim, decision, detail_of(call.prepared.claim, error)),
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

    def _decide(self, error: SendError, claim: Claimed, calls: int) -> Decision:
        return decide(error, self._settings.retry(claim.lane), self.situation(claim, calls))


def result_of(claim: Claimed, decision: Decision, detail: str) -> DeliveryResult:
    """Where the claim goes."""
    return DeliveryResult(
        claim.id,
        claim.claim,
        decision.status,
        reason=decision.reason,
        detail=detail,
        due_in_seconds=decision.due_in_seconds,
    )


def failed(claim: Claimed, reason: Reason, detail: str) -> DeliveryResult:
    """It is given up without a call."""
    return result_of(claim, Decision(Status.FAILED, reason), detail)


def _plain(call: Call) -> DeliveryResult:
    """No more than whether its provider took it."""
    claim, started = call.prepared.claim, call.started
    outcome = Outcome.ACCEPTED if isinstance(call.answer, Receipt) else getattr(call.answer, "outcome", None)
    match outcome:
        case Outcome.ACCEPTED:
            decision = Decision(Status.SENT, Reason.TECHNICAL_ERROR)
        case Outcome.THROTTLED | Outcome.UNAVAILABLE:
            decision = Decision(Status.RETRYING, Reason.TECHNICAL_ERROR, 60 * MIN_PAUSE_SECONDS)
        case Outcome.REJECTED:
            decision = Decision(Status.FAILED, Reason.TECHNICAL_ERROR)
        case _:
            outcome = Outcome.UNKNOWN
            decision = Decision(Status.UNKNOWN, Reason.OUTCOME_UNKNOWN, UNKNOWN_AFTER_SECONDS)
    detail = "its answer was not understood; see the log"
    is_sent = outcome is Outcome.ACCEPTED
    return replace(
        result_of(claim, decision, detail),
        reason=None if is_sent else decision.reason,
        number=started.number,
        outcome=outcome,
        provider=started.provider if is_sent else None,
    )
