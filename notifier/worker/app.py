"""Makes the Celery application and its configuration.

`celery -A notifier.worker.app …` works; Flower and `celery inspect` use it.
"""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.app.amqp import AMQP

from notifier.broker import redis_transport, topology
from notifier.broker.amqp_connections import AmqpBrokerConnection
from notifier.config.logs import configure
from notifier.config.settings import Settings, load_settings
from notifier.config.unknown_variables import warn_of_unknown_variables
from notifier.worker import schedule, task_consumer
from notifier.worker.names import PUBLISH_SECONDS
from notifier.worker.process import ImpatientEvents
from notifier.worker.remote_control import QuestionsControl
from notifier.worker.schedule import beat_schedule
from notifier.worker.tasks import Process, add_tasks


def make_app(settings: Settings, process: Process | None = None) -> Celery:
    """The app; its tasks work with `process`. Raises `ConfigurationError` if there is no broker URL."""
    broker = topology.verified(settings.require("broker_url"))
    amqp = _RedisAMQP if topology.is_redis(broker) else _RabbitAMQP
    app = Celery("notifier", amqp=amqp, control=QuestionsControl, events=ImpatientEvents, set_as_current=True)
    app.conf.update(_configuration(settings, broker))
    add_tasks(app, process or Process(settings))
    return app


class _RedisAMQP(AMQP):  # type: ignore[misc]  # Celery ships no types
    """Celery takes all its connections to the broker from here."""

    Connection = redis_transport.RedisBrokerConnection


class _RabbitAMQP(AMQP):  # type: ignore[misc]
    Connection = AmqpBrokerConnection


def _configuration(settings: Settings, broker: str) -> dict[str, Any]:
    backend = settings.result_backend.get_secret_value() if settings.result_backend else None
    return {
        "broker_url": broker,
        "broker_transport_options": topology.transport_options(broker, timeout_seconds=PUBLISH_SECONDS),
        "broker_connection_retry_on_startup": True,
        "broker_connection_max_retries": None,
        "broker_heartbeat": 20,
        "result_backend": backend,
        "task_ignore_result": backend is None,
        "result_expires": 3600,
        # A result is a convenience: publishing it must not hold up a task, nor the end of the worker.
        "result_backend_transport_options": {"retry_policy": {"timeout": PUBLISH_SECONDS}},
        # JSON in, JSON out. Everything else is refused unread.
        "task_serializer": "json",
        "result_serializer": "json",
        "accept_content": ["json"],
        "timezone": "UTC",
        "enable_utc": True,
        "task_queues": topology.work_queues(),
        "task_default_queue": topology.MAINTENANCE,
        "task_create_missing_queues": False,
        "task_acks_late": True,
        "beat_schedule": beat_schedule(settings.timezone),
        "beat_scheduler": f"{schedule.__name__}:LiveScheduler",
        "beat_max_loop_interval": 1,
        **_worker_configuration(settings),
    }


def _worker_configuration(settings: Settings) -> dict[str, Any]:
    return {
        "worker_consumer": f"{task_consumer.__name__}:TaskConsumer",
        "worker_prefetch_multiplier": 1,
        "worker_cancel_long_running_tasks_on_connection_loss": False,
        "worker_hijack_root_logger": False,
        # If the control queue is exclusive, our own half-open connection locks it until the broker notices, and a
        # worker that cannot get it ends. It is durable because newer brokers refuse queues that are neither; when
        # it is no longer used, it expires.
        "control_queue_exclusive": False,
        "control_queue_durable": True,
        # Celery's gradual return after a reconnect reads the connection from two threads, which stalls the worker.
        "worker_enable_prefetch_count_reduction": False,
        "worker_enable_remote_control": settings.worker_questions,
        "worker_send_task_events": True,
        "task_send_sent_event": False,
    }


def __getattr__(name: str) -> Any:
    """`app` for `celery -A notifier.worker.app`: this module was loaded before Celery looks for it."""
    if name != "app":
        raise AttributeError(name)
    return app_from_environment()


def app_from_environment() -> Celery:
    settings = load_settings()
    configure(settings.log_level, settings.log_format)
    warn_of_unknown_variables(settings)
    return make_app(settings)
