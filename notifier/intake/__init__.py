"""The intake: moves messages from producers' queues into the record.

`service` judges a batch and writes it. `rabbitmq` and `redis` each read one kind of broker. A reader takes
whatever waits, passes it on as one batch, and acknowledges it only when the batch is committed.
"""

from notifier.intake.batch import IntakeSummary, Received
from notifier.intake.consumer import Reader, make_reader
from notifier.intake.service import Intake

__all__ = ["Intake", "IntakeSummary", "Reader", "Received", "make_reader"]
