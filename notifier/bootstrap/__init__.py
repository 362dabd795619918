"""The composition root: settings → engine, ledger, renderer, providers, services. Nothing else builds them."""

from __future__ import annotations

from notifier.bootstrap.services import DeliveryServices, Services, make_providers

__all__ = ["DeliveryServices", "Services", "make_providers"]
