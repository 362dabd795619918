"""The event loops of a worker process, each in a thread of its own: one for deliveries, one for callbacks."""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Coroutine, Mapping
from typing import Any, TypeVar

from notifier.bootstrap import DeliveryServices, make_providers
from notifier.callbacks import CallbackCaller, CallbackSender, NameServers
from notifier.config.logs import log
from notifier.delivery import CircuitBreaker, Deliverer, ReceiptPoller, Reconciler
from notifier.delivery.late_answers import LateAnswers
from notifier.delivery.prepare import Composer
from notifier.delivery.provider_calls import ProviderCaller
from notifier.delivery.rate_limiter import RateLimiter
from notifier.delivery.results import Results
from notifier.domain.statuses import SIMULATOR, Channel
from notifier.providers.base import Provider
from notifier.providers.simulator import Simulator
from notifier.telemetry.liveness import LIVENESS, watch
from notifier.telemetry.metrics import prepare_providers
from notifier.worker.names import IDS_PER_TASK

T = TypeVar("T")


class _LoopThread:
    """An event loop in a thread of its own, for Celery's task threads. Uses uvloop if it is installed."""

    def __init__(self, name: str) -> None:
        self.loop = _new_loop()
        self._name = name
        self.loop.call_soon(watch, self.loop, name)
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def stop(self) -> None:
        """End the loop."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10)
        self.loop.close()
        LIVENESS.ended(self._name)


class CallbackLoop:
    """Calls producers' endpoints on an event loop of its own, with its own name look-ups."""

    def __init__(self, services: DeliveryServices) -> None:
        self._services = services
        self._thread = _LoopThread("callback-loop")
        self.runner = self._thread.run(self._make())

    async def _make(self) -> CallbackSender:
        settings = self._services.settings
        caller = CallbackCaller(settings.callback_hosts, names=NameServers(settings.callback_servers))
        return CallbackSender(self._services.callbacks, settings.structure.callbacks, caller, self._thread.loop)

    def stop(self) -> None:
        """Let calls under way end, then end the loop."""
        self._thread.run(self.runner.stop(), timeout=20)
        self._thread.stop()


class DeliveryLoop:
    """The event loop of deliveries and their providers. `stop` is set when the process must end.

    `hands_over`: a delivery whose answers take long gives up its thread and ends later.
    """

    def __init__(
        self, services: DeliveryServices, stop: threading.Event | None = None, *, hands_over: bool = False
    ) -> None:
        self._services = services
        self._stop = stop
        most = max(services.settings.worker_calls, IDS_PER_TASK)
        self._late = LateAnswers(most=most) if hands_over else None
        self._thread = _LoopThread("delivery-loop")
        self._loop = self._thread.loop
        made = self._thread.run(self._make_providers())
        self._providers: Mapping[str, Provider] = {provider.name: provider for provider in made}
        everyone: Mapping[str, Provider] = {**self._providers, SIMULATOR: Simulator()}
        prepare_providers(everyone)
        settings = services.settings
        composer = Composer(services.renderer, settings, services.hash_key, services.tokens, services.attachments)
        self.deliverer = self._make_deliverer(everyone, composer)
        self.reconciler = Reconciler(services.ledger, composer, everyone, settings, self._loop, stop)
        self.poller = ReceiptPoller(services.provider_reports, services.receipts, everyone, self._loop)

    def _make_deliverer(self, everyone: Mapping[str, Provider], composer: Composer) -> Deliverer:
        services, settings = self._services, self._services.settings
        deadline = settings.call_deadline_seconds
        configured: defaultdict[Channel, list[str]] = defaultdict(list)
        for provider in self._providers.values():
            configured[provider.channel].append(provider.name)
        weights = {table.name: table.weight for table in settings.provider_tables()}
        breaker = CircuitBreaker(
            services.health, services.circuits, configured, weights, deadline_seconds=deadline
        )
        limiter = RateLimiter(services.rates, settings)
        slots = settings.worker_calls
        caller = ProviderCaller(self._loop, everyone, limiter, slots=slots, deadline_seconds=deadline)
        results = Results(settings, everyone, services.hash_key)
        return Deliverer(services.ledger, composer, breaker, caller, results, settings, self._stop, self._late)

    async def _make_providers(self) -> list[Provider]:
        return make_providers(self._services.settings)

    def stop(self) -> None:
        """Let calls under way end, close the providers' connections and end the loop. Call it when no task is
        running any more."""
        if self._late is not None:
            self._late.close()
        self._thread.run(self._close_providers(), timeout=10)
        self._thread.stop()
        self._services.close()

    async def _close_providers(self) -> None:
        for provider in self._providers.values():
            try:
                await provider.close()
            except Exception as error:
                log.warning("provider.close_failed", provider=provider.name, error=type(error).__name__)


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
