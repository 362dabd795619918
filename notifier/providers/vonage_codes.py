"""What the statuses of Vonage's SMS API mean: one for each part of a message, in an answer that is HTTP 200.

Source of a row: Vonage's page about the API's errors, or another one where the row names it. Rows marked
"observed" rest on the words that the API is known to answer with. A status other than 0 means that the part was
not queued (https://developer.vonage.com/en/messaging/sms/guides/troubleshooting-sms). One exception is made here:
5, an error within the platform while it processed the message, does not say how far it got, so it is unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from notifier.providers.http_call import MAX_RETRY_AFTER_SECONDS
from notifier.providers.verdict import (
    ACCOUNT,
    BAD_RECIPIENT,
    CONTENT,
    NO_SUCH_RECIPIENT,
    REFUSED,
    THROTTLED,
    UNAVAILABLE,
    UNKNOWN,
    UNREACHABLE,
    Verdict,
)

#: The status of a part that was taken.
ACCEPTED = "0"

_ERRORS = "https://developer.vonage.com/en/api-errors/sms"
#: The sister API, whose codes 1100 to 1140 are these statuses by the same names, explained.
_MESSAGES_API = "https://developer.vonage.com/en/api-errors/messages"
_DOCUMENTED = "documented"
_OBSERVED = "observed"

#: "Throughput Rate Exceeded - please wait [ 978 ] and retry": milliseconds.
#: https://github.com/Vonage/vonage-node-sdk/issues/33
_PAUSE = re.compile(r"please wait \[\s*(\d{1,9})\s*\]", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Row:
    """One status, or one with certain words in its error-text."""

    status: int
    meaning: str
    verdict: Verdict
    #: Regular expression that the error-text must contain; empty: whatever it says.
    words: str = ""
    #: Whether the page says so, or experience.
    basis: str = _DOCUMENTED
    url: str = _ERRORS


#: The first row that fits decides.
TABLE: tuple[Row, ...] = (
    Row(1, "sending faster than the account may", THROTTLED),
    Row(2, "no sender", ACCOUNT, r"\bfrom\b", _OBSERVED),
    Row(2, "a parameter is missing", REFUSED),
    Row(3, "our sender is not valid", ACCOUNT, r"\bfrom\b", _OBSERVED),
    Row(3, "the number is not valid", BAD_RECIPIENT, r"\bto\b", _OBSERVED),
    Row(3, "a parameter is not valid", REFUSED),
    Row(4, "API key or secret wrong or disabled", ACCOUNT),
    Row(5, "error in Vonage's platform", UNKNOWN),
    Row(6, "no route to this number", UNREACHABLE, "unroutable", _OBSERVED),
    Row(6, "cannot be processed, as with an unknown prefix", BAD_RECIPIENT),
    Row(7, "number is on Vonage's list of barred numbers", UNREACHABLE),
    Row(8, "account suspended", ACCOUNT),
    Row(9, "not enough credit", ACCOUNT),
    Row(10, "too many connections at once", THROTTLED),
    Row(11, "account not enabled for HTTP", ACCOUNT),
    Row(12, "message too long", CONTENT),
    Row(13, "not submitted: communication failed", UNAVAILABLE, url=_MESSAGES_API),
    Row(14, "signature wrong", ACCOUNT),
    Row(15, "sender not authorised for this destination", ACCOUNT),
    Row(16, "ttl not valid", REFUSED, url=_MESSAGES_API),
    Row(19, "facility not enabled for this account", ACCOUNT, url=_MESSAGES_API),
    Row(22, "network code does not fit the destination", REFUSED),
    Row(23, "callback is no valid URL", ACCOUNT),
    Row(29, "trial account: number not on its list", ACCOUNT),
    Row(32, "signature and secret together", ACCOUNT),
    Row(33, "number is deactivated", NO_SUCH_RECIPIENT),
)


def judge(status: str, words: str) -> Verdict:
    """What the status of a part that was not accepted means.

    A number that is not in the table is a refusal; what is no number at all, nobody can read: unknown.
    """
    if not status.isdecimal():
        return UNKNOWN
    for row in TABLE:
        if row.status == int(status) and re.search(row.words, words, re.IGNORECASE):
            return row.verdict
    return REFUSED


def pause_seconds(words: str) -> float | None:
    """How long the error-text of a throttled part asks us to wait; None if it does not."""
    found = _PAUSE.search(words)
    return min(int(found[1]) / 1000, MAX_RETRY_AFTER_SECONDS) if found else None
