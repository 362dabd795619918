"""The outbox as a model. The same table as `notifier.client.outbox` makes for producers without Django."""

from __future__ import annotations

from django.db import models
from django.utils import timezone


class OutboxMessage(models.Model):  # type: ignore[misc]  # Django ships no types
    """One message that waits for the relay. Written by `send`, deleted when the broker has it."""

    #: The message's id, a UUIDv7: its order is the order of time.
    id = models.UUIDField(primary_key=True)
    channel = models.CharField(max_length=16)
    lane = models.CharField(max_length=16)
    #: The contract's JSON, at most 1 MiB.
    body = models.TextField()
    created_at = models.DateTimeField(default=timezone.now)
    #: Number of times that the broker did not accept it.
    attempts = models.PositiveIntegerField(default=0)
    #: Why not, the last time.
    last_error = models.CharField(max_length=500, default="", blank=True)

    class Meta:
        db_table = "notifier_outbox"
        verbose_name = "waiting message"

    def __str__(self) -> str:
        # No body: it names a recipient.
        return f"{self.channel}.{self.lane} {self.id}"
