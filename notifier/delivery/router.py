"""Gives each delivery a route, and tells the circuit breaker how the calls ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from notifier.config.logs import log, log_failure
from notifier.config.settings import Settings
from notifier.delivery.circuit_breaker import CircuitBreaker
from notifier.delivery.delivery import Delivery
from notifier.delivery.failover import no_route
from notifier.delivery.results import Results, result_of
from notifier.domain.destinations import destination_of
from notifier.domain.errors import ServiceUnavailable
from notifier.domain.retry_policy import wait_for_circuit
from notifier.domain.routing import Candidate, Route
from notifier.domain.statuses import SIMULATOR, Channel, Reason
from notifier.store.records import DeliveryResult


class Router:
    """Chooses providers. Test messages go only to the simulator, and their answers teach nothing."""

    def __init__(self, breaker: CircuitBreaker, results: Results, settings: Settings) -> None:
        self._breaker = breaker
        self._results = results
        self._settings = settings

    def route(self, deliveries: Sequence[Delivery]) -> None:
        """Give each delivery its providers, or a result that says why it has to wait."""
        by_channel: defaultdict[Channel, list[Delivery]] = defaultdict(list)
        for delivery in deliveries:
            if delivery.notification.is_test:
                delivery.providers = (SIMULATOR,)
            else:
                by_channel[delivery.notification.channel].append(delivery)
        for channel, ones in by_channel.items():
            routes = self._breaker.routes(channel, [self._candidate(one) for one in ones])
            for delivery, found in zip(ones, routes, strict=True):
                if found.providers:
                    delivery.providers, delivery.probe = found.providers, found.probe
                    delivery.has_hope = found.is_partial
                else:
                    delivery.result = self._without_route(delivery, found)

    def _candidate(self, delivery: Delivery) -> Candidate:
        notification = delivery.notification
        situation = self._results.situation(notification, max(1, notification.tries))
        left = situation.seconds_left(self._settings.retry(notification.lane))
        destination = destination_of(notification.channel, notification.recipient)
        return Candidate(notification.id, delivery.content.identity, left, situation.is_untried, destination)

    def _without_route(self, delivery: Delivery, found: Route) -> DeliveryResult:
        one, error = delivery.notification, no_route(delivery, found)
        if found.reason in (Reason.NOT_CONFIGURED, Reason.OPERATOR):
            return self._results.without_attempt(one, error)
        policy, situation = self._settings.retry(one.lane), self._results.situation(one, max(1, one.tries))
        decision = wait_for_circuit(found.reason, found.wait_seconds, policy, situation)
        return result_of(one, decision, error.detail)

    def settle(self, delivery: Delivery) -> None:
        """Resolve a doubtful answer with the help of other answers."""
        if delivery.notification.is_test:
            return
        try:
            delivery.answer = self._breaker.settled(delivery)
        except ServiceUnavailable:
            pass  # The answer stays in doubt, and the notification waits.
        except Exception as error:
            log_failure("deliver.answer_not_settled", error, **delivery.notification.log_ids)

    def learn(self, deliveries: Sequence[Delivery]) -> None:
        """Pass the answers of these calls on to the circuit breaker."""
        real = [delivery for delivery in deliveries if delivery.was_called and not delivery.notification.is_test]
        try:
            if real:
                self._breaker.note(real)
        except ServiceUnavailable:
            # Health is only advice, and the results are written already.
            log.warning("deliver.health_not_noted", count=len(deliveries))
        except Exception as error:
            log_failure("deliver.health_not_noted", error, count=len(deliveries))
