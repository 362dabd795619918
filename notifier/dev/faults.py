"""Rules for what a local server does wrong, and for whom: in an ordered list, the first rule that fits counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from fnmatch import fnmatchcase
from threading import Lock
from typing import Generic, Protocol, TypeVar


class FaultRule(Protocol):
    """What every rule has. A rule with a `stage` as well applies only there."""

    @property
    def match(self) -> str:
        """Pattern of the recipient's number or address ("+1555*", "full@*"), case ignored."""
        ...

    @property
    def times(self) -> int | None:
        """For how many tries of each recipient the rule applies; None: always."""
        ...


RuleT = TypeVar("RuleT", bound=FaultRule)


class Faults(Generic[RuleT]):
    """The rules of one server, and how often each was used for each recipient. Thread-safe, because tests add
    rules while the server answers."""

    def __init__(self, rules: Sequence[RuleT]) -> None:
        self._lock = Lock()
        self._rules = list(rules)
        self._used: Counter[tuple[int, str]] = Counter()

    def add(self, rule: RuleT) -> None:
        with self._lock:
            self._rules.insert(0, rule)
            self._used = Counter({(index + 1, recipient): n for (index, recipient), n in self._used.items()})

    def clear(self) -> None:
        with self._lock:
            self._rules.clear()
            self._used.clear()

    def find(self, *recipients: str, stage: str | None = None) -> RuleT | None:
        """The first rule for this stage and any of these recipients. This counts as one use of the rule."""
        with self._lock:
            for index, rule in enumerate(self._rules):
                if getattr(rule, "stage", None) == stage:
                    for recipient in recipients:
                        if fnmatchcase(recipient.lower(), rule.match.lower()) and self._use(index, recipient):
                            return rule
        return None

    def _use(self, index: int, recipient: str) -> bool:
        times = self._rules[index].times
        if times is not None and self._used[index, recipient] >= times:
            return False
        self._used[index, recipient] += 1
        return True
