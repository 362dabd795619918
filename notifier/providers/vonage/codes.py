"""What the statuses of Vonage's SMS API mean: one for each part of a message, in an answer that is HTTP 200.

Source of a row: Vonage's page about the API's errors, or another one where the row names it. Rows marked
"observed" rest on the words that the API is known to answer with. A status other than 0 means that the part was
not queued (https://developer.vonage.com/en/messaging/sms/guides/troubleshooting-sms). One exception is made here:
5, an error within the platform while it processed the message, does not say how far it got, so it is unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from notifier.domain.statuses import Subject
from notifier.providers.http import MAX_RETRY_AFTER_SECONDS
from notifier.providers.outcomes import (
    ACCOUNT,
    BAD_RECIPIENT,
    CONTENT,
    DESTINATION_REFUSED,
    NO_SUCH_RECIPIENT,
    NOT_FOR_RECIPIENT,
    OPTED_OUT,
    REFUSED,
    SENDER_REFUSED,
    SENDER_REFUSED_HERE,
    THROTTLED,
    UNAVAILABLE,
    UNKNOWN,
    UNREACHABLE,
    Verdict,
)

_RECEIPTS = "https://api.support.vonage.com/hc/en-us/articles/204014733"

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
class VonageCodeRow:
    """One status, or one with certain words in its error-text."""

    status: int
    meaning: str
    verdict: Verdict
    #: Regular expression that the error-text must contain; empty: whatever it says.
    words: str = ""
    #: Whether the page says so, or experience.
    basis: str = _DOCUMENTED
    url: str = _ERRORS


#: The tables read better with a short name.
_Row = VonageCodeRow

#: The first row that fits decides.
TABLE: tuple[VonageCodeRow, ...] = (
    _Row(1, "sending faster than the account may", THROTTLED),
    _Row(2, "no sender", SENDER_REFUSED, r"\bfrom\b", _OBSERVED),
    _Row(2, "a parameter is missing", REFUSED),
    _Row(3, "our sender is not valid", SENDER_REFUSED, r"\bfrom\b", _OBSERVED),
    _Row(3, "the number is not valid", BAD_RECIPIENT, r"\bto\b", _OBSERVED),
    _Row(3, "a parameter is not valid", REFUSED),
    _Row(4, "API key or secret wrong or disabled", ACCOUNT),
    _Row(5, "error in Vonage's platform", UNKNOWN),
    _Row(6, "no route to this number", DESTINATION_REFUSED, "unroutable", _OBSERVED),
    _Row(6, "cannot be processed, as with an unknown prefix", BAD_RECIPIENT),
    _Row(7, "number is on Vonage's list of barred numbers", UNREACHABLE),
    _Row(8, "account suspended", ACCOUNT),
    _Row(9, "not enough credit", ACCOUNT),
    _Row(10, "too many connections at once", THROTTLED),
    _Row(11, "account not enabled for HTTP", ACCOUNT),
    _Row(12, "message too long", CONTENT),
    _Row(13, "not submitted: communication failed", UNAVAILABLE, url=_MESSAGES_API),
    _Row(14, "signature wrong", ACCOUNT),
    _Row(15, "sender not authorised, or not for this destination", SENDER_REFUSED_HERE),
    _Row(16, "ttl not valid", REFUSED, url=_MESSAGES_API),
    _Row(19, "facility not enabled for this account", ACCOUNT, url=_MESSAGES_API),
    _Row(22, "network code does not fit the destination", NOT_FOR_RECIPIENT),
    _Row(23, "callback is no valid URL", ACCOUNT),
    _Row(29, "trial account: number not on its list", NOT_FOR_RECIPIENT),
    _Row(32, "signature and secret together", ACCOUNT),
    _Row(33, "number is deactivated", NO_SUCH_RECIPIENT),
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


@dataclass(frozen=True, slots=True)
class ReceiptRow:
    """One err-code of a delivery receipt whose message did not arrive. Of the verdict only reason and suppression
    count: the message is Vonage's, and nothing is sent again."""

    code: int
    meaning: str
    verdict: Verdict
    url: str = _RECEIPTS


#: The carrier's, and not Vonage's.
_NETWORK_ERROR = replace(UNAVAILABLE, subject=Subject.DESTINATION)

RECEIPTS: tuple[ReceiptRow, ...] = (
    ReceiptRow(1, "no reason could be determined", NOT_FOR_RECIPIENT),
    ReceiptRow(2, "handset cannot be reached now", UNREACHABLE),
    ReceiptRow(3, "number is no longer active", NO_SUCH_RECIPIENT),
    ReceiptRow(4, "the user has barred the service", UNREACHABLE),
    ReceiptRow(5, "a problem with the number's portability", UNREACHABLE),
    ReceiptRow(6, "blocked by the carrier's anti-spam filter", CONTENT),
    ReceiptRow(7, "handset was busy", UNREACHABLE),
    ReceiptRow(8, "network error", _NETWORK_ERROR),
    ReceiptRow(9, "the user has asked for no messages of this service", OPTED_OUT),
    ReceiptRow(10, "error in a parameter of the message", CONTENT),
    ReceiptRow(11, "Vonage has no route", DESTINATION_REFUSED),
    ReceiptRow(12, "no route to the number", DESTINATION_REFUSED),
    ReceiptRow(13, "the user's age does not allow it", UNREACHABLE),
    ReceiptRow(14, "number blocked by the carrier", UNREACHABLE),
    ReceiptRow(15, "prepaid account without credit", UNREACHABLE),
)
_BY_CODE = {row.code: row for row in RECEIPTS}


def find_receipt(code: int) -> tuple[str, Verdict]:
    """(meaning, verdict) of the err-code of a delivery receipt; "" and a refusal if it is not in the table."""
    row = _BY_CODE.get(code)
    return (row.meaning, row.verdict) if row else ("", REFUSED)
