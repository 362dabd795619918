"""The table of statuses of Vonage's SMS API: one for each part of a message, in an answer with HTTP 200.

The source of a row is Vonage's page about the API's errors, unless the row names another. Rows marked "observed"
rest on texts that the API is known to return. A status other than 0 means that the part was not queued
(https://developer.vonage.com/en/messaging/sms/guides/troubleshooting-sms). The exception is 5, an error inside the
platform while it processed the message: how far it got is unknown.
"""

from __future__ import annotations

import re
from dataclasses import replace

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
from notifier.providers.sms import DOCUMENTED, OBSERVED, SmsCodeRow, find_row

_RECEIPTS = "https://api.support.vonage.com/hc/en-us/articles/204014733"

#: The status of a part that was accepted.
ACCEPTED = "0"

_ERRORS = "https://developer.vonage.com/en/api-errors/sms"
#: Another API of Vonage's, which explains these statuses as its codes 1100 to 1140.
_MESSAGES_API = "https://developer.vonage.com/en/api-errors/messages"

#: "Throughput Rate Exceeded - please wait [ 978 ] and retry": milliseconds.
#: https://github.com/Vonage/vonage-node-sdk/issues/33
_PAUSE = re.compile(r"please wait \[\s*(\d{1,9})\s*\]", re.IGNORECASE)


def _row(code: int, meaning: str, verdict: Verdict, *, words: str = "", url: str = _ERRORS) -> SmsCodeRow:
    return SmsCodeRow(code, meaning, verdict, OBSERVED if words else DOCUMENTED, words, url)


#: The first row that fits decides.
TABLE: tuple[SmsCodeRow, ...] = (
    _row(1, "sending faster than the account is allowed to", THROTTLED),
    _row(2, "no sender", SENDER_REFUSED, words=r"\bfrom\b"),
    _row(2, "a parameter is missing", REFUSED),
    _row(3, "our sender is not valid", SENDER_REFUSED, words=r"\bfrom\b"),
    _row(3, "the number is not valid", BAD_RECIPIENT, words=r"\bto\b"),
    _row(3, "a parameter is not valid", REFUSED),
    _row(4, "API key or secret wrong or disabled", ACCOUNT),
    _row(5, "error in Vonage's platform", UNKNOWN),
    _row(6, "no route to this number", DESTINATION_REFUSED, words="unroutable"),
    _row(6, "cannot be processed, as with an unknown prefix", BAD_RECIPIENT),
    _row(7, "number is on Vonage's list of barred numbers", UNREACHABLE),
    _row(8, "account suspended", ACCOUNT),
    _row(9, "not enough credit", ACCOUNT),
    _row(10, "too many connections at once", THROTTLED),
    _row(11, "account not enabled for HTTP", ACCOUNT),
    _row(12, "message too long", CONTENT),
    _row(13, "not submitted: communication failed", UNAVAILABLE, url=_MESSAGES_API),
    _row(14, "signature wrong", ACCOUNT),
    _row(15, "sender not authorised, or not for this destination", SENDER_REFUSED_HERE),
    _row(16, "ttl not valid", REFUSED, url=_MESSAGES_API),
    _row(19, "facility not enabled for this account", ACCOUNT, url=_MESSAGES_API),
    _row(22, "network code does not fit the destination", NOT_FOR_RECIPIENT),
    _row(23, "callback is not a valid URL", ACCOUNT),
    _row(29, "trial account: number not on its list", NOT_FOR_RECIPIENT),
    _row(32, "signature and secret together", ACCOUNT),
    _row(33, "number is deactivated", NO_SUCH_RECIPIENT),
)


def judge(status: str, words: str) -> Verdict:
    """What the status of a part that was not accepted means. A number that is not in the table is a refusal;
    anything but a number is unknown."""
    if not status.isdecimal():
        return UNKNOWN
    row = find_row(TABLE, int(status), words)
    return row.verdict if row else REFUSED


def pause_seconds(words: str) -> float | None:
    """How long the error-text of a throttled part asks us to wait, in seconds; None if it does not."""
    found = _PAUSE.search(words)
    return min(int(found[1]) / 1000, MAX_RETRY_AFTER_SECONDS) if found else None


_NETWORK_ERROR = replace(UNAVAILABLE, subject=Subject.DESTINATION)

#: The err-codes of delivery receipts for messages that did not arrive. Only the reason and the suppression in a
#: verdict count: Vonage has accepted the message, and nothing is sent again.
RECEIPTS: tuple[SmsCodeRow, ...] = (
    _row(1, "no reason could be determined", NOT_FOR_RECIPIENT, url=_RECEIPTS),
    _row(2, "handset cannot be reached now", UNREACHABLE, url=_RECEIPTS),
    _row(3, "number is no longer active", NO_SUCH_RECIPIENT, url=_RECEIPTS),
    _row(4, "the user has barred the service", UNREACHABLE, url=_RECEIPTS),
    _row(5, "a problem with the number's portability", UNREACHABLE, url=_RECEIPTS),
    _row(6, "blocked by the carrier's anti-spam filter", CONTENT, url=_RECEIPTS),
    _row(7, "handset was busy", UNREACHABLE, url=_RECEIPTS),
    _row(8, "network error", _NETWORK_ERROR, url=_RECEIPTS),
    _row(9, "the user has asked for no more messages from this service", OPTED_OUT, url=_RECEIPTS),
    _row(10, "error in a parameter of the message", CONTENT, url=_RECEIPTS),
    _row(11, "Vonage has no route", DESTINATION_REFUSED, url=_RECEIPTS),
    _row(12, "no route to the number", DESTINATION_REFUSED, url=_RECEIPTS),
    _row(13, "the user's age does not allow it", UNREACHABLE, url=_RECEIPTS),
    _row(14, "number blocked by the carrier", UNREACHABLE, url=_RECEIPTS),
    _row(15, "prepaid account without credit", UNREACHABLE, url=_RECEIPTS),
)
