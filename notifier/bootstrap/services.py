"""Makes the services from the settings. What only few programs need is imported where it is made."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from notifier.bootstrap.database import Database
from notifier.config.settings import Settings
from notifier.domain.errors import Fault, ServiceUnavailable
from notifier.domain.message import Message
from notifier.domain.producers import Origin, ProducerProof
from notifier.domain.statuses import Channel
from notifier.security.encryption import Sealer, read_keys
from notifier.security.recipient_hash import HashKey
from notifier.security.tokens import Tokens
from notifier.store.personal_data import PersonalData
from notifier.store.search import Audit

if TYPE_CHECKING:  # each program needs some of these, and importing all takes a fifth of a command's time
    from notifier.delivery.sweep import Dispatcher, Publish
    from notifier.feedback.bounces import Bounces
    from notifier.feedback.receipts import Receipts
    from notifier.feedback.suppression_csv import SuppressionFiles
    from notifier.feedback.suppression_forecast import SuppressionForecast
    from notifier.feedback.suppressions import Suppressions
    from notifier.intake import Intake
    from notifier.intake.batch import PublishTasks
    from notifier.operations.daily_report import DailyReport
    from notifier.operations.heartbeats import Heartbeats
    from notifier.operations.held_suppressions import HeldSuppressions
    from notifier.operations.jobs import Jobs
    from notifier.operations.rate_history import RateHistory
    from notifier.operations.recurring_runs import RecurringRuns
    from notifier.operations.retention import RetentionJob
    from notifier.operations.statistics import Statistics
    from notifier.operations.upkeep import Upkeep
    from notifier.providers.base import Provider
    from notifier.rendering import Renderer
    from notifier.store.attachments import AttachmentRepository
    from notifier.store.callbacks import CallbackRepository
    from notifier.store.circuits import CircuitRepository
    from notifier.store.hash_keys import HashKeyRepository
    from notifier.store.ledger import Ledger
    from notifier.store.mass_alarm import AlarmRepository, HardBounceWatch
    from notifier.store.minute_counts import MinuteCountRepository
    from notifier.store.provider_health import HealthRepository
    from notifier.store.provider_reports import ProviderReportRepository
    from notifier.store.rate_limits import RateLimitRepository
    from notifier.store.unread_bounces import UnreadBounceRepository


class RecordServices(Database):
    """The record of notifications, and the keys and templates that it needs."""

    @cached_property
    def renderer(self) -> Renderer:
        from notifier.rendering import Renderer

        return Renderer(self.settings.templates)

    @cached_property
    def hash_key(self) -> HashKey:
        secret = self.settings.hash_key
        return HashKey() if secret is None else HashKey(secret.get_secret_value())

    @cached_property
    def sealer(self) -> Sealer:
        keys = self.settings.encryption_keys
        return Sealer() if keys is None else Sealer(read_keys(keys.get_secret_value()))

    @cached_property
    def personal_data(self) -> PersonalData:
        return PersonalData(self.hash_key, self.sealer)

    @cached_property
    def tokens(self) -> Tokens:
        settings = self.settings
        return Tokens(self.hash_key, bounce_address=settings.bounce_address, public_url=settings.public_url)

    @cached_property
    def hard_bounces(self) -> HardBounceWatch:
        from notifier.store.mass_alarm import AlarmRule, HardBounceWatch

        table = self.settings.structure.suppressions

        def identify(channel: str, sender: str | None, template: str) -> str:
            from notifier.feedback.receipts import identity

            return identity(Channel(channel), sender, template, self.renderer, self.settings)

        return HardBounceWatch(AlarmRule(table.max_hard_bounce_share, table.min_messages), identify)

    @cached_property
    def ledger(self) -> Ledger:
        from notifier.store.ledger import Ledger

        return Ledger(self.engine, self.personal_data, self.hard_bounces)

    @cached_property
    def audit(self) -> Audit:
        return Audit(self.engine, self.personal_data)

    @cached_property
    def hash_keys(self) -> HashKeyRepository:
        from notifier.store.hash_keys import HashKeyRepository

        return HashKeyRepository(self.engine)

    def unfound_by_address(self) -> tuple[str, str] | None:
        """What a search by address misses, and the fix; None: nothing that we know of."""
        from notifier.operations.explanations import unfound_in_words

        try:
            return unfound_in_words(self.hash_keys.uses(), self.hash_key.fingerprint)
        except ServiceUnavailable:
            return None  # for example without rights on that table; the search itself went well


class FeedbackServices(RecordServices):
    """Provider reports, bounces and suppressions."""

    @cached_property
    def provider_reports(self) -> ProviderReportRepository:
        from notifier.store.provider_reports import ProviderReportRepository

        return ProviderReportRepository(self.engine, self.personal_data, self.hard_bounces)

    @cached_property
    def suppressions(self) -> Suppressions:
        from notifier.feedback.suppressions import Suppressions

        return Suppressions(self.engine, self.hash_key, self.hard_bounces)

    @cached_property
    def suppression_files(self) -> SuppressionFiles:
        from notifier.feedback.suppression_csv import SuppressionFiles
        from notifier.store.suppressions import SuppressionRepository

        return SuppressionFiles(SuppressionRepository(self.engine), self.hash_key)

    @cached_property
    def alarms(self) -> AlarmRepository:
        from notifier.store.mass_alarm import AlarmRepository

        return AlarmRepository(self.engine)

    @cached_property
    def held(self) -> HeldSuppressions:
        from notifier.operations.held_suppressions import HeldSuppressions
        from notifier.store.held_suppressions import HeldSuppressionRepository
        from notifier.store.operator_actions import OperatorActions

        operator_actions = OperatorActions(self.engine, self.hash_key)
        return HeldSuppressions(HeldSuppressionRepository(self.engine), self.alarms, operator_actions)

    @cached_property
    def unread(self) -> UnreadBounceRepository:
        from notifier.store.unread_bounces import UnreadBounceRepository

        return UnreadBounceRepository(self.engine, self.personal_data)

    @cached_property
    def receipts(self) -> Receipts:
        from notifier.feedback.receipts import Receipts

        return Receipts(self.provider_reports, self.suppressions, self.renderer, self.settings)

    @cached_property
    def bounces(self) -> Bounces:
        from notifier.feedback.bounces import Bounces

        return Bounces(
            self.provider_reports,
            self.suppressions,
            self.renderer,
            self.settings,
            self.tokens,
            self.hash_key,
            self.unread,
        )

    @cached_property
    def suppression_forecast(self) -> SuppressionForecast:
        from notifier.feedback.suppression_forecast import SuppressionForecast
        from notifier.store.operator_actions import OperatorActions
        from notifier.store.suppression_forecast import ForecastRepository

        repository = ForecastRepository(self.engine, OperatorActions(self.engine, self.hash_key))
        return SuppressionForecast(repository, self.renderer, self.settings)

    def hash_key_problem(self) -> str | None:
        """What to do if suppressions were made under another key: until then, their recipients get messages."""
        try:
            is_other = self.suppressions.has_other_key()
        except ServiceUnavailable:
            return None  # `notifier doctor` asks again; a program that starts has other worries
        return "NOTIFIER_HASH_KEY is not that of the suppressions: notifier doctor" if is_other else None


class DeliveryServices(FeedbackServices):
    """What workers share through the database."""

    @cached_property
    def health(self) -> HealthRepository:
        from notifier.store.provider_health import HealthRepository

        return HealthRepository(self.engine)

    @cached_property
    def circuits(self) -> CircuitRepository:
        from notifier.store.circuits import CircuitRepository

        return CircuitRepository(self.engine)

    @cached_property
    def providers_of_channels(self) -> Mapping[Channel, Sequence[str]]:
        """Names of the configured providers; those whose kind is not installed are left out."""
        from notifier.providers.registry import channel_of

        found: dict[Channel, list[str]] = {}
        for table in self.settings.provider_tables():
            channel = channel_of(table)
            if channel is not None:
                found.setdefault(channel, []).append(table.name)
        return found

    @cached_property
    def rates(self) -> RateLimitRepository:
        from notifier.store.rate_limits import RateLimitRepository

        return RateLimitRepository(self.engine)

    @cached_property
    def attachments(self) -> AttachmentRepository:
        from notifier.store.attachments import AttachmentRepository

        return AttachmentRepository(self.engine)

    @cached_property
    def callbacks(self) -> CallbackRepository:
        from notifier.store.callbacks import CallbackRepository

        return CallbackRepository(self.engine)

    def dispatcher(self, publish_deliver: Publish, publish_reconcile: Publish) -> Dispatcher:
        from notifier.delivery.sweep import Dispatcher

        return Dispatcher(self.ledger, publish_deliver, publish_reconcile)


class Services(DeliveryServices):
    """All services, each made at its first use."""

    def intake(self, publish_tasks: PublishTasks) -> Intake:
        from notifier.broker import topology, user_id
        from notifier.intake import Intake
        from notifier.intake.producers import Producers

        settings = self.settings
        url = settings.require("broker_url")
        is_redis = topology.is_redis(url)
        producers = Producers(
            settings.structure,
            own_users=user_id.own_users(url, settings.broker_user),
            broker_tells_users=not is_redis,
        )
        return Intake(
            self.ledger,
            self.renderer,
            settings.structure,
            publish_tasks,
            callback_hosts=settings.callback_hosts,
            producers=producers,
            broker="redis" if is_redis else "rabbitmq",
        )

    @cached_property
    def jobs(self) -> Jobs:
        from notifier.operations.jobs import Jobs
        from notifier.store.jobs import JobRepository
        from notifier.store.operator_actions import OperatorActions

        operator_actions = OperatorActions(self.engine, self.hash_key)
        return Jobs(JobRepository(self.engine, operator_actions), operator_actions)

    @cached_property
    def own_intake(self) -> Intake:
        """The intake for messages of the service itself. No task is published: the sweep finds them due."""
        return self.intake(lambda _channel, _lane, ids: self.ledger.requeue_soon(ids))

    def accept_own(self, messages: Sequence[Message], origin: Origin | None = None) -> list[tuple[Fault, ...]]:
        """Accept the service's own messages. Returns the faults of each; none: it is in the record, from now or
        before."""
        answers = self.own_intake.answer(messages, origin or Origin(ProducerProof.SERVICE))
        return [answer.faults for answer in answers]

    @cached_property
    def recurring_runs(self) -> RecurringRuns:
        from notifier.operations.recurring_runs import RecurringRuns
        from notifier.store.recurring_runs import RecurringRunRepository

        return RecurringRuns(RecurringRunRepository(self.engine, self.personal_data), self.accept_own)

    @cached_property
    def retention_job(self) -> RetentionJob:
        from notifier.operations.retention import RetentionJob
        from notifier.store.retention import RetentionRepository

        return RetentionJob(RetentionRepository(self.engine), self.settings.structure.retention)

    @cached_property
    def minute_counts(self) -> MinuteCountRepository:
        from notifier.store.minute_counts import MinuteCountRepository

        return MinuteCountRepository(self.engine)

    @cached_property
    def rate_history(self) -> RateHistory:
        from notifier.operations.rate_history import RateHistory
        from notifier.store.metrics import GaugeRepository

        return RateHistory(self.minute_counts, GaugeRepository(self.engine))

    @cached_property
    def statistics(self) -> Statistics:
        from notifier.operations.statistics import Statistics
        from notifier.store.daily_statistics import StatisticsRepository

        repository = StatisticsRepository(self.engine)
        return Statistics(repository, self.settings.timezone, self.retention_job.kept_from)

    def daily_report(self) -> DailyReport:
        from notifier.operations.daily_report import DailyReport

        return DailyReport(self.statistics, self.accept_own, self.hash_key, self.settings.report_addresses)

    @cached_property
    def heartbeats(self) -> Heartbeats:
        from notifier.operations.heartbeats import Heartbeats
        from notifier.store.heartbeats import HeartbeatRepository

        table = self.settings.structure.heartbeats
        return Heartbeats(table, HeartbeatRepository(self.engine), self.accept_own)

    @cached_property
    def upkeep(self) -> Upkeep:
        """The upkeep, with its steps in the order in which late ones are made up for."""
        from notifier.operations.upkeep import Upkeep, Work, keep, log_statistics, make_partitions
        from notifier.store.operator_actions import OperatorActions
        from notifier.store.upkeep import UpkeepRepository

        steps: dict[str, Work] = {
            "partitions": lambda: make_partitions(self.engine),
            "provider_outcomes": self.health.forget_old,
            "bounce_counts": self.alarms.forget_old,
            "rate_slots": self.rates.forget_old,
            "minute_counts": self.minute_counts.forget_old,
            "callbacks": self.callbacks.forget_old,
            "attachments": lambda: self.attachments.forget_old(days=self.settings.attachment_days),
            # Before retention, which deletes what they count.
            "statistics": lambda: log_statistics(self.statistics),
            **({"report": lambda: self.daily_report().send()} if self.settings.report_addresses else {}),
            "retention": lambda: keep(self.retention_job),
        }
        return Upkeep(UpkeepRepository(self.engine), steps, OperatorActions(self.engine, self.hash_key))


def make_providers(settings: Settings) -> list[Provider]:
    """The configured providers, in failover order. Opens no connection.

    Raises:
        ConfigurationError: names the provider and the option that is wrong.
    """
    from notifier.providers import registry

    return [registry.load(table, settings) for table in settings.provider_tables()]
