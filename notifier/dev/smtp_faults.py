"""What a local mail server should do wrong, and for whom: an ordered list of rules, the first that fits counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Literal

#: Where in the dialogue a rule steps in. `data` is the command, `body` what follows it.
Stage = Literal["connect", "ehlo", "auth", "mail", "rcpt", "data", "body"]
#: `close_before_reply`: close the connection instead of answering; at `body` the mail is kept, only its answer is
#: lost. `close_mid_data` (at `body`): close it when the first bytes have come; the mail is not kept. `silent`:
#: never answer; at `body` the mail is kept.
Action = Literal["close_before_reply", "close_mid_data", "silent"]


@dataclass(frozen=True, slots=True)
class Rule:
    """One fault."""

    #: Pattern of the recipient's address ("full@*"), case ignored. At `mail` it is the sender's; before that there
    #: is no address yet, and only "*" fits.
    match: str
    #: The answer, e.g. "451 4.3.0 try later"; None leaves the ordinary one.
    reply: str | None = None
    #: The rule holds for so many tries of each address; None: always.
    times: int | None = None
    stage: Stage = "rcpt"
    #: Wait so long before answering.
    delay_seconds: float = 0.0
    action: Action | None = None


class Faults:
    """The rules of one server, and how often each was used for each address."""

    def __init__(self, rules: Sequence[Rule]) -> None:
        self._rules = list(rules)
        self._used: Counter[tuple[int, str]] = Counter()

    def add(self, rule: Rule) -> None:
        """Put a rule in front of the others."""
        self._rules.insert(0, rule)
        self._used = Counter({(index + 1, address): n for (index, address), n in self._used.items()})

    def clear(self) -> None:
        """Behave from now on."""
        self._rules.clear()
        self._used.clear()

    def find(self, stage: Stage, addresses: Sequence[str] = ("",)) -> Rule | None:
        """The rule for this stage and any of these addresses, which counts as one use of it."""
        for index, rule in enumerate(self._rules):
            if rule.stage != stage:
                continue
            for address in addresses:
                if fnmatchcase(address.lower(), rule.match.lower()) and self._use(index, rule, address):
                    return rule
        return None

    def _use(self, index: int, rule: Rule, address: str) -> bool:
        if rule.times is not None and self._used[index, address] >= rule.times:
            return False
        self._used[index, address] += 1
        return True
