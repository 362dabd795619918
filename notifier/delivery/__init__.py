"""Delivery: from the ids of a task to recorded results. Plain Python without Celery.

The steps are: render → route → claim and attempt → send → record. `deliver` takes a batch through every step and
writes each one. `delivery` holds what is known of one notification. `prepare` renders it, `router` and
`circuit_breaker` choose its providers, `rate_limiter` says when it may be sent, and `provider_calls` calls the
providers on the process's event loop. `late_answers` goes on with slow calls, and `results` says what an answer
means. `reconcile` looks up calls that ended without an answer. `sweep` dispatches whatever is due.
"""

from notifier.delivery.circuit_breaker import CircuitBreaker
from notifier.delivery.deliver import Deliverer
from notifier.delivery.reconcile import Reconciler
from notifier.delivery.task import DeliverySummary
from notifier.feedback.receipt_polling import ReceiptPoller

__all__ = ["CircuitBreaker", "Deliverer", "DeliverySummary", "ReceiptPoller", "Reconciler"]
