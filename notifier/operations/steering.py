"""What operators do about providers: pause, resume, weigh. Every worker obeys within a second or two."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from notifier.config import ProviderTable
from notifier.errors import NotFound
from notifier.routing import WINDOW_SECONDS, Health
from notifier.status import Reason
from notifier.store.health import HealthBook
from notifier.store.operating import Operating, Tally


@dataclass(frozen=True, slots=True)
class ProviderView:
    """One configured provider as it stands."""

    name: str
    kind: str
    #: "in use", "paused", "open" (not called for `open_for_seconds`) or "probing".
    state: str
    #: In force; 0 everywhere: by order.
    weight: int
    open_for_seconds: float | None
    reason: Reason | None
    detail: str | None
    #: Within the last minute.
    calls: int
    faults: int
    #: Mean of those calls.
    seconds: float


class Steering:
    """Reads and changes how providers are used. Each change leaves an operator record."""

    def __init__(self, book: HealthBook, operating: Operating, tables: Sequence[ProviderTable]) -> None:
        self._book = book
        self._operating = operating
        self._tables = {table.name: table for table in tables}

    def providers(self) -> list[ProviderView]:
        """The configured providers, in their order."""
        states = self._book.states()
        windows = {window.provider: window for window in self._book.windows(window_seconds=WINDOW_SECONDS)}
        views = []
        for table in self._tables.values():
            state, window = states.get(table.name), windows.get(table.name)
            health = Health(window.calls, window.faults, window.seconds) if window else Health()
            opened = state.open_for_seconds if state else None
            views.append(
                ProviderView(
                    table.name,
                    table.kind,
                    _state(paused=state is not None and state.paused, open_for_seconds=opened),
                    table.weight if state is None or state.weight is None else state.weight,
                    opened,
                    state.reason if state else None,
                    state.detail if state else None,
                    health.calls,
                    health.faults,
                    health.seconds / health.calls if health.calls else 0.0,
                )
            )
        return views

    def pause(self, provider: str, *, operator: str, reason: str | None) -> None:
        """No more calls to it; what only it could send waits.

        Raises:
            NotFound: it is not configured.
        """
        self._record(provider, operator, "pause", reason)
        self._book.set_paused(provider, True)

    def resume(self, provider: str, *, operator: str, reason: str | None) -> None:
        """Calls again, and its circuit closed: whoever resumes it says that it is mended.

        Raises:
            NotFound: it is not configured.
        """
        self._record(provider, operator, "resume", reason)
        self._book.set_paused(provider, False)
        self._book.close(provider)

    def weigh(self, provider: str, weight: int | None, *, operator: str, reason: str | None) -> None:
        """Another share of the traffic; None: the configured one again.

        Raises:
            NotFound: it is not configured.
        """
        self._record(provider, operator, "weigh", reason, weight=weight)
        self._book.set_weight(provider, weight)

    def _record(self, provider: str, operator: str, action: str, reason: str | None, **more: int | None) -> None:
        if provider not in self._tables:
            known = ", ".join(self._tables) or "none"
            raise NotFound(f"no provider is called {provider!r}; configured: {known}")
        begun = self._operating.begin(operator, action, {"provider": provider, **more}, reason)
        self._operating.note(begun.id, Tally(matched=1, changed=1), is_finished=True)


def _state(*, paused: bool, open_for_seconds: float | None) -> str:
    if paused:
        return "paused"
    if open_for_seconds is None:
        return "in use"
    return "open" if open_for_seconds > 0 else "probing"
