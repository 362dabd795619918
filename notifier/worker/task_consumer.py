"""Checks task messages before Celery sees them: foreign ones are dropped, with a line in the log.

Celery 5.7 checks little of what it reads. A body that is a list of two, a `timelimit` that is not a list or a task
without an id ends the worker; an `eta` in the year 9999 is kept, and a `link` of garbage is tried. Only we write
to the task queues, but anybody with rights on the broker can. So each message is checked, and only the form that
we publish passes. Nothing is lost, because tasks are published again from the record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from celery.app.task import Context
from celery.worker.consumer import Consumer

from notifier.broker import topology
from notifier.broker.redis_transport import CONNECTION_LOST as REDIS_LOST
from notifier.config.logs import CONSUMER_OUTAGE, log
from notifier.telemetry.liveness import LIVENESS, TURN_SECONDS

#: Larger messages are dropped; our own hold at most 100 ids. Bytes.
MAX_TASK_BYTES = 256 * 1024
MAX_TASK_IDS = 1000

#: Name of the consumer's loop in `telemetry.liveness`.
_LOOP = "tasks"

#: Headers of Celery features that we do not use: later tasks, groups, time limits, stamps.
_UNUSED = ("eta", "expires", "group", "group_index", "retries", "shadow", "stamped_headers", "stamps")
_NO_LIMITS = (None, [None, None], (None, None))
#: Headers that Celery 5.7 publishes and that mean nothing by themselves.
_KNOWN = frozenset({"task", "id", "timelimit", "ignore_result", "replaced_task_nesting"})
#: Headers whose values are texts.
_TEXTS = ("root_id", "parent_id", "argsrepr", "kwargsrepr", "origin", "lang")


class TaskConsumer(Consumer):  # type: ignore[misc]  # Celery ships no types
    """Celery's consumer, with a check in front of it."""

    _is_watched = False

    def on_ready(self) -> None:
        """Called when its loop begins. It begins again with each connection, while its timers go on."""
        LIVENESS.turned(_LOOP)
        CONSUMER_OUTAGE.is_over()
        if not self._is_watched:
            self._is_watched = True
            self.timer.call_repeatedly(TURN_SECONDS, LIVENESS.turned, (_LOOP,))
        super().on_ready()

    def ensure_connected(self, conn: Any) -> Any:
        """Return once there is a connection."""
        with LIVENESS.paused(_LOOP):
            return super().ensure_connected(conn)

    def create_task_handler(self, *arguments: Any, **options: Any) -> Callable[[Any], None]:
        handle = super().create_task_handler(*arguments, **options)
        lost = tuple(kind for kind in self.connection_errors if not issubclass(kind, LookupError))

        def on_task_received(message: Any) -> None:
            try:
                problem = _problem(message, self.app.tasks)
                if not problem:
                    handle(message)
                    return
            except (*lost, *REDIS_LOST):
                raise
            except Exception as error:
                problem = type(error).__name__
            self._drop(message, problem)

        return on_task_received

    def add_task_queue(self, queue: Any, *arguments: Any, **options: Any) -> None:
        """Allow only queues of work. On any other queue, messages that are not tasks, such as producers', would be
        dropped."""
        name = getattr(queue, "name", queue)
        if name not in {known.name for known in topology.work_queues()}:
            raise ValueError("a worker reads queues of work only")
        super().add_task_queue(queue, *arguments, **options)

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """Drop the message. Messages of remote control come here as well."""
        self._drop(message, type(exc).__name__)

    # Celery's own versions would log the contents of the message.

    def on_unknown_message(self, body: Any, message: Any) -> None:
        self._drop(message, "not a task")

    def on_unknown_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._drop(message, "an unknown task")

    def on_invalid_task(self, body: Any, message: Any, exc: Exception) -> None:
        self._drop(message, type(exc).__name__)

    def _drop(self, message: Any, reason: str) -> None:
        name = (message.delivery_info or {}).get("routing_key")
        # The routing key is what a stranger wrote, so it is not logged unless it names a queue of ours.
        if not isinstance(name, str) or name not in self.app.amqp.queues:
            name = getattr(message.channel, "last_queue", "another")
        size = len(message.body) if message.body is not None else 0
        log.warning("worker.message_dropped", queue=name, size=size, reason=reason)
        try:
            message.ack()
        except (*self.connection_errors, *REDIS_LOST) as error:
            if not isinstance(error, LookupError):
                raise
        except Exception as error:
            log.warning("worker.message_dropped", queue=name, error=type(error).__name__)


def _problem(message: Any, tasks: Mapping[str, Any]) -> str:
    """Why this message is not one of our tasks; "" if it is."""
    headers = message.headers
    task = headers.get("task") if isinstance(headers, dict) else None
    # Celery has tasks of its own that run other tasks.
    if not isinstance(task, str) or not task.startswith("notifier.") or task not in tasks:
        return "an unknown task"
    if not _is_text(headers.get("id")) or len(message.body) > MAX_TASK_BYTES:
        return "without an id, or too large"
    if any(headers.get(name) for name in _UNUSED) or headers.get("timelimit") not in _NO_LIMITS:
        return "asks for what no task of ours does"
    # Every header becomes an attribute of the running task, such as `callbacks`, `chord` and `called_directly`.
    if any(hasattr(Context, name) for name in headers.keys() - _KNOWN - {*_UNUSED, *_TEXTS}):
        return "a header that no task of ours has"
    if not all(headers.get(name) is None or _is_text(headers[name]) for name in _TEXTS):
        return "a header of the wrong type"
    if message.content_type != "application/json":
        return "not JSON"
    return _problem_of_body(message.decode(), tasks[task])


def _problem_of_body(body: Any, task: Any) -> str:
    if not isinstance(body, list) or len(body) != 3:
        return "not a task"
    arguments, named, embedded = body
    if named or (embedded and (not isinstance(embedded, dict) or any(embedded.values()))):
        return "asks for what no task of ours does"
    if not isinstance(arguments, list) or len(arguments) > 1:
        return "wrong arguments"
    task.__header__(*arguments)  # raises TypeError: too few or too many
    return "" if not arguments or _are_ids(arguments[0]) else "wrong arguments"


def _are_ids(value: Any) -> bool:
    if not isinstance(value, list) or len(value) > MAX_TASK_IDS:
        return False
    try:
        return all(isinstance(item, str) and UUID(item) for item in value)
    except ValueError:
        return False


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.isascii() and 0 < len(value) <= 2000
