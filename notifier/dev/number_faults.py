"""Scripted faults of the local SMS servers: which rule holds for a number, what it may do to an answer."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from threading import Lock
from typing import Generic, Literal, Protocol, TypeVar

#: What to do instead of answering about a message that was taken. `silent`: never answer. `close`: close the
#: connection. `drip`: send the second half of the answer too slowly for any deadline. `truncate`: send half of it
#: and close. `garbage`: the status of success and a page of HTML.
Action = Literal["silent", "close", "drip", "truncate", "garbage"]


class NumberRule(Protocol):
    """What every rule has."""

    @property
    def match(self) -> str:
        """Pattern of the number ("+1555*")."""
        ...

    @property
    def times(self) -> int | None:
        """The rule holds for so many tries of each number; None: always."""
        ...


RuleT = TypeVar("RuleT", bound=NumberRule)


class NumberFaults(Generic[RuleT]):
    """The rules of one server, and how often each was used for each number. Thread-safe: tests add rules while
    the server answers."""

    def __init__(self, rules: Sequence[RuleT]) -> None:
        self._lock = Lock()
        self._rules = list(rules)
        self._used: Counter[tuple[int, str]] = Counter()

    def add(self, rule: RuleT) -> None:
        """Put a rule in front of the others."""
        with self._lock:
            self._rules.insert(0, rule)
            self._used = Counter({(index + 1, number): n for (index, number), n in self._used.items()})

    def clear(self) -> None:
        """Behave from now on."""
        with self._lock:
            self._rules.clear()
            self._used.clear()

    def find(self, number: str) -> RuleT | None:
        """The first rule for this number, which counts as one use of it."""
        with self._lock:
            for index, rule in enumerate(self._rules):
                if not fnmatchcase(number, rule.match):
                    continue
                if rule.times is None or self._used[index, number] < rule.times:
                    self._used[index, number] += 1
                    return rule
        return None
