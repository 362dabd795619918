"""Recipients who must not be sent to: the check before a call, and what an answer means for later messages.

The check is part of the statement that commits the attempts' rows, so a suppression committed before a call's row
stops the call, without a statement or a crash point of its own. A refusal that advises suppression is recorded in
the transaction of its result.
"""

from __future__ import annotations

from notifier.domain.errors import Rejected
from notifier.domain.statuses import SuppressionReason
from notifier.feedback.suppressions import GLOBAL, SENDER_PREFIX, category_scope, sender_scope
from notifier.rendering import Template
from notifier.security.recipient_hash import HashKey
from notifier.store.records import Guard, NewSuppression, NotificationToSend


def guard_of(notification: NotificationToSend, template: Template, identity: str, hash_key: HashKey) -> Guard:
    """What may keep it from being sent."""
    return Guard(
        tuple(hash_key.recipient_forms(notification.channel, notification.recipient)),
        sender_scope(identity),
        category_scope(template.category) if template.category else None,
        template.suppression_exempt,
    )


def suppression_of(
    notification: NotificationToSend, guard: Guard, error: Rejected, provider: str, hash_key: HashKey
) -> NewSuppression | None:
    """What a refusal means for later messages: nothing unless the provider says so. An opt-out is about whom they
    wrote to, so it holds for that sender identity; a dead address is dead for everyone."""
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
