"""Turns an answer, or the lack of a call, into the result of a delivery."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import replace

from notifier.config.logs import log_failure
from notifier.config.settings import Settings
from notifier.delivery.delivery import Delivery
from notifier.delivery.failover import detail_of, to_decide
from notifier.delivery.suppression import suppression_of
from notifier.domain.errors import OutcomeUnknown, Rejected, SendError
from notifier.domain.retry_policy import MIN_PAUSE_SECONDS, UNKNOWN_AFTER_SECONDS, Decision, Situation, decide
from notifier.domain.statuses import Outcome, Reason, Status
from notifier.feedback.receipt_polling import first_wait
from notifier.providers.base import Provider, Receipt, id_space
from notifier.security.recipient_hash import HashKey
from notifier.store.records import DeliveryResult, NewSuppression, NotificationToSend


class Results:
    """Turns answers into results. Thread-safe."""

    def __init__(self, settings: Settings, providers: Mapping[str, Provider], hash_key: HashKey) -> None:
        self._settings = settings
        self._hash_key = hash_key
        #: Provider → seconds after which its receipt counts as missing.
        self._waits = {name: first_wait(provider) for name, provider in providers.items()}
        self._id_spaces = {name: id_space(provider) for name, provider in providers.items()}

    def final(self, delivery: Delivery) -> DeliveryResult:
        """The result of an answer that ends this delivery. Never raises: of an answer that cannot be understood,
        the certain part is kept."""
        try:
            return self._final(delivery)
        except Exception as error:
            log_failure("deliver.answer_not_understood", error, **delivery.notification.log_ids)
            return _plain(delivery)

    def failed_attempt(self, delivery: Delivery) -> DeliveryResult:
        """The result of an answer after which the next provider is called."""
        answer = delivery.answer if isinstance(delivery.answer, SendError) else OutcomeUnknown("no answer")
        try:
            return self._of_error(delivery, answer, Decision(Status.SENDING, answer.reason))
        except Exception as error:
            log_failure("deliver.answer_not_understood", error, **delivery.notification.log_ids)
            return replace(_plain(delivery), status=Status.SENDING)

    def without_attempt(self, notification: NotificationToSend, error: SendError) -> DeliveryResult:
        """The result of a notification for which no call was started."""
        return result_of(notification, self._decide(error, notification, max(1, notification.tries)), error.detail)

    def not_called(self, delivery: Delivery, error: SendError) -> DeliveryResult:
        """The result of a call that may have been started but was surely not made: see `Ledger.give_back`."""
        number = delivery.notification.attempt_count + delivery.earlier + 1
        return replace(self.without_attempt(delivery.notification, error), number=number)

    def rate_limited(self, notification: NotificationToSend, wait_seconds: float) -> DeliveryResult:
        """It waits for its turn, however long that takes: our own limits fail only what expires while it waits."""
        left = notification.seconds_to_expiry_now()
        if left is not None and wait_seconds >= left:
            return DeliveryResult(notification.id, notification.claim, Status.EXPIRED, reason=Reason.RATE_LIMITED)
        decision = Decision(Status.RETRYING, Reason.RATE_LIMITED, wait_seconds)
        return result_of(notification, decision, "waits for its turn under a limit")

    def situation(self, notification: NotificationToSend, calls: int) -> Situation:
        """What a retry decision about it depends on. `calls`: number of calls made for it so far."""
        return Situation(
            attempt=calls,
            age_seconds=notification.age_seconds,
            seconds_to_expiry=notification.seconds_to_expiry_now(),
            jitter=random.random(),  # noqa: S311 - spreads load, keeps no secret
            is_untried=notification.tries == 0,
        )

    def _final(self, delivery: Delivery) -> DeliveryResult:
        notification, answer = delivery.notification, delivery.answer
        if isinstance(answer, Receipt):
            return self._accepted(delivery, answer)
        answer = answer or OutcomeUnknown("no answer")
        calls = notification.tries + delivery.attempt.number - notification.attempt_count
        decision = self._decide(to_decide(answer, has_hope=delivery.has_hope), notification, calls)
        return self._of_error(delivery, answer, decision)

    def _accepted(self, delivery: Delivery, receipt: Receipt) -> DeliveryResult:
        notification, provider = delivery.notification, delivery.attempt.provider
        return DeliveryResult(
            notification.id,
            notification.claim,
            Status.SENT,
            detail=receipt.detail or None,
            template_version=delivery.content.rendered.version,
            number=delivery.attempt.number,
            outcome=Outcome.ACCEPTED,
            provider=provider,
            provider_message_id=receipt.provider_message_id,
            id_space=self._id_spaces[provider],
            due_in_seconds=self._waits[provider],
        )

    def _of_error(self, delivery: Delivery, error: SendError, decision: Decision) -> DeliveryResult:
        return replace(
            result_of(delivery.notification, decision, detail_of(delivery.notification, error)),
            number=delivery.attempt.number,
            outcome=error.outcome,
            # The last provider called: a notification that ends without another call shows where it failed.
            provider=delivery.attempt.provider,
            code=error.code or None,
            subject=error.subject,
            suppression=self._suppression(delivery, error),
        )

    def _suppression(self, delivery: Delivery, error: SendError) -> NewSuppression | None:
        if not isinstance(error, Rejected):
            return None
        notification, guard = delivery.notification, delivery.content.guard
        return suppression_of(notification, guard, error, delivery.attempt.provider, self._hash_key)

    def _decide(self, error: SendError, notification: NotificationToSend, calls: int) -> Decision:
        return decide(error, self._settings.retry(notification.lane), self.situation(notification, calls))


def result_of(notification: NotificationToSend, decision: Decision, detail: str) -> DeliveryResult:
    return DeliveryResult(
        notification.id,
        notification.claim,
        decision.status,
        reason=decision.reason,
        detail=detail,
        due_in_seconds=decision.due_in_seconds,
    )


def failed(notification: NotificationToSend, reason: Reason, detail: str) -> DeliveryResult:
    return result_of(notification, Decision(Status.FAILED, reason), detail)


def _plain(delivery: Delivery) -> DeliveryResult:
    """A result that says only whether the provider took the message."""
    notification, started = delivery.notification, delivery.attempt
    outcome = Outcome.ACCEPTED if delivery.is_accepted else getattr(delivery.answer, "outcome", None)
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
    return replace(
        result_of(notification, decision, detail),
        reason=None if outcome is Outcome.ACCEPTED else decision.reason,
        number=started.number,
        outcome=outcome,
        provider=started.provider,
    )
