"""What one fleet has that the others do not: other programs, a clock of its own, a server between."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from chaos.fleet import PROGRAMS

if TYPE_CHECKING:
    from chaos.world import World


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What its programs find."""

    #: Variables of all of them, and of each by its name.
    environment: Mapping[str, str] = field(default_factory=dict)
    own: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def _as_usual(_world: World, _stack: ExitStack) -> Surroundings:
    return Surroundings()


def _nothing_lacks() -> str:
    return ""


@dataclass(frozen=True, slots=True)
class Setup:
    """A fleet and its surroundings. Two scenarios that follow each other with the same one share it."""

    name: str = ""
    programs: Mapping[str, tuple[str, ...]] = field(default_factory=lambda: PROGRAMS)
    #: Make the surroundings; what is put on the stack ends after the programs.
    begin: Callable[[World, ExitStack], Surroundings] = _as_usual
    #: What this machine lacks for it, as people should read it; empty: nothing.
    lacks: Callable[[], str] = _nothing_lacks


USUAL = Setup()
