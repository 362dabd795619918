"""Metrics that `/metrics` of the API adds to those of its own process: gauges read from the record and the broker
at each scrape.

Every API process gives the same answer. `notifier_database_up` and `notifier_broker_up` say whether they were
reachable; if not, their series are missing and all others are there. Series whose labels are known beforehand
exist with 0.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import product
from threading import Lock, Thread

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from notifier.bootstrap import Services
from notifier.broker.inspection import QueueState, queue_states
from notifier.domain.errors import NotifierError, ServiceUnavailable
from notifier.domain.statuses import LIVE_STATUSES, Channel, Lane, Outcome
from notifier.operations.heartbeats import HeartbeatState
from notifier.store.circuits import CircuitState
from notifier.store.metrics import GaugeRepository, Gauges
from notifier.store.schema.partitions import months_made
from notifier.store.upkeep import UpkeepRepository, UpkeepState

#: A scrape waits at most this long for the broker. Seconds.
BROKER_SECONDS = 2.0

#: Values of a metric's labels → the metric's value.
_Values = Mapping[tuple[str, ...], float]


@dataclass(frozen=True, slots=True)
class RecordState:
    gauges: Gauges
    #: See `CircuitRepository.states`.
    circuits: Sequence[CircuitState] = ()
    #: One for each step that has ever run.
    upkeep: Sequence[UpkeepState] = ()
    #: See `months_made`.
    months: int = 0
    heartbeats: Sequence[HeartbeatState] = ()


@dataclass(frozen=True, slots=True)
class KnownNames:
    """Labels that have a series from the start."""

    providers: Sequence[str] = ()
    #: Producers with callbacks.
    producers: Sequence[str] = ()
    #: Steps of upkeep.
    steps: Sequence[str] = ()
    #: Time between two heartbeats of a lane.
    heartbeat_seconds: float = 0


class Collected(Collector):
    """Metrics already read, as prometheus-client takes them."""

    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


class RecordMetrics:
    """Reads the gauges for a scrape. No method raises when the database or broker is unreachable."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._lock = Lock()
        #: The broker's answer, or the wait for it.
        self._asked: Future[list[QueueState]] | None = None
        settings = services.settings
        self._known = KnownNames(
            providers=[table.name for table in settings.provider_tables()],
            producers=list(settings.structure.callbacks),
            steps=services.upkeep.names,
            heartbeat_seconds=settings.structure.heartbeats.interval.total_seconds(),
        )

    def of_record(self) -> list[Metric]:
        try:
            return list(record_families(self._state(), self._known))
        except ServiceUnavailable:
            return [_database_up(0)]

    def of_broker(self) -> list[Metric]:
        """Asks the broker in a thread, because the broker may hang. No second thread is started before the first
        has ended."""
        with self._lock:
            if self._asked is None or self._asked.done():
                self._asked = Future()
                Thread(target=self._ask_broker, args=(self._asked,), name="broker-metrics", daemon=True).start()
            asked = self._asked
        try:
            queues = asked.result(BROKER_SECONDS)
        except (NotifierError, TimeoutError):
            queues = None
        return list(broker_families(queues))

    def _ask_broker(self, asked: Future[list[QueueState]]) -> None:
        try:
            url = self._services.settings.require("broker_url")
            asked.set_result(queue_states(url, seconds=BROKER_SECONDS))
        except Exception as error:
            asked.set_exception(error)

    def _state(self) -> RecordState:
        engine = self._services.engine
        return RecordState(
            gauges=GaugeRepository(engine).read(),
            circuits=self._services.circuits.states(),
            upkeep=UpkeepRepository(engine).states(),
            months=months_made(engine),
            heartbeats=self._services.heartbeats.states(),
        )


def record_families(state: RecordState, known: KnownNames) -> Iterator[Metric]:
    yield _database_up(1)
    yield from _of_notifications(state.gauges)
    yield from _of_providers(state, known.providers)
    yield from _of_callbacks(state.gauges, known.producers)
    yield from _of_upkeep(state, known.steps)
    yield from _of_heartbeats(state, known.heartbeat_seconds)


def broker_families(queues: Sequence[QueueState] | None) -> Iterator[Metric]:
    """Metrics of the broker's queues. None: the broker is unreachable or did not answer in time."""
    yield _gauge("notifier_broker_up", "Whether the broker answers.", {(): 0 if queues is None else 1})
    waiting: _Values = {(one.queue,): one.messages or 0 for one in queues or ()}
    yield _gauge("notifier_queue_messages", "Messages that wait in a queue of the broker.", waiting, ("queue",))
    readers: _Values = {(one.queue,): one.consumers for one in queues or () if one.consumers is not None}
    text = "Programs that read a queue: intakes or workers. Only on RabbitMQ."
    yield _gauge("notifier_queue_consumers", text, readers, ("queue",))


def _of_notifications(gauges: Gauges) -> Iterator[Metric]:
    pairs = list(product(Channel, Lane))
    waiting = {(one.channel, one.lane, one.status): one.count for one in gauges.waiting}
    yield _gauge(
        "notifier_notifications_waiting",
        "Notifications that have not ended.",
        _zeros((*pair, status) for pair in pairs for status in LIVE_STATUSES) | waiting,
        ("channel", "lane", "status"),
    )
    oldest = {(one.channel, one.lane): max(0.0, one.seconds) for one in gauges.oldest_queued}
    yield _gauge(
        "notifier_oldest_queued_seconds",
        "How long the oldest notification has waited for a worker.",
        _zeros(pairs) | oldest,
        ("channel", "lane"),
    )
    yield _gauge("notifier_due", "Notifications that the sweep should have seen.", {(): gauges.due})
    oldest_due: _Values = {(): round(gauges.oldest_due_seconds, 3)}
    yield _gauge(
        "notifier_oldest_due_seconds", "How long the oldest of these has waited for the sweep.", oldest_due
    )
    text = "How long a recurring notification has been due, or its run has made no progress."
    yield _gauge("notifier_recurring_late_seconds", text, {(): round(gauges.recurring_late_seconds, 3)})
    text = "Messages rejected within the last hour."
    yield _gauge("notifier_rejected_last_hour", text, {(): gauges.rejected})


def _of_providers(state: RecordState, providers: Sequence[str]) -> Iterator[Metric]:
    calls = {(one.provider, one.outcome): one.count for one in state.gauges.calls}
    yield _gauge(
        "notifier_provider_calls_last_hour",
        "Calls to providers within the last hour.",
        _zeros(product(providers, Outcome)) | calls,
        ("provider", "outcome"),
    )
    is_open = _zeros((name,) for name in providers)
    for circuit in state.circuits:
        if circuit.open_for_seconds is not None:
            key = (circuit.key.provider,)
            is_open[key] = is_open.get(key, 0) + 1
    text = "Open circuits: the provider's own, and those of its senders."
    yield _gauge("notifier_circuits_open", text, is_open, ("provider",))


def _of_callbacks(gauges: Gauges, producers: Sequence[str]) -> Iterator[Metric]:
    def by_producer(field: str) -> _Values:
        return _zeros((name,) for name in producers) | {
            (one.producer,): getattr(one, field) for one in gauges.callbacks
        }

    label = ("producer",)
    yield _gauge("notifier_callbacks_waiting", "Callbacks that are to be made.", by_producer("waiting"), label)
    yield _gauge("notifier_callbacks_parked", "Callbacks that were given up.", by_producer("parked"), label)
    suspended = by_producer("suspended_endpoints")
    yield _gauge("notifier_callback_endpoints_suspended", "Endpoints that failed for days.", suspended, label)
    delivered, failed = by_producer("delivered"), by_producer("failed")
    yield _counter(
        "notifier_callbacks_delivered_total", "Callbacks delivered since the beginning.", delivered, label
    )
    yield _counter(
        "notifier_callback_calls_failed_total",
        "Calls of endpoints that failed since the beginning.",
        failed,
        label,
    )


def _of_upkeep(state: RecordState, steps: Sequence[str]) -> Iterator[Metric]:
    ended = _zeros((step,) for step in steps)
    ages = dict.fromkeys(ended, math.inf)
    for one in state.upkeep:
        # A step that is no longer configured would look overdue for ever.
        is_known = (one.step,) in ended
        if is_known and one.last_success_at is not None and one.hours_since_success is not None:
            ended[one.step,] = one.last_success_at.timestamp()
            ages[one.step,] = one.hours_since_success * 3600
    name, text = "notifier_upkeep_last_success_timestamp_seconds", "When a step last ended well; 0: never."
    yield _gauge(name, text, ended, ("step",))
    yield _gauge(
        "notifier_upkeep_age_seconds",
        "How long ago a step last ended well, by the database's clock.",
        ages,
        ("step",),
    )
    text = "Months that have all their partitions, from this one on."
    yield _gauge("notifier_partition_months", text, {(): state.months})


def _of_heartbeats(state: RecordState, seconds: float) -> Iterator[Metric]:
    ages: _Values = {
        (one.channel, one.lane): math.inf if one.sent_seconds_ago is None else max(0.0, one.sent_seconds_ago)
        for one in state.heartbeats
    }
    text = "How long ago the newest heartbeat was sent that a provider accepted."
    yield _gauge("notifier_heartbeat_age_seconds", text, ages, ("channel", "lane"))
    interval: _Values = {(): seconds} if ages else {}
    yield _gauge("notifier_heartbeat_interval_seconds", "Time between two heartbeats of a lane.", interval)


def _database_up(value: int) -> Metric:
    return _gauge("notifier_database_up", "Whether the record can be read.", {(): value})


def _zeros(labels: Iterable[tuple[str, ...]]) -> dict[tuple[str, ...], float]:
    return dict.fromkeys(labels, 0)


def _gauge(name: str, text: str, values: _Values, labels: Sequence[str] = ()) -> Metric:
    return _filled(GaugeMetricFamily(name, text, labels=labels), values)


def _counter(name: str, text: str, values: _Values, labels: Sequence[str]) -> Metric:
    return _filled(CounterMetricFamily(name, text, labels=labels), values)


def _filled(family: GaugeMetricFamily | CounterMetricFamily, values: _Values) -> Metric:
    for labels, value in values.items():
        family.add_metric([str(label) for label in labels], value)
    return family
