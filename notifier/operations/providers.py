"""What operators do with providers: pause, resume, set weights. Workers follow within a second or two.

Crash points of a resume: the operator record, the end of the pause, the closing of the circuits and the new times
of waiting notifications are committed one after the other. Another resume does what a crash left undone; the sweep
does it for notifications that sleep until a provider can be called. No status changes, so nothing is lost or
doubled. A worker that does not know of the resume yet may let a notification sleep as before: the sweep wakes it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property

from notifier.config.structure import ProviderTable
from notifier.domain.errors import NotFound
from notifier.domain.routing import WINDOW_SECONDS, Health
from notifier.domain.statuses import Channel, Reason
from notifier.operations.explanations import circuit_in_words
from notifier.providers.registry import can_look_up, channel_of
from notifier.store.circuits import Affected, CircuitRepository, CircuitState
from notifier.store.operator_actions import ActionCounts, OperatorActions
from notifier.store.provider_health import HealthRepository, HealthState, HealthWindow


@dataclass(frozen=True, slots=True)
class SenderView:
    """One sender identity that a provider refused since it last accepted it."""

    sender: str
    #: "held back" (not called for this sender for `open_for_seconds`), "probing", or "refused" but not held back
    #: yet.
    state: str
    #: Messages refused in a row.
    refusals: int
    open_for_seconds: float | None
    since: datetime | None
    until: datetime | None
    reason: Reason | None
    detail: str | None


@dataclass(frozen=True, slots=True)
class ProviderView:
    """One configured provider as it stands."""

    name: str
    kind: str
    #: "in use", "paused", "open" (not called for `open_for_seconds`) or "probing".
    state: str
    #: The weight in force. If all are 0, providers are tried in order.
    weight: int
    open_for_seconds: float | None
    #: When its circuit opened, and before when nobody probes it.
    since: datetime | None
    until: datetime | None
    reason: Reason | None
    detail: str | None
    #: Calls within the last minute.
    calls: int
    faults: int
    #: Mean duration of those calls.
    seconds: float
    #: Senders that the provider refuses.
    senders: tuple[SenderView, ...] = ()


@dataclass(frozen=True, slots=True)
class OpenCircuit:
    """An open circuit, and whom it stops; for `notifier stuck` and `notifier doctor`."""

    #: "circuit_open", or "sender_held" for one sender.
    cause: str
    provider: str
    #: Name of the sender identity; "": the circuit is for every sender.
    sender: str
    channel: Channel | None
    reason: Reason | None
    detail: str | None
    since: datetime | None
    #: Nobody probes it before this time.
    until: datetime | None
    #: Notifications of its channel that wait for this reason, and their producers.
    waiting: int
    producers: tuple[str, ...]
    #: In words: what happened, and what to do.
    why: str
    fix: str


@dataclass(frozen=True, slots=True)
class ProviderReach:
    """What depends on a provider."""

    #: None: its kind is not known here.
    channel: Channel | None
    #: Other providers in use for the same channel, in order of failover. They continue when this one is paused.
    others: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Resumed:
    """Notifications that waited for a provider and are due soon."""

    count: int
    #: The latest time until the last of them is due.
    within_seconds: float


class ProviderOperations:
    """Reads and changes how providers are used. Each change leaves an operator record."""

    def __init__(
        self,
        health: HealthRepository,
        circuits: CircuitRepository,
        operator_actions: OperatorActions,
        tables: Sequence[ProviderTable],
    ) -> None:
        self._health = health
        self._circuits = circuits
        self._operator_actions = operator_actions
        self._tables = {table.name: table for table in tables}

    def providers(self) -> list[ProviderView]:
        """All providers, in order of failover."""
        said = self._health.states()
        circuits = self._circuits.states()
        windows = {window.provider: window for window in self._health.windows(window_seconds=WINDOW_SECONDS)}
        return [
            _view(
                table,
                said.get(table.name),
                [circuit for circuit in circuits if circuit.key.provider == table.name],
                windows.get(table.name),
            )
            for table in self._tables.values()
        ]

    @cached_property
    def with_look_up(self) -> frozenset[str]:
        """Names of providers that can look up what they accepted."""
        return frozenset(name for name, table in self._tables.items() if can_look_up(table))

    def paused_channels(self) -> frozenset[Channel]:
        """Channels whose providers are all paused."""
        said = self._health.states()
        paused = {name for name, state in said.items() if state.paused}
        channels = {name: channel_of(table) for name, table in self._tables.items()}
        in_use = {channel for name, channel in channels.items() if name not in paused}
        return frozenset(channel for channel in channels.values() if channel and channel not in in_use)

    def open_circuits(self) -> list[OpenCircuit]:
        """Open circuits of configured providers and of their senders, oldest first."""
        opened = [
            circuit
            for circuit in self._circuits.states()
            if circuit.open_for_seconds is not None and circuit.key.provider in self._tables
        ]
        if not opened:
            return []
        waiting = self._circuits.affected([circuit.reason for circuit in opened if circuit.reason])
        found = [self._opened(circuit, waiting) for circuit in opened]
        return sorted(found, key=lambda one: one.since or datetime.max.replace(tzinfo=UTC))

    def _opened(self, circuit: CircuitState, waiting: Sequence[Affected]) -> OpenCircuit:
        key, table = circuit.key, self._tables[circuit.key.provider]
        channel = channel_of(table)
        its = [one for one in waiting if one.reason == circuit.reason and channel in (None, one.channel)]
        why, fix = circuit_in_words(circuit)
        return OpenCircuit(
            cause="sender_held" if key.sender else "circuit_open",
            provider=key.provider,
            sender=key.sender,
            channel=channel,
            reason=circuit.reason,
            detail=circuit.detail,
            since=circuit.opened_at,
            until=circuit.open_until,
            waiting=sum(one.count for one in its),
            producers=tuple(sorted({one.producer for one in its})),
            why=why,
            fix=fix,
        )

    def reach(self, provider: str) -> ProviderReach:
        """What depends on this provider. Raises `NotFound`."""
        self._check_known(provider)
        channel = channel_of(self._tables[provider])
        others = (
            view.name
            for view in self.providers()
            if view.state == "in use" and view.name != provider and channel_of(self._tables[view.name]) == channel
        )
        return ProviderReach(channel, tuple(others) if channel else ())

    def pause(self, provider: str, *, operator: str, reason: str | None) -> None:
        """Stop calling it. Notifications that only it could send wait. Raises `NotFound`."""
        self._record(provider, operator, "pause", reason)
        self._health.set_paused(provider, True)

    def resume(self, provider: str, *, operator: str, reason: str | None) -> Resumed:
        """Call it again, and close its circuit and those of its senders, because resuming means that it works.
        Notifications that wait for it are due soon, one after the other.

        Raises:
            NotFound: it is not configured.
        """
        self._record(provider, operator, "resume", reason)
        opened = [one for one in self._circuits.states() if one.key.provider == provider]
        self._health.set_paused(provider, False)
        self._circuits.close_all(provider)
        channel = channel_of(self._tables[provider])
        if channel is None:
            return Resumed(0, 0.0)
        reasons = {one.reason for one in opened if one.open_for_seconds is not None and one.reason}
        return Resumed(*self._circuits.hasten(channel, reasons))

    def weigh(self, provider: str, weight: int | None, *, operator: str, reason: str | None) -> None:
        """Set its share of the traffic; None: the configured one. Raises `NotFound`."""
        self._record(provider, operator, "weigh", reason, weight=weight)
        self._health.set_weight(provider, weight)

    def _record(self, provider: str, operator: str, action: str, reason: str | None, **more: int | None) -> None:
        self._check_known(provider)
        begun = self._operator_actions.begin(operator, action, {"provider": provider, **more}, reason)
        self._operator_actions.note(begun.id, ActionCounts(matched=1, changed=1), is_finished=True)

    def _check_known(self, provider: str) -> None:
        if provider not in self._tables:
            known = ", ".join(self._tables) or "none"
            raise NotFound(f"no provider is called {provider!r}; configured: {known}")


def _view(
    table: ProviderTable, said: HealthState | None, circuits: Sequence[CircuitState], window: HealthWindow | None
) -> ProviderView:
    health = Health(window.calls, window.faults, window.seconds) if window else Health()
    own = next((circuit for circuit in circuits if not circuit.key.sender), None)
    return ProviderView(
        name=table.name,
        kind=table.kind,
        state="paused" if said and said.paused else _state(own, "in use", "open"),
        weight=table.weight if said is None or said.weight is None else said.weight,
        open_for_seconds=own.open_for_seconds if own else None,
        since=own.opened_at if own else None,
        until=own.open_until if own else None,
        reason=own.reason if own else None,
        detail=own.detail if own else None,
        calls=health.calls,
        faults=health.faults,
        seconds=health.seconds / health.calls if health.calls else 0.0,
        senders=tuple(_sender_view(circuit) for circuit in circuits if circuit.key.sender),
    )


def _sender_view(circuit: CircuitState) -> SenderView:
    return SenderView(
        sender=circuit.key.sender,
        state=_state(circuit, "refused", "held back"),
        refusals=circuit.refusals,
        open_for_seconds=circuit.open_for_seconds,
        since=circuit.opened_at,
        until=circuit.open_until,
        reason=circuit.reason,
        detail=circuit.detail,
    )


def _state(circuit: CircuitState | None, closed: str, opened: str) -> str:
    if circuit is None or circuit.open_for_seconds is None:
        return closed
    return opened if circuit.open_for_seconds > 0 else "probing"
