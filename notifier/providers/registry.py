"""Makes a provider from a `[[providers]]` table. Kinds of providers are entry points, imported when first
needed."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from notifier.config.settings import Settings
from notifier.config.structure import ProviderTable
from notifier.domain.errors import ConfigurationError, MissingPackage, add_extra
from notifier.domain.statuses import Channel
from notifier.providers.base import Provider, Reconciles, Webhook
from notifier.providers.options import ProviderOptions

#: The entry point group in which notifier and other packages list their providers.
GROUP = "notifier.providers"


def kinds() -> tuple[str, ...]:
    """Every kind that installed packages offer, sorted. Imports none of them."""
    return tuple(sorted(_entries()))


def load(table: ProviderTable, settings: Settings) -> Provider:
    """Create the provider of one table. Its package is imported here.

    Raises:
        ConfigurationError: the kind is unknown, or the provider refuses an option.
        MissingPackage: the kind exists, but a package that it needs is not installed.
    """
    found = provider_class(table)
    return found.from_options(table.name, _options(found, table, settings))


def provider_class(table: ProviderTable) -> type[Provider]:
    """The class of the table's kind.

    Raises:
        ConfigurationError: the kind is unknown.
        MissingPackage: the kind exists, but a package that it needs is not installed.
    """
    entry = _entries().get(table.kind)
    if entry is None:
        known = ", ".join(kinds()) or "none at all: notifier itself is not installed, only importable"
        problem = f"there is no kind {table.kind!r}; installed kinds are {known}"
        raise ConfigurationError(f"provider {table.name}: {problem}", setting="kind")
    return _imported(table.name, entry)


def channel_of(table: ProviderTable) -> Channel | None:
    """The channel of the table's kind; None if the kind is not installed."""
    try:
        return provider_class(table).channel
    except ConfigurationError:
        return None


def can_look_up(table: ProviderTable) -> bool:
    """Whether the provider can look up what it accepted. False if the kind is not installed."""
    try:
        return issubclass(provider_class(table), Reconciles)
    except ConfigurationError:
        return False


@dataclass(frozen=True, slots=True)
class WebhookKind:
    """A kind of provider that calls webhooks, and the configured providers of this kind."""

    provider: type[Any]
    webhooks: Sequence[type[Webhook[Any]]]
    #: Provider name → options.
    accounts: dict[str, ProviderOptions]


def webhook_kinds(
    settings: Settings, leave_out: Callable[[ProviderTable, ConfigurationError], None]
) -> dict[str, WebhookKind]:
    """Every configured kind that calls webhooks. A provider whose table cannot be read is reported to `leave_out`
    and left out."""
    kinds: dict[str, WebhookKind] = {}
    for table in settings.provider_tables():
        try:
            found: Any = provider_class(table)
            webhooks = getattr(found, "webhooks", ())
            if not webhooks:
                continue
            kind = kinds.setdefault(table.kind, WebhookKind(found, webhooks, {}))
            kind.accounts[table.name] = read_options(found, table, settings)
        except ConfigurationError as error:
            leave_out(table, error)
    return kinds


def read_options(provider: Any, table: ProviderTable, settings: Settings) -> ProviderOptions:
    """Read the table with the options model of this provider class.

    Raises:
        ConfigurationError: an option is missing or wrong; the text names it.
    """
    model: type[ProviderOptions] = provider.options_model
    return model.read(table.name, _options(provider, table, settings))


def _options(provider: object, table: ProviderTable, settings: Settings) -> Mapping[str, str]:
    model: type[ProviderOptions] | None = getattr(provider, "options_model", None)
    return settings.provider_options(table, model.names() if model else ())


# Reading the metadata of every installed package takes 12 ms, and the console asks for each provider.
@cache
def _entries() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=GROUP)}


def _imported(table_name: str, entry: EntryPoint) -> type[Provider]:
    try:
        found: type[Provider] = entry.load()
    except ModuleNotFoundError as error:
        package, where = entry.module.partition(".")[0], f"provider {table_name}"
        # If a module of the plug-in itself is missing, the package is broken, and no extra would add it.
        if (error.name or "").partition(".")[0] == package:
            problem = f"{entry.value} (kind {entry.name}) cannot be imported: {error}"
            raise ConfigurationError(f"{where}: {problem}", setting="kind") from error
        ours = package == "notifier"
        remedy = add_extra("worker") if ours else f"install it, or ask the authors of {package}"
        problem = f"kind {entry.name} needs the package {error.name!r}; {remedy}"
        raise MissingPackage(f"{where}: {problem}", setting="kind") from error
    return found
