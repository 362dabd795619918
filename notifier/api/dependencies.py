"""What the routes work with: one of each for the process."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Request

from notifier.api.cached import Kept
from notifier.api.key_shares import LongReads, Shares
from notifier.api.readiness import Readiness, State
from notifier.api.task_queue import Handover
from notifier.bootstrap import Services
from notifier.feedback.receipts import Receipts
from notifier.feedback.suppressions import Suppressions
from notifier.intake import Intake
from notifier.operations import Operations
from notifier.operations.api_keys import ApiKeys
from notifier.operations.attachments import Attachments
from notifier.operations.callbacks import CallbackOperations
from notifier.operations.providers import Steering
from notifier.rendering import Renderer
from notifier.security.tokens import Tokens
from notifier.store.api_keys import ApiKeyRepository
from notifier.store.metrics import GaugeRepository, Gauges
from notifier.store.operator_actions import Operating
from notifier.store.rate_limits import RateLimitRepository
from notifier.store.schema.revisions import missing_upgrade
from notifier.store.search import Audit
from notifier.store.stuck import Lateness

#: Monitoring needs no key, so what it is told is asked for at most so often. Seconds.
KEPT_SECONDS = 2.0
#: Large bodies of one key that are in memory at once.
LARGE_BODIES = 4
#: A search, a count, or a page of an export that takes longer is broken off.
READ_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class Desk:
    """Everything that a route may need."""

    intake: Intake
    audit: Audit
    operations: Operations
    steering: Steering
    renderer: Renderer
    keys: ApiKeys
    rates: RateLimitRepository
    receipts: Receipts
    callbacks: CallbackOperations
    gauges: Kept[Gauges]
    readiness: Kept[State]
    suppressions: Suppressions
    tokens: Tokens
    attachments: Attachments
    shares: Shares
    large_bodies: Shares
    long_reads: LongReads


def make_desk(services: Services, handover: Handover) -> Desk:
    """The desk for these services. Opens no connection."""
    operating = Operating(services.engine, services.hash_key)
    broker_url = services.settings.require("broker_url")
    readiness = Readiness(lambda: missing_upgrade(services.engine), broker_url)
    threads, producers = services.settings.api_threads, services.settings.structure.producers
    return Desk(
        services.intake(handover.put),
        Audit(services.engine, services.vault, READ_SECONDS),
        Operations(operating, Lateness(services.engine)),
        Steering(services.health, services.circuits, operating, services.settings.provider_tables()),
        services.renderer,
        ApiKeys(
            ApiKeyRepository(services.engine), operating, {name: table.rights for name, table in producers.items()}
        ),
        services.rates,
        services.receipts,
        CallbackOperations(services.callbacks, operating, services.settings.structure.callbacks),
        Kept(GaugeRepository(services.engine).read, KEPT_SECONDS),
        Kept(readiness.state, KEPT_SECONDS),
        services.suppressions,
        services.tokens,
        Attachments(services.attachments, services.settings),
        Shares(max(1, threads // 2)),
        Shares(LARGE_BODIES),
        LongReads(max(1, threads // 4)),
    )


async def _desk(request: Request) -> Desk:
    desk: Desk = request.app.state.desk
    return desk


AtDesk = Annotated[Desk, Depends(_desk)]
