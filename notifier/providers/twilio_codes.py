"""What Twilio's error codes mean: the table for answers to a send and for the codes of status callbacks.

Source of a row: its page, `Row.url`. Rows marked "observed" rest on experience, as the page does not say whether
to try again.
"""

from __future__ import annotations

from dataclasses import dataclass

from notifier.providers.http_call import judge_status
from notifier.providers.verdict import (
    ACCOUNT,
    CONTENT,
    NO_SUCH_RECIPIENT,
    OPTED_OUT,
    REFUSED,
    THROTTLED,
    UNKNOWN,
    UNREACHABLE,
    Verdict,
)
from notifier.status import Outcome, Reason

#: A handset that is off or out of coverage comes back in minutes to hours, and each try costs a message.
_HANDSET = Verdict(Outcome.UNAVAILABLE, Reason.UNREACHABLE_RECIPIENT, retry_after_seconds=600.0)
#: The sender's own queue at Twilio holds hours of messages.
_QUEUE_FULL = Verdict(Outcome.THROTTLED, Reason.PROVIDER_THROTTLED, retry_after_seconds=60.0)

_DOCUMENTED = "documented"
_OBSERVED = "observed"


@dataclass(frozen=True, slots=True)
class Row:
    """One Twilio code."""

    code: int
    meaning: str
    verdict: Verdict
    #: Whether Twilio's page says so, or experience.
    basis: str = _DOCUMENTED

    @property
    def url(self) -> str:
        """Twilio's page about it."""
        return f"https://www.twilio.com/docs/api/errors/{self.code}"


TABLE: tuple[Row, ...] = (
    # Our account and settings: messages wait until someone repairs it.
    Row(20003, "authentication failed", ACCOUNT),
    Row(20005, "account not active", ACCOUNT),
    Row(20006, "access denied", ACCOUNT),
    Row(20404, "account, service or path not found", ACCOUNT),
    Row(21212, "our From is no valid number", ACCOUNT),
    Row(21408, "region not permitted for this account", ACCOUNT),
    Row(21603, "no From", ACCOUNT),
    Row(21606, "From cannot send to this destination", ACCOUNT),
    Row(21608, "trial account: number not verified", ACCOUNT),
    Row(21609, "StatusCallback is no valid URL", ACCOUNT),
    Row(21659, "From is not a Twilio number or short code", ACCOUNT, _OBSERVED),
    Row(21660, "From belongs to another account", ACCOUNT),
    Row(21661, "From cannot send SMS", ACCOUNT),
    Row(21701, "no such messaging service", ACCOUNT),
    Row(21703, "messaging service has no sender", ACCOUNT),
    Row(21705, "messaging service id is invalid", ACCOUNT),
    Row(30002, "account suspended", ACCOUNT),
    Row(63038, "daily limit of the account reached", ACCOUNT),
    # Too fast: surely not processed.
    Row(20429, "too many requests", THROTTLED),
    Row(14107, "rate limit of messages reached", THROTTLED, _OBSERVED),
    Row(21611, "queue of this sender is full", _QUEUE_FULL),
    Row(30001, "queue overflow", _QUEUE_FULL),
    # The recipient.
    Row(21211, "To is no valid number", NO_SUCH_RECIPIENT),
    Row(21604, "no To", NO_SUCH_RECIPIENT),
    Row(21614, "To cannot receive SMS", NO_SUCH_RECIPIENT),
    Row(21635, "To is a landline", NO_SUCH_RECIPIENT),
    Row(30005, "unknown destination handset", NO_SUCH_RECIPIENT, _OBSERVED),
    Row(21266, "To and From are the same", UNREACHABLE),
    Row(21612, "no route from this sender to To", UNREACHABLE),
    Row(30006, "landline or unreachable carrier", UNREACHABLE),
    Row(21610, "recipient has opted out (STOP)", OPTED_OUT),
    Row(63014, "recipient has blocked the sender", OPTED_OUT),
    Row(30003, "handset cannot be reached now", _HANDSET),
    Row(30008, "unknown error on the way", _HANDSET, _OBSERVED),
    # What it says.
    Row(21602, "no body", CONTENT),
    Row(21617, "body longer than 1600 characters", CONTENT),
    Row(21619, "no body and no media", CONTENT),
    Row(30004, "message blocked", CONTENT, _OBSERVED),
    Row(30007, "filtered by the carrier", CONTENT, _OBSERVED),
    Row(30034, "sent from an unregistered number (US A2P 10DLC)", CONTENT, _OBSERVED),
    Row(30110, "a domain in the body is blocked", CONTENT),
    Row(30450, "blocked as SMS pumping", CONTENT, _OBSERVED),
    # Twilio's own faults: its page about 20500 says that the message may have been sent.
    Row(20500, "internal server error", UNKNOWN),
)

_BY_CODE = {row.code: row for row in TABLE}


def judge(status: int, code: int | None) -> Verdict:
    """What an answer other than 2xx means: by Twilio's code, otherwise by the HTTP status.

    A 5xx stays unknown whatever else it says; a 3xx does not come from Twilio's API, so the address is wrong; any
    other 4xx is a refusal.
    """
    if status >= 500:
        return UNKNOWN
    if code is not None and code in _BY_CODE:
        return _BY_CODE[code].verdict
    # Twilio's page about 20429 says that a request which got 429 was not processed.
    return judge_status(status) if code is None or status < 400 or status == 429 else REFUSED


def find(code: int) -> tuple[str, Verdict]:
    """(meaning, verdict) of the ErrorCode of a status callback; "" and a refusal if it is not in the table."""
    row = _BY_CODE.get(code)
    return (row.meaning, row.verdict) if row else ("", REFUSED)
