"""Celery's remote control: off, or read-only if NOTIFIER_WORKER_QUESTIONS turns it on.

Anybody with rights on the broker's exchange of commands can reach every worker, and Celery obeys: the worker ends,
stops reading a queue, or reads a producers' queue and drops all messages that are not tasks. Here a worker answers
the questions of Flower and `celery inspect`. It refuses everything else, with an answer and a line in the log.
"""

from __future__ import annotations

from typing import Any

from celery.app.control import Control
from celery.worker.control import Panel
from kombu.pidbox import Mailbox, Node

from notifier.config.logs import log

#: Commands that do not change what a worker does. `hello` is not one of them: it brings ids of tasks to drop.
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
    """The worker's side: answers questions and refuses everything else."""

    def handle(self, method: Any, arguments: Any = None) -> Any:
        if isinstance(method, str) and method in QUESTIONS:
            return super().handle(method, arguments)
        # The name may be logged if Celery knows it. A stranger's own words may not.
        known = isinstance(method, str) and method in Panel.data
        log.warning("worker.command_refused", reason=method if known else "no command of Celery's")
        return {"error": REFUSED}

    def reply(self, data: Any, exchange: Any, routing_key: Any, ticket: Any, **options: Any) -> None:
        """Answer only to the exchange for answers. The sender names it, and could name somebody else's queue."""
        if exchange != self.mailbox.reply_exchange.name:
            log.warning("worker.command_refused", reason="the answer was to go to another exchange")
            return
        super().reply(data, exchange, routing_key, ticket, **options)


class _Mailbox(Mailbox):  # type: ignore[misc]
    node_cls = QuestionsOnly


class QuestionsControl(Control):  # type: ignore[misc]  # Celery ships no types
    """`app.control`. On the client's side it is unchanged."""

    Mailbox = _Mailbox
