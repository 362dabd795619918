"""The objects that routes work with, one of each for the process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any

from fastapi import Depends, Request
from prometheus_client import Metric

from notifier.api.joint_acceptance import JointAcceptance
from notifier.api.key_shares import LongReads, Shares
from notifier.api.readiness import DRAIN_SECONDS, CachedAnswer, Drain, Readiness, Ready
from notifier.api.record_metrics import RecordMetrics
from notifier.api.status_watch import StatusWatch
from notifier.api.task_queue import Handover
from notifier.bootstrap import Services
from notifier.feedback.receipts import Receipts
from notifier.feedback.suppressions import Suppressions
from notifier.intake import Intake
from notifier.operations import Operations
from notifier.operations.api_keys import ApiKeys
from notifier.operations.attachments import Attachments
from notifier.operations.callbacks import CallbackOperations
from notifier.operations.jobs import Jobs
from notifier.operations.providers import ProviderOperations
from notifier.operations.recurring import RecurringNotifications
from notifier.operations.unsubscribe_names import UnsubscribeNames
from notifier.rendering import Renderer
from notifier.security.tokens import Tokens
from notifier.store.api_keys import ApiKeyRepository
from notifier.store.operator_actions import OperatorActions
from notifier.store.rate_limits import RateLimitRepository
from notifier.store.recurring import RecurringRepository
from notifier.store.schema.revisions import missing_upgrade
from notifier.store.search import Audit
from notifier.store.status_lookup import StatusLookup
from notifier.store.stuck import Lateness

#: How long answers to monitoring are cached: they need no key, so anybody could ask often.
CACHE_SECONDS = 2.0
#: Maximum large bodies of one key in memory at once.
LARGE_BODIES = 4
#: Time limit of a search, a count, or a page of an export; after that it is cancelled.
READ_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class ApiServices:
    """Everything that routes work with. A route takes only what it needs, by the types below."""

    intake: Intake
    acceptance: JointAcceptance
    audit: Audit
    operator_actions: OperatorActions
    operations: Operations
    jobs: Jobs
    providers: ProviderOperations
    recurring: RecurringNotifications
    renderer: Renderer
    keys: ApiKeys
    rates: RateLimitRepository
    receipts: Receipts
    callbacks: CallbackOperations
    record_metrics: CachedAnswer[list[Metric]]
    broker_metrics: CachedAnswer[list[Metric]]
    readiness: CachedAnswer[Ready]
    drain: Drain
    suppressions: Suppressions
    tokens: Tokens
    unsubscribe_names: UnsubscribeNames
    attachments: Attachments
    shares: Shares
    large_bodies: Shares
    long_reads: LongReads
    status_watch: StatusWatch


def make_services(services: Services, handover: Handover) -> ApiServices:
    """Make the objects. Opens no connection."""
    settings, engine = services.settings, services.engine
    operator_actions = OperatorActions(engine, services.hash_key)
    readiness = Readiness(lambda: missing_upgrade(engine), settings.require("broker_url"))
    rights = {name: table.rights for name, table in settings.structure.producers.items()}
    intake = services.intake(handover.put)
    metrics = RecordMetrics(services)
    providers = ProviderOperations(
        services.health, services.circuits, operator_actions, settings.provider_tables()
    )
    return ApiServices(
        intake=intake,
        acceptance=JointAcceptance(intake),
        audit=Audit(engine, services.personal_data, READ_SECONDS),
        operator_actions=operator_actions,
        operations=Operations(
            operator_actions, Lateness(engine), services.suppression_forecast.count, providers.paused_channels
        ),
        jobs=services.jobs,
        providers=providers,
        recurring=RecurringNotifications(
            RecurringRepository(engine, services.personal_data), operator_actions, services.renderer, intake.faults
        ),
        renderer=services.renderer,
        keys=ApiKeys(ApiKeyRepository(engine), operator_actions, rights),
        rates=services.rates,
        receipts=services.receipts,
        callbacks=CallbackOperations(services.callbacks, operator_actions, settings.structure.callbacks),
        record_metrics=CachedAnswer(metrics.of_record, CACHE_SECONDS),
        broker_metrics=CachedAnswer(metrics.of_broker, CACHE_SECONDS),
        readiness=CachedAnswer(readiness.state, CACHE_SECONDS),
        # With a short grace, only a part of it.
        drain=Drain(min(DRAIN_SECONDS, settings.grace_seconds / 5)),
        suppressions=services.suppressions,
        tokens=services.tokens,
        unsubscribe_names=UnsubscribeNames(services.renderer, settings),
        attachments=Attachments(services.attachments, settings),
        shares=Shares(max(1, settings.api_threads // 2)),
        large_bodies=Shares(LARGE_BODIES),
        long_reads=LongReads(max(1, settings.api_threads // 4)),
        status_watch=StatusWatch(
            StatusLookup(engine, services.personal_data).find,
            max_waiting=max(2, settings.api_peer_connections // 2),
        ),
    )


def _service(name: str) -> Any:
    async def find(request: Request) -> Any:
        return getattr(request.app.state.services, name)

    return Depends(find)


AcceptanceDep = Annotated[JointAcceptance, _service("acceptance")]
AttachmentsDep = Annotated[Attachments, _service("attachments")]
AuditDep = Annotated[Audit, _service("audit")]
BrokerMetricsDep = Annotated[CachedAnswer[list[Metric]], _service("broker_metrics")]
CallbacksDep = Annotated[CallbackOperations, _service("callbacks")]
IntakeDep = Annotated[Intake, _service("intake")]
JobsDep = Annotated[Jobs, _service("jobs")]
LongReadsDep = Annotated[LongReads, _service("long_reads")]
OperatorActionsDep = Annotated[OperatorActions, _service("operator_actions")]
OperationsDep = Annotated[Operations, _service("operations")]
ProvidersDep = Annotated[ProviderOperations, _service("providers")]
RateLimitsDep = Annotated[RateLimitRepository, _service("rates")]
RecurringDep = Annotated[RecurringNotifications, _service("recurring")]
DrainDep = Annotated[Drain, _service("drain")]
ReadinessDep = Annotated[CachedAnswer[Ready], _service("readiness")]
RecordMetricsDep = Annotated[CachedAnswer[list[Metric]], _service("record_metrics")]
RendererDep = Annotated[Renderer, _service("renderer")]
StatusWatchDep = Annotated[StatusWatch, _service("status_watch")]
SuppressionsDep = Annotated[Suppressions, _service("suppressions")]
TokensDep = Annotated[Tokens, _service("tokens")]
UnsubscribeNamesDep = Annotated[UnsubscribeNames, _service("unsubscribe_names")]
