"""Forecasts how many notifications would end as suppressed if they were sent now."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sqlalchemy import Boolean, Engine, Text, and_, case, cast, column, func, literal, or_, select
from sqlalchemy.dialects.postgresql import JSON

from notifier.domain.statuses import Status, SuppressionReason
from notifier.store.notification_rules import HAS_EXPIRED, IS_GONE
from notifier.store.operator_actions import OperatorActions
from notifier.store.repository import Repository
from notifier.store.schema.notifications import Notification, Suppression
from notifier.store.selection import Selection


@dataclass(frozen=True, slots=True)
class SuppressionRule:
    """The suppressions that keep a template's messages back."""

    channel: str
    template: str
    #: Scope of the sender identity for messages that name none.
    sender: str
    #: Scope of its category. None: it has no category.
    category: str | None
    #: It is sent even against recipients' wishes.
    exempt: bool


class ForecastRepository(Repository):
    """Looks up suppressions as `claim_sql` does before a call, but without hashes of earlier spellings."""

    def __init__(self, engine: Engine, operator_actions: OperatorActions) -> None:
        super().__init__(engine)
        self._operator_actions = operator_actions

    def count(self, selection: Selection, sources: Sequence[Status], rules: Sequence[SuppressionRule]) -> int:
        """How many of those in `sources` that can be sent are suppressed. A template without a rule is left
        out."""
        rows = literal(json.dumps([asdict(rule) for rule in rules]), Text)
        names = [column(name, Text) for name in ("channel", "template", "sender", "category")]
        rule = func.json_to_recordset(cast(rows, JSON)).table_valued(*names, column("exempt", Boolean))
        rule = rule.render_derived(name="rule", with_types=True)
        wishes = [reason for reason in SuppressionReason if reason.is_a_wish]
        sender: Any = func.coalesce(literal("sender:").concat(Notification.sender), rule.c.sender)
        scope, is_global = Suppression.scope, Suppression.scope == "global"
        bar: Any = (
            select(Suppression.id)
            .where(
                Suppression.address_hash == Notification.address_hash,
                Suppression.lifted_at.is_(None),
                or_(Suppression.expires_at.is_(None), Suppression.expires_at > func.now()),
                case(
                    (rule.c.exempt, and_(is_global, Suppression.reason.not_in(wishes))),
                    else_=or_(is_global, scope == sender, scope == rule.c.category),
                ),
            )
            .correlate_except(Suppression)
            .exists()
        )
        query: Any = (
            select(func.count(Notification.id))
            .join(rule, and_(rule.c.channel == Notification.channel, rule.c.template == Notification.template))
            .where(
                *self._operator_actions.selected(selection),
                Notification.status.in_(sources),
                ~HAS_EXPIRED,
                ~IS_GONE,
                bar,
            )
        )
        return int(self._scalar(query))
