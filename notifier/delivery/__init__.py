"""From ids to recorded results: claim → render → route → attempt → send → record. Plain Python; knows no Celery.

`deliver` leads a batch through every step and writes each one; `delivery` is what is known of one notification on
its way. `prepare` renders it, `router` and `circuit_breaker` choose its providers, `rate_limiter` says when,
`provider_calls` calls them on the process's event loop, `results` says what an answer means. `reconcile` looks up
what became of calls that ended without an answer; `sweep` issues tasks for whatever is due.
"""

from notifier.delivery.circuit_breaker import CircuitBreaker
from notifier.delivery.deliver import Deliverer, DeliverySummary
from notifier.delivery.reconcile import Reconciler
from notifier.feedback.receipt_polling import ReceiptPoller

__all__ = ["CircuitBreaker", "Deliverer", "DeliverySummary", "ReceiptPoller", "Reconciler"]
