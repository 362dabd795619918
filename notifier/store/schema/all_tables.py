"""`Base` with all tables, for code that compares or upgrades all. Programs import only those that they use."""

from __future__ import annotations

from notifier.store.schema import callbacks, feedback, notifications, operations, recurring
from notifier.store.schema.base import Base

__all__ = ["Base", "callbacks", "feedback", "notifications", "operations", "recurring"]
