"""The notifications that one task has in hand, and the summary of what it did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from notifier.delivery.attempt_counts import count_failed
from notifier.delivery.delivery import Delivery
from notifier.delivery.result_writer import ResultWriter, Write


@dataclass(frozen=True, slots=True)
class DeliverySummary:
    """Counts of a task's notifications. `other` includes those that are answered later: see `late_answers`."""

    claimed: int = 0
    sent: int = 0
    other: int = 0

    def __add__(self, more: DeliverySummary) -> DeliverySummary:
        return DeliverySummary(self.claimed + more.claimed, self.sent + more.sent, self.other + more.other)


@dataclass(slots=True)
class DeliveryTask:
    """Notifications of one task: either claimed first, or only read and then claimed with their attempts."""

    deliveries: list[Delivery]
    #: Marks the claims of this task.
    token: UUID = field(default_factory=uuid4)
    #: When its claims were requested, on the monotonic clock: their leases start then or later.
    begun: float = 0.0
    writer: ResultWriter = field(default_factory=ResultWriter)
    #: Whether its thread has a turn for mails with files.
    has_file_turn: bool = False
    #: Nothing is left to load or render, so it can be handed over to `LateAnswers`.
    only_waits: bool = False

    @property
    def summary(self) -> DeliverySummary:
        """The counts at this moment."""
        claimed = sum(delivery.is_claimed for delivery in self.deliveries)
        sent = sum(delivery.is_accepted for delivery in self.deliveries)
        return DeliverySummary(claimed, sent, claimed - sent)

    def write(self, deliveries: Sequence[Delivery], write: Write) -> None:
        """Write their results, now or as soon as possible. Never raises."""
        self.writer.write([delivery.result for delivery in deliveries if delivery.result is not None], write)
        for delivery in deliveries:
            delivery.is_unstarted = False
        count_failed(deliveries)
