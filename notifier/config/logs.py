"""Structured logs: a line is the name of an event plus fields, and only the fields listed here are ever written.

The list has no field for a body, a context, an address or a number, so none can get into a log by mistake.
"""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Mapping, MutableMapping
from threading import Lock
from typing import Any

from notifier.config.imports import without
from notifier.domain.errors import ServiceUnavailable

# structlog would import rich, an eighth of a command's start, for coloured tracebacks that we never write.
with without("rich"):
    import structlog

#: The fields that a line may have. All others are replaced by "(hidden)".
FIELDS = frozenset(
    {
        "event", "level", "timestamp", "logger", "exception", "program", "pid",
        "notification_id", "attempt", "claim", "channel", "lane", "queue", "template", "version", "provider",
        "producer", "status", "outcome", "reason", "code", "error", "count", "accepted", "duplicates", "rejected",
        "sent", "failed", "seconds", "lanes", "broker", "host", "port", "partitions", "consumer", "signal",
        "lost", "size", "redacted", "deleted", "wiped", "scope", "bounced", "step", "trace_id", "recurring", "job",
        "method", "route",
    }
)  # fmt: skip

#: Libraries whose INFO lines contain addresses, URLs or arguments. Celery and Beat log every task: thousands of
#: lines a minute, while the record says more.
_QUIET = (
    "twilio",
    "aiosmtplib",
    "amqp",
    "kombu",
    "aiohttp",
    "alembic",
    "urllib3",
    "celery.app.trace",
    "celery.beat",
    "celery.worker.strategy",
)

#: Libraries whose lines and tracebacks quote what strangers wrote.
_SILENT = ("mail.log", "flufl.bounce", "opentelemetry.exporter")

#: Libraries that quote some messages, and how those lines begin.
_QUOTING = ("celery.worker.pidbox", "kombu.pidbox", "kombu.transport.redis")
_QUOTES = (
    "Control command error",
    "No such control command",
    "pidbox command error",
    "pidbox received method",
    "Cannot process event on channel",
    "Could not restore message",
)

#: Logs, as critical and with a traceback, that Celery could not acknowledge or return a task.
_ACKNOWLEDGING = "celery.worker.request"
#: Logs, with a traceback, that a task ended in an error.
_TASK_ERRORS = "celery.app.trace"
#: Where it says, each time it tries, that it has no connection to the broker; and how those lines begin.
_CONSUMER = "celery.worker.consumer.consumer"
_NO_CONNECTION = ("consumer: Cannot connect to ", "consumer: Connection to broker lost")

#: An outage that lasts is told again after this. Seconds.
_SAY_AGAIN_SECONDS = 300.0

log: Any = structlog.stdlib.get_logger("notifier")


def log_failure(event: str, error: BaseException, **fields: Any) -> None:
    """Log an error with where it happened, frame by frame, but without the error's own text.

    That text may contain anything: a database driver quotes the row on which it failed.
    """
    frames = traceback.extract_tb(error.__traceback__)
    places = [f"{frame.filename.rpartition('/')[2]}:{frame.lineno} {frame.name}" for frame in frames]
    log.error(event, error=type(error).__name__, exception=" > ".join(places), **fields)


class Outage:
    """Says once that something is away, not at each try, and once that it is back. Says it again for an error of
    another kind, or after five minutes. Thread-safe."""

    def __init__(self, away: str, back: str) -> None:
        """`away`, `back`: names of events."""
        self._away, self._back = away, back
        self._lock = Lock()
        #: Kind of error → when it was last said.
        self._said: dict[str, float] = {}
        self._began = 0.0

    def goes_on(self, error: BaseException, **fields: Any) -> None:
        """Another try has failed."""
        kind, now = type(error).__name__, time.monotonic()
        with self._lock:
            if not self._said:
                self._began = now
            if now - self._said.get(kind, float("-inf")) < _SAY_AGAIN_SECONDS:
                return
            self._said[kind] = now
        log.warning(self._away, error=kind, **fields)

    def is_over(self) -> None:
        """A try has succeeded. Says nothing if none had failed."""
        with self._lock:
            if not self._said:
                return
            self._said.clear()
        log.info(self._back, seconds=round(time.monotonic() - self._began, 1))


#: Of the connection from which a worker takes its tasks.
CONSUMER_OUTAGE = Outage("worker.broker_away", "worker.broker_back")


def configure(level: str = "info", style: str = "auto", *, program: str = "") -> None:
    """Send all log lines of this process to standard error: as JSON (`json`), as text (`text`), or as text only if
    it is a terminal (`auto`)."""
    prepare = [
        _name_of(program),
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]
    _configure_own_lines(prepare)
    handler = _StandardError()
    handler.setFormatter(_formatter(prepare, style))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    _quieten_libraries()


class _StandardError(logging.StreamHandler[Any]):
    """A line that cannot be written, for example because the disk is full, is silently lost: `logging` would write
    a traceback for each into the same file."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - its name in `logging`
        if not isinstance(sys.exc_info()[1], OSError):
            super().handleError(record)


def _name_of(program: str) -> Any:
    """A processor that adds the program's name in every thread, unlike a context variable."""

    def add_program(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        return {"program": program, **fields} if program else fields

    return add_program


def _configure_own_lines(prepare: list[Any]) -> None:
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *prepare,
            _only_known_fields,
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


def _formatter(prepare: list[Any], style: str) -> logging.Formatter:
    """Formats our own lines and those of libraries; libraries' lines still need the steps in `prepare`."""
    is_terminal = sys.stderr.isatty()
    renderer: Any = structlog.processors.JSONRenderer()
    if style == "text" or (style == "auto" and is_terminal):
        renderer = structlog.dev.ConsoleRenderer(colors=is_terminal, pad_event_to=0)
    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=prepare,
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            # Tracebacks without local variables, which are people's data.
            structlog.processors.format_exc_info,
            renderer,
        ],
    )


def _quieten_libraries() -> None:
    for name in _QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in _SILENT:
        logging.getLogger(name).setLevel(logging.CRITICAL + 1)
    for name in _QUOTING:
        logging.getLogger(name).addFilter(_keep_unless_it_quotes)
    logging.getLogger(_ACKNOWLEDGING).addFilter(_keep_unless_lost_acknowledgement)
    logging.getLogger(_TASK_ERRORS).addFilter(_keep_unless_away)
    logging.getLogger(_CONSUMER).addFilter(_keep_unless_no_connection)
    logging.getLogger("py.warnings").addFilter(_keep_unless_about_a_setting)


def _keep_unless_lost_acknowledgement(record: logging.LogRecord) -> bool:
    """One line at level info for each task whose acknowledgement is lost together with the connection to the
    broker.

    The broker delivers the task again, and the next worker finds nothing left to claim.
    """
    if not str(record.msg).startswith(("Couldn't ack ", "Couldn't reject ")):
        return True
    error = record.exc_info[1] if record.exc_info else None
    log.info("worker.acknowledgement_lost", error=type(error).__name__ if error else "")
    return False


def _keep_unless_away(record: logging.LogRecord) -> bool:
    """One line for each task that failed because the database or the broker is unreachable."""
    error = record.exc_info[1] if record.exc_info else None
    if not isinstance(error, ServiceUnavailable):
        return True
    name = record.args.get("name", "") if isinstance(record.args, Mapping) else ""
    log.warning("worker.task_not_done", step=name, reason=str(error))
    return False


def _keep_unless_no_connection(record: logging.LogRecord) -> bool:
    """One line for an outage of the broker: Celery writes several for each try."""
    if not record.getMessage().startswith(_NO_CONNECTION):
        return True
    arguments = record.args if isinstance(record.args, tuple) else ()
    error = next((one for one in arguments if isinstance(one, BaseException)), ConnectionError())
    CONSUMER_OUTAGE.goes_on(error, reason=str(error))
    return False


def _keep_unless_about_a_setting(record: logging.LogRecord) -> bool:
    """With each lost connection Celery warns that one of its defaults will change. We have set it."""
    return "worker_cancel_long_running_tasks_on_connection_loss" not in record.getMessage()


def _keep_unless_it_quotes(record: logging.LogRecord) -> bool:
    """One line without the words of the message's author."""
    if not str(record.msg).startswith(_QUOTES):
        return True
    error = record.exc_info[1] if record.exc_info else None
    is_command = "pidbox" in record.name
    event = "worker.command_failed" if is_command else "worker.message_dropped"
    log.warning(event, error=type(error).__name__ if error else "")
    return False


def _only_known_fields(_logger: Any, _method: str, fields: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    for name in fields:
        if name not in FIELDS and name not in ("exc_info", "stack_info", "_record", "_from_structlog"):
            fields[name] = "(hidden)"
    return fields
