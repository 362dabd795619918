"""The outbox as a Django model: the same table that `notifier.client.outbox` makes for producers without
Django."""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class OutboxMessage(models.Model):  # type: ignore[misc]  # Django ships no types
    """One message that waits for the relay. `send` writes it; the relay deletes it when the broker has the
    message."""

    #: The message's id, a UUIDv7, so ids are in order of time.
    id = models.UUIDField(primary_key=True)
    channel = models.CharField(max_length=16)
    lane = models.CharField(max_length=16)
    #: The message as JSON of the contract, at most 1 MiB.
    body = models.TextField()
    created_at = models.DateTimeField(default=timezone.now)
    #: How often the broker did not accept the message.
    attempts = models.PositiveIntegerField(default=0)
    #: The last error.
    last_error = models.CharField(max_length=500, default="", blank=True)

    class Meta:
        db_table = "notifier_outbox"
        verbose_name = "waiting message"

    def __str__(self) -> str:
        # Not the body: it names a recipient.
        return f"{self.channel}.{self.lane} {self.id}"
