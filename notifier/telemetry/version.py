"""Which version of notifier runs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def installed_version() -> str | None:
    """None: it runs from its source, without having been installed."""
    try:
        return version("notifier")
    except PackageNotFoundError:
        return None
