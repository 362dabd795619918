"""From a `[[providers]]` table to a provider: kinds are entry points, imported when first asked for."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import EntryPoint, entry_points

from notifier.domain.errors import ConfigurationError, MissingPackage
from notifier.domain.statuses import Channel
from notifier.providers.base import Provider

#: The entry point group in which notifier and other packages list their providers.
GROUP = "notifier.providers"


def kinds() -> tuple[str, ...]:
    """Every kind that some installed package offers, sorted. Imports none of them."""
    return tuple(sorted(_entries()))


def load(table_name: str, kind: str, options: Mapping[str, str]) -> Provider:
    """Make the provider of one table. Its package is imported only now.

    Raises:
        ConfigurationError: for an unknown kind, or an option that the provider refuses.
        MissingPackage: if the kind exists but what it needs is not installed.
    """
    entry = _entries().get(kind)
    if entry is None:
        raise ConfigurationError(_unknown(table_name, kind), setting="kind")
    provider: type[Provider] = _imported(table_name, entry)
    return provider.from_options(table_name, options)


def channel_of(table_name: str, kind: str) -> Channel | None:
    """Of the providers of this kind; None if it is not installed."""
    entry = _entries().get(kind)
    try:
        return _imported(table_name, entry).channel if entry else None
    except ConfigurationError:
        return None


def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _unknown(table_name: str, kind: str) -> str:
    known = ", ".join(kinds()) or "none at all: notifier itself is not installed, only importable"
    return f"provider {table_name}: there is no kind {kind!r}; installed kinds are {known}"


def _imported(table_name: str, entry: EntryPoint) -> type[Provider]:
    try:
        found: type[Provider] = entry.load()
    except ModuleNotFoundError as error:
        # A module of the plug-in's own that is missing is a broken package, and no extra would add it.
        if (error.name or "").partition(".")[0] == entry.module.partition(".")[0]:
            raise ConfigurationError(
                f"provider {table_name}: {entry.value} (kind {entry.name}) cannot be imported: {error}",
                setting="kind",
            ) from error
        raise MissingPackage(
            f"provider {table_name}: kind {entry.name} needs the package {error.name!r}; {_remedy(entry)}",
            setting="kind",
        ) from error
    return found


def _remedy(entry: EntryPoint) -> str:
    if entry.module.partition(".")[0] == "notifier":
        return "pip install 'notifier[worker]'"
    return f"install it, or ask the authors of {entry.module.partition('.')[0]}"
