"""Suppressions in delivery: the check before a call, and what an answer means for later messages.

The check is part of the statement that commits the attempts' rows. So a suppression that is committed before a
call's row stops the call, without a statement or a crash point of its own. If an answer advises a suppression, it
is recorded in the transaction of the call's result.
"""

from __future__ import annotations

from notifier.domain.errors import Rejected
from notifier.domain.statuses import SuppressionReason
from notifier.feedback.suppressions import GLOBAL, SENDER_PREFIX, category_scope, sender_scope
from notifier.rendering import Template
from notifier.security.recipient_hash import HashKey
from notifier.store.records import Guard, NewSuppression, NotificationToSend


def guard_of(notification: NotificationToSend, template: Template, identity: str, hash_key: HashKey) -> Guard:
    """The suppressions that may stop this notification."""
    return Guard(
        tuple(hash_key.recipient_forms(notification.channel, notification.recipient)),
        sender_scope(identity),
        category_scope(template.category) if template.category else None,
        template.suppression_exempt,
    )


def suppression_of(
    notification: NotificationToSend, guard: Guard, error: Rejected, provider: str, hash_key: HashKey
) -> NewSuppression | None:
    """The suppression that a refusal calls for; None unless the provider advises one. An opt-out holds only for
    this sender identity; a dead address is dead for everyone."""
    # The simulator's answers must not stop real messages.
    if not error.suppress or notification.is_test:
        return None
    known = {str(reason): reason for reason in SuppressionReason}
    reason = known.get(error.reason, SuppressionReason.INVALID_RECIPIENT)
    return NewSuppression(
        guard.address_hash,
        hash_key.fingerprint,
        notification.channel,
        guard.sender_scope if reason.is_a_wish else GLOBAL,
        reason,
        f"provider:{provider}",
        " ".join(filter(None, (error.code, error.detail))),
        notification.id,
        provider=provider,
        sender=guard.sender_scope.removeprefix(SENDER_PREFIX),
        is_refusal=True,
    )
