"""Finds out which version of notifier is running."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str | None:
    """The installed version; None: it runs from source, without being installed."""
    try:
        return version("notifier")
    except PackageNotFoundError:
        return None
