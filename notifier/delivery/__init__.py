"""From ids to recorded results: claim → render → route → attempt → send → record. Plain Python; knows no Celery.

`preparing` makes a claim ready to go, `circuits` knows which providers may be called, `calling` calls them on the
process's event loop, `delivering` leads the way and writes every step, `reconciling` looks up what became of calls
that ended without an answer, `asking` asks for receipts that never came.
"""

from notifier.delivery.circuit_breaker import Circuits
from notifier.delivery.deliver import Deliverer, DeliverySummary
from notifier.delivery.reconcile import Reconciler
from notifier.feedback.receipt_polling import Asker

__all__ = ["Asker", "Circuits", "Deliverer", "DeliverySummary", "Reconciler"]
