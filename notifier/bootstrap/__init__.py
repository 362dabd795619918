"""The composition root: settings → engine, ledger, renderer, providers, services. Nothing else builds them."""

from __future__ import annotations

from notifier.bootstrap.database import Database
from notifier.bootstrap.services import (
    DeliveryServices,
    FeedbackServices,
    RecordServices,
    Services,
    make_providers,
)

__all__ = ["Database", "DeliveryServices", "FeedbackServices", "RecordServices", "Services", "make_providers"]
