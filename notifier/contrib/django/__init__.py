"""notifier for Django: messages are rows of the transaction that they belong to.

    INSTALLED_APPS += ["notifier.contrib.django"]
    NOTIFIER_BROKER_URL = "amqp://shop:…@broker/"
    NOTIFIER_PRODUCER = "shop"

    from notifier.contrib.django import send

    with transaction.atomic():
        order.save()
        send("order_shipped", to=order.email, context={"order_number": order.number})

`manage.py notifier_relay` publishes what was committed, and `status` says what became of it. Nothing here loads
Celery or SQLAlchemy.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from uuid import UUID

from notifier.client.handles import Handle
from notifier.domain.notification_status import NotificationStatus
from notifier.domain.statuses import Channel, Lane

__all__ = ["send", "send_many", "status"]


def send(
    template: str,
    to: str,
    *,
    context: Mapping[str, Any] | None = None,
    channel: Channel | str | None = None,
    lane: Lane | str = Lane.NORMAL,
    using: str | None = None,
    **fields: Any,
) -> Handle:
    """Write one message into the outbox, in the current transaction.

    The message is sent if the transaction commits; the broker need not be reachable. `using` is the database alias
    (default: where the router writes `OutboxMessage`). All other arguments are as in `notifier.Client.send`.

    Raises:
        InvalidMessage: nothing was written; `faults` lists everything that is wrong.
        ConfigurationError: a setting is missing or wrong.
    """
    from notifier.contrib.django.sending import messages

    return messages(using).send(template, to, context=context, channel=channel, lane=lane, **fields)


def send_many(
    entries: Iterable[Mapping[str, Any]],
    *,
    channel: Channel | str,
    lane: Lane | str = Lane.BULK,
    using: str | None = None,
    **defaults: Any,
) -> list[Handle]:
    """Write many messages of one channel and lane into the outbox, in the current transaction.

    Raises:
        InvalidMessage: nothing was written; each fault's field begins with the entry's position, from 0.
        ConfigurationError: a setting is missing or wrong.
    """
    from notifier.contrib.django.sending import messages

    return messages(using).send_many(entries, channel=channel, lane=lane, **defaults)


def status(notification: UUID | str, *, idempotency_key: str | None = None) -> NotificationStatus | None:
    """Return a message's status by the `id` of its handle, like `Handle.status`; None: it is not in the record.

    With its `idempotency_key`, a message is also found if an earlier one was accepted under that key. The key
    alone decides then: if other content was sent under it, you get the status of that other message, and yours was
    rejected. So use each key for one message only.

    Raises:
        ValueError: `notification` is not an id.
        ConfigurationError: NOTIFIER_API_URL or NOTIFIER_API_KEY is missing or wrong.
        ServiceUnavailable: the service does not answer now.
    """
    from notifier.client.conversations import Asked, ask_status
    from notifier.contrib.django.sending import service_api

    asked = Asked.by(notification, idempotency_key)
    return service_api().run(ask_status(asked))
