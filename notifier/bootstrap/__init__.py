"""The composition root: makes engine, ledger, renderer, providers and services from the settings. Nothing else
does."""

from __future__ import annotations

from notifier.bootstrap.services import DeliveryServices, Services, make_providers

__all__ = ["DeliveryServices", "Services", "make_providers"]
