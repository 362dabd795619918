"""What one task has in hand, and what came of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from uuid import UUID, uuid4

from notifier.delivery.attempt_counts import count_failed
from notifier.delivery.delivery import Delivery
from notifier.delivery.result_writer import ResultWriter, Write


@dataclass(frozen=True, slots=True)
class DeliverySummary:
    """Counts of a task's notifications. `other` includes those whose answers come later: see `late_answers`."""

    claimed: int = 0
    sent: int = 0
    other: int = 0

    def __add__(self, more: DeliverySummary) -> DeliverySummary:
        return DeliverySummary(self.claimed + more.claimed, self.sent + more.sent, self.other + more.other)


@dataclass(slots=True)
class DeliveryTask:
    """Notifications that were claimed first, or that were read and are claimed with their attempts."""

    deliveries: list[Delivery]
    #: Of its claims.
    token: UUID = field(default_factory=uuid4)
    #: When its claims were requested: their leases are counted from then or later.
    begun: float = 0.0
    writer: ResultWriter = field(default_factory=ResultWriter)
    #: Its thread may be busy with files.
    has_file_turn: bool = False
    #: Nothing is left to load and to render: it can be handed over to `LateAnswers`.
    only_waits: bool = False

    @property
    def summary(self) -> DeliverySummary:
        """As it stands."""
        claimed = sum(delivery.is_claimed for delivery in self.deliveries)
        sent = sum(delivery.is_accepted for delivery in self.deliveries)
        return DeliverySummary(claimed, sent, claimed - sent)

    def write(self, deliveries: Sequence[Delivery], write: Write) -> None:
        """Write their results, now or when it is possible. Never raises."""
        self.writer.write([delivery.result for delivery in deliveries if delivery.result is not None], write)
        for delivery in deliveries:
            delivery.is_unstarted = False
        count_failed(deliveries)
