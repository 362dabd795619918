"""What the local Twilio should do wrong, and for which numbers; and Twilio's own magic numbers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Literal

#: What to do instead of answering about a message that was taken. `silent`: never answer. `close`: close the
#: connection. `drip`: send the second half of the answer too slowly for any deadline. `truncate`: send half of it
#: and close. `garbage`: 201 and a page of HTML.
Action = Literal["silent", "close", "drip", "truncate", "garbage"]


@dataclass(frozen=True, slots=True)
class TwilioRule:
    """One fault."""

    #: Pattern of the number in To ("+1555*").
    match: str
    #: HTTP status and Twilio code of the error to answer; status None leaves the ordinary answer.
    status: int | None = None
    code: int = 20500
    message: str = "Internal Server Error"
    headers: Mapping[str, str] = field(default_factory=dict)
    #: The rule holds for so many tries of each number; None: always.
    times: int | None = None
    #: Wait so long before anything else.
    delay_seconds: float = 0.0
    action: Action | None = None
    #: What the handset reports in the end: the last status callback of a message that was taken.
    final_status: Literal["delivered", "undelivered", "failed"] = "delivered"
    error_code: int | None = None


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error in Twilio's words."""

    status: int
    code: int
    message: str


#: Numbers that Twilio's test credentials refuse. https://www.twilio.com/docs/iam/test-credentials
MAGIC_TO: Mapping[str, Refusal] = MappingProxyType(
    {
        "+15005550001": Refusal(400, 21211, "Invalid 'To' Phone Number: +15005550001"),
        "+15005550002": Refusal(400, 21612, "'To' cannot be reached from this 'From'"),
        "+15005550003": Refusal(400, 21408, "Permission to send an SMS has not been enabled for the region"),
        "+15005550004": Refusal(400, 21610, "Attempt to send to unsubscribed recipient"),
        "+15005550009": Refusal(400, 21614, "'To' number is not a valid mobile number"),
    }
)
MAGIC_FROM: Mapping[str, Refusal] = MappingProxyType(
    {
        "+15005550001": Refusal(400, 21212, "The 'From' number +15005550001 is not a valid phone number"),
        "+15005550007": Refusal(400, 21606, "The 'From' phone number is not SMS-capable"),
        "+15005550008": Refusal(429, 21611, "The queue of this 'From' number is full"),
    }
)


class TwilioFaults:
    """The rules of one server, and how often each was used for each number."""

    def __init__(self, rules: Sequence[TwilioRule]) -> None:
        self._rules = list(rules)
        self._used: Counter[tuple[int, str]] = Counter()

    def add(self, rule: TwilioRule) -> None:
        """Put a rule in front of the others."""
        self._rules.insert(0, rule)
        self._used = Counter({(index + 1, number): n for (index, number), n in self._used.items()})

    def clear(self) -> None:
        """Behave from now on."""
        self._rules.clear()
        self._used.clear()

    def find(self, number: str) -> TwilioRule | None:
        """The rule for this number, which counts as one use of it."""
        for index, rule in enumerate(self._rules):
            if not fnmatchcase(number, rule.match):
                continue
            if rule.times is None or self._used[index, number] < rule.times:
                self._used[index, number] += 1
                return rule
        return None
