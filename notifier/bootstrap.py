"""The composition root: settings → engine, ledger, renderer, providers, services. Nothing else builds them."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections import defaultdict
from collections.abc import Coroutine, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

from sqlalchemy import Engine

from notifier.broker import topology, user_id
from notifier.callbacks import Caller as CallbackCaller
from notifier.callbacks import NameServers, Runner
from notifier.config.logs import log
from notifier.config.settings import Settings
from notifier.delivery import Asker, Circuits, Deliverer, Reconciler
from notifier.delivery.provider_calls import Caller
from notifier.delivery.rate_limiter import Pacer
from notifier.delivery.sweep import Dispatcher, Publish
from notifier.domain.errors import ServiceUnavailable
from notifier.domain.statuses import SIMULATOR, Channel
from notifier.feedback.bounces import Bounces
from notifier.feedback.receipts import Receipts, identity
from notifier.feedback.suppression_csv import SuppressionFiles
from notifier.feedback.suppressions import Suppressions
from notifier.intake import Intake
from notifier.intake.producers import Producers
from notifier.intake.service import PublishTasks
from notifier.operations.held_suppressions import HeldSuppressions
from notifier.operations.retention import RetentionJob
from notifier.operations.upkeep import Upkeep, Work, keep, log_statistics, make_partitions
from notifier.providers import registry
from notifier.providers.base import Provider
from notifier.providers.simulator import Simulator
from notifier.rendering import Renderer
from notifier.security.encryption import Sealer, read_keys
from notifier.security.recipient_hash import HashKey
from notifier.security.tokens import Tokens
from notifier.store.attachments import AttachmentRepository
from notifier.store.callbacks import CallbackRepository
from notifier.store.circuits import CircuitRepository
from notifier.store.engine import check_sessions, make_engine
from notifier.store.held_suppressions import HeldSuppressionRepository
from notifier.store.ledger import Ledger
from notifier.store.mass_alarm import AlarmRepository, AlarmRule, HardBounceWatch
from notifier.store.operator_actions import Operating
from notifier.store.personal_data import PersonalData
from notifier.store.provider_health import HealthRepository
from notifier.store.provider_reports import ProviderReportRepository
from notifier.store.rate_limits import RateLimitRepository
from notifier.store.retention import RetentionRepository
from notifier.store.schema.revisions import missing_upgrade
from notifier.store.search import Audit
from notifier.store.sessions import DatabaseSession, in_words
from notifier.store.suppressions import SuppressionRepository
from notifier.store.unread_bounces import UnreadBounceRepository
from notifier.store.upkeep import UpkeepRepository

#: The garbage collector looks at new objects after so many, not after 700: a batch makes tens of thousands, and
#: hardly any of them is in a cycle.
_OBJECTS_BEFORE_COLLECTION = 20_000
#: A program that starts before `notifier db upgrade` looks again after this. Seconds.
_LOOK_SECONDS = 1.0

T = TypeVar("T")


@dataclass
class Services:
    """What the settings amount to, each made on first use. One for each process."""

    settings: Settings
    #: Connections the process may hold at rest; twice as many under load.
    pool_size: int = 5
    #: Shown in pg_stat_activity.
    application: str = "notifier"
    #: It does nothing on a database that is not the one it was; commands look, and act for an operator.
    guarded: bool = True

    @cached_property
    def engine(self) -> Engine:
        url = self.settings.require("database_url")
        return make_engine(
            url,
            pool_size=self.pool_size,
            application=self.application,
            guarded=self.guarded,
            trusts_failover=self.settings.trust_failover,
        )

    @cached_property
    def ledger(self) -> Ledger:
        return Ledger(self.engine, self.vault, self.watch)

    @cached_property
    def audit(self) -> Audit:
        return Audit(self.engine, self.vault)

    @cached_property
    def renderer(self) -> Renderer:
        return Renderer(self.settings.templates)

    @cached_property
    def hash_key(self) -> HashKey:
        secret = self.settings.hash_key
        return HashKey() if secret is None else HashKey(secret.get_secret_value())

    @cached_property
    def tokens(self) -> Tokens:
        settings = self.settings
        return Tokens(self.hash_key, bounce_address=settings.bounce_address, public_url=settings.public_url)

    @cached_property
    def sealer(self) -> Sealer:
        keys = self.settings.encryption_keys
        return Sealer() if keys is None else Sealer(read_keys(keys.get_secret_value()))

    @cached_property
    def vault(self) -> PersonalData:
        return PersonalData(self.hash_key, self.sealer)

    @cached_property
    def suppressions(self) -> Suppressions:
        return Suppressions(self.engine, self.hash_key, self.watch)

    @cached_property
    def suppression_files(self) -> SuppressionFiles:
        return SuppressionFiles(SuppressionRepository(self.engine), self.hash_key)

    @cached_property
    def receipt_book(self) -> ProviderReportRepository:
        return ProviderReportRepository(self.engine, self.hash_key, self.watch)

    @cached_property
    def watch(self) -> HardBounceWatch:
        table = self.settings.structure.suppressions

        def identify(channel: str, sender: str | None, template: str) -> str:
            return identity(Channel(channel), sender, template, self.renderer, self.settings)

        return HardBounceWatch(AlarmRule(table.max_hard_bounce_share, table.min_messages), identify)

    @cached_property
    def alarms(self) -> AlarmRepository:
        return AlarmRepository(self.engine)

    @cached_property
    def held(self) -> HeldSuppressions:
        return HeldSuppressions(
            HeldSuppressionRepository(self.engine), self.alarms, Operating(self.engine, self.hash_key)
        )

    @cached_property
    def unread(self) -> UnreadBounceRepository:
        return UnreadBounceRepository(self.engine, self.vault)

    @cached_property
    def receipts(self) -> Receipts:
        return Receipts(self.receipt_book, self.suppressions, self.renderer, self.settings)

    @cached_property
    def bounces(self) -> Bounces:
        return Bounces(
            self.receipt_book,
            self.suppressions,
            self.renderer,
            self.settings,
            self.tokens,
            self.hash_key,
            self.unread,
        )

    def intake(self, publish_tasks: PublishTasks) -> Intake:
        """What takes producers' messages into the record."""
        settings = self.settings
        url = settings.require("broker_url")
        producers = Producers(
            settings.structure,
            own_users=user_id.own_users(url, settings.broker_user),
            broker_tells_users=not topology.is_redis(url),
        )
        return Intake(
            self.ledger,
            self.renderer,
            settings.structure,
            publish_tasks,
            callback_hosts=settings.callback_hosts,
            producers=producers,
        )

    @cached_property
    def health(self) -> HealthRepository:
        return HealthRepository(self.engine)

    @cached_property
    def circuits(self) -> CircuitRepository:
        return CircuitRepository(self.engine)

    @cached_property
    def rates(self) -> RateLimitRepository:
        return RateLimitRepository(self.engine)

    @cached_property
    def attachments(self) -> AttachmentRepository:
        return AttachmentRepository(self.engine)

    @cached_property
    def keeper(self) -> RetentionJob:
        return RetentionJob(RetentionRepository(self.engine), self.settings.structure.retention)

    @cached_property
    def upkeep(self) -> Upkeep:
        """Its steps, in the order in which they are made up for when they are late."""
        steps: dict[str, Work] = {
            "partitions": lambda: make_partitions(self.engine),
            "provider_outcomes": self.health.forget_old,
            "bounce_counts": self.alarms.forget_old,
            "rate_slots": self.rates.forget_old,
            "callbacks": self.callbacks.forget_old,
            "attachments": lambda: self.attachments.forget_old(days=self.settings.attachment_days),
            "retention": lambda: keep(self.keeper),
            "statistics": lambda: log_statistics(self.audit),
        }
        return Upkeep(UpkeepRepository(self.engine), steps)

    @cached_property
    def callbacks(self) -> CallbackRepository:
        return CallbackRepository(self.engine)

    def dispatcher(self, publish_deliver: Publish, publish_reconcile: Publish) -> Dispatcher:
        """What gives out due notifications."""
        return Dispatcher(self.ledger, publish_deliver, publish_reconcile)

    def wait_for_tables(self, stop: threading.Event) -> None:
        """Return when the database has the tables of this version and is the one it was, or `stop` is set.

        Without this a program on older tables would do half of its work: call a provider, say, and not be able to
        record the answer. Tables of a later version are right, too.

        Raises:
            ConfigurationError: a pooler stands before the database that makes work impossible.
        """
        told: str | None = None
        while not stop.is_set():
            try:
                session = check_sessions(self.engine)
                missing = missing_upgrade(self.engine)
            except ServiceUnavailable as error:
                missing = str(error)
            else:
                if missing is None:
                    self._tell_of_pooler(session)
                    return
            if missing != told:
                log.warning("database.waiting", reason=missing)
            told = missing
            stop.wait(_LOOK_SECONDS)

    def check_pooler(self) -> None:
        """For a program that starts without the database: refuse a pooler that makes work impossible.

        Raises:
            ConfigurationError: naming the fix.
        """
        try:
            self._tell_of_pooler(check_sessions(self.engine))
        except ServiceUnavailable:
            pass  # it says so with each answer

    def _tell_of_pooler(self, session: DatabaseSession | None) -> None:
        if session is not None and (session.is_pooled or session.wrong):
            log.info("database.pooled", reason=in_words(session))

    def hash_key_problem(self) -> str | None:
        """What to do if suppressions were made under another key: until then their recipients get messages."""
        try:
            is_other = self.suppressions.has_other_key()
        except ServiceUnavailable:
            return None  # `notifier doctor` asks again; a program that starts has other worries
        return "NOTIFIER_HASH_KEY is not that of the suppressions: notifier doctor" if is_other else None

    def close(self) -> None:
        """Close the connections to the database."""
        if "engine" in self.__dict__:
            self.engine.dispose()


def settle() -> None:
    """Tell the garbage collector that what exists now stays. Call it when a program has started.

    The libraries of a worker are 140 000 objects; a full collection that goes through them holds every message up
    for 100 ms. Only what comes from here on is looked at.
    """
    gc.freeze()
    gc.set_threshold(_OBJECTS_BEFORE_COLLECTION, 10, 10)


def make_providers(settings: Settings) -> list[Provider]:
    """The configured providers, in failover order. Opens no connection.

    Raises:
        ConfigurationError: naming the provider and the option that is wrong.
    """
    return [
        registry.load(table.name, table.kind, settings.provider_options(table))
        for table in settings.provider_tables()
    ]


class _LoopThread:
    """An event loop in a thread of its own: Celery has no asyncio, its task threads hand coroutines over.

    uvloop where it is installed.
    """

    def __init__(self, name: str) -> None:
        self.loop = _new_loop()
        self._thread = threading.Thread(target=self.loop.run_forever, name=name, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Do this on the loop, and wait for what it comes to."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def stop(self) -> None:
        """End the loop."""
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(timeout=10)
        self.loop.close()


class CallbackLoop:
    """What calls producers' endpoints: on an event loop that no delivery is on, with look-ups of its own."""

    def __init__(self, services: Services) -> None:
        self._services = services
        self._thread = _LoopThread("callback-loop")
        self.runner = self._thread.run(self._make())

    async def _make(self) -> Runner:
        settings = self._services.settings
        caller = CallbackCaller(settings.callback_hosts, names=NameServers(settings.callback_servers))
        return Runner(self._services.callbacks, settings.structure.callbacks, caller, self._thread.loop)

    def stop(self) -> None:
        """Let the calls under way end, and end the loop."""
        self._thread.run(self.runner.stop(), timeout=20)
        self._thread.stop()


class DeliveryLoop:
    """The event loop that a worker process delivers on, with the providers that live on it.

    `stop` is set when the process is to end.
    """

    def __init__(self, services: Services, stop: threading.Event | None = None) -> None:
        self._services = services
        self._stop = stop
        self._thread = _LoopThread("delivery-loop")
        self._loop = self._thread.loop
        made = self._thread.run(self._make_providers())
        self._providers: Mapping[str, Provider] = {provider.name: provider for provider in made}
        everyone: Mapping[str, Provider] = {**self._providers, SIMULATOR: Simulator()}
        self.deliverer = self._make_deliverer(everyone)
        self.reconciler = Reconciler(services.ledger, services.renderer, everyone, services.settings, self._loop)
        self.asker = Asker(services.receipt_book, services.receipts, everyone, self._loop)

    def _make_deliverer(self, everyone: Mapping[str, Provider]) -> Deliverer:
        services, settings = self._services, self._services.settings
        deadline = settings.call_deadline_seconds
        configured: defaultdict[Channel, list[str]] = defaultdict(list)
        for provider in self._providers.values():
            configured[provider.channel].append(provider.name)
        weights = {table.name: table.weight for table in settings.provider_tables()}
        pacer = Pacer(services.rates, settings)
        return Deliverer(
            services.ledger,
            services.renderer,
            everyone,
            settings,
            services.hash_key,
            services.tokens,
            attachments=services.attachments,
            circuits=Circuits(services.health, services.circuits, configured, weights, deadline_seconds=deadline),
            pacer=pacer,
            caller=Caller(self._loop, pacer, slots=settings.worker_calls, deadline_seconds=deadline),
            stop=self._stop,
        )

    async def _make_providers(self) -> list[Provider]:
        return make_providers(self._services.settings)

    def stop(self) -> None:
        """Close the providers' connections and end the loop. Call it when no task is running any more."""
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
