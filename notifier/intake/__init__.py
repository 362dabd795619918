"""From producers' queues into the record: `accepting` decides and writes, `amqp` and `redis` read a broker.

A reader takes what waits, hands it over as one batch, and acknowledges it only when the batch is committed.
"""

from notifier.intake.accepting import Intake, Received, Summary
from notifier.intake.reading import Reader, make_reader

__all__ = ["Intake", "Reader", "Received", "Summary", "make_reader"]
