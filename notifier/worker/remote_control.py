"""Celery's remote control: off, or read-only where NOTIFIER_WORKER_QUESTIONS turns it on.

Anybody with rights on the broker's exchange of commands reaches every worker, and Celery obeys: it ends, stops
reading a queue, or reads a producers' queue and drops what is no task. Here a worker answers the questions of
Flower and `celery inspect`. It refuses everything else, with an answer and a line in the log.
"""

from __future__ import annotations

from typing import Any

from celery.app.control import Control
from celery.worker.control import Panel
from kombu.pidbox import Mailbox, Node

from notifier.config.logs import log

#: They do not change what a worker does. `hello` is not among them: it brings ids of tasks to be dropped.
QUESTIONS = frozenset(
    {
        "active", "active_queues", "clock", "conf", "ping", "query_task", "registered", "report", "reserved",
        "revoked", "scheduled", "stats",
        # Their former names.
        "dump_active", "dump_conf", "dump_reserved", "dump_revoked", "dump_schedule", "dump_tasks",
        # Flower asks for task events and a sign of life, which our workers send anyway.
        "enable_events", "heartbeat",
    }
)  # fmt: skip

REFUSED = "refused: the workers of notifier answer questions only; start and stop them where they run"


class QuestionsOnly(Node):  # type: ignore[misc]  # kombu's types are skipped
    """The worker's side: it answers questions and refuses everything else."""

    def handle(self, method: Any, arguments: Any = None) -> Any:
        if isinstance(method, str) and method in QUESTIONS:
            return super().handle(method, arguments)
        # Celery's own words may be logged, a stranger's not.
        known = isinstance(method, str) and method in Panel.data
        log.warning("worker.command_refused", reason=method if known else "no command of Celery's")
        return {"error": REFUSED}

    def reply(self, data: Any, exchange: Any, routing_key: Any, ticket: Any, **options: Any) -> None:
        """Only to the exchange for answers: the sender names it, and it could name somebody else's queue."""
        if exchange != self.mailbox.reply_exchange.name:
            log.warning("worker.command_refused", reason="the answer was to go to another exchange")
            return
        super().reply(data, exchange, routing_key, ticket, **options)


class _Mailbox(Mailbox):  # type: ignore[misc]
    node_cls = QuestionsOnly


class QuestionsControl(Control):  # type: ignore[misc]  # Celery ships no types
    """`app.control`. The client's side is Celery's own."""

    Mailbox = _Mailbox
