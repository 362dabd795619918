"""From producers' queues into the record: `accepting` decides and writes, `amqp` and `redis` read a broker.

A reader takes what waits, hands it over as one batch, and acknowledges it only when the batch is committed.
"""

from notifier.intake.consumer import Reader, make_reader
from notifier.intake.service import Intake, Received, Summary

__all__ = ["Intake", "Reader", "Received", "Summary", "make_reader"]
