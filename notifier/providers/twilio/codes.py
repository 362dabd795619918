"""The table of Twilio's error codes, in answers to a send and in status callbacks.

The source of a row is Twilio's page about the code. Rows marked "observed" rest on experience, because that page
does not say whether to try again.
"""

from __future__ import annotations

from dataclasses import replace

from notifier.domain.statuses import Outcome, Reason, Subject
from notifier.providers.http import judge_status
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
    UNKNOWN,
    UNREACHABLE,
    Verdict,
)
from notifier.providers.sms import DOCUMENTED, OBSERVED, SmsCodeRow, find_row

#: A handset that is off or out of coverage is back in minutes to hours, and each attempt costs a message.
_HANDSET = Verdict(Outcome.UNAVAILABLE, Reason.UNREACHABLE_RECIPIENT, Subject.RECIPIENT, retry_after_seconds=600.0)
_CONGESTED = Verdict(
    Outcome.UNAVAILABLE, Reason.PROVIDER_UNAVAILABLE, Subject.DESTINATION, retry_after_seconds=60.0
)
#: The sender's queue at Twilio holds hours of messages.
_QUEUE_FULL = Verdict(Outcome.THROTTLED, Reason.PROVIDER_THROTTLED, Subject.ACCOUNT, retry_after_seconds=60.0)
_SENDER_QUEUE_FULL = replace(_QUEUE_FULL, subject=Subject.SENDER)
#: The limit ends at midnight, in a time zone that we do not know.
_SENDER_DAY_OVER = replace(_SENDER_QUEUE_FULL, retry_after_seconds=300.0)

#: Our account has not registered this sender. Only its messages are affected.
SENDER_NOT_REGISTERED = Verdict(Outcome.UNAVAILABLE, Reason.PROVIDER_ACCOUNT, Subject.SENDER)


def _row(code: int, meaning: str, verdict: Verdict, basis: str = DOCUMENTED) -> SmsCodeRow:
    return SmsCodeRow(code, meaning, verdict, basis, url=f"https://www.twilio.com/docs/api/errors/{code}")


TABLE: tuple[SmsCodeRow, ...] = (
    # Our account and settings: messages wait until somebody fixes them.
    _row(20003, "authentication failed", ACCOUNT),
    _row(20005, "account not active", ACCOUNT),
    _row(20006, "access denied", ACCOUNT),
    _row(20008, "not possible with test credentials", ACCOUNT),
    _row(20403, "forbidden for this account", ACCOUNT),
    _row(20404, "account, service or path not found", ACCOUNT),
    _row(21609, "StatusCallback is not a valid URL", ACCOUNT),
    _row(30002, "account suspended", ACCOUNT),
    _row(30037, "outbound messaging is turned off", ACCOUNT),
    _row(63038, "daily limit of the account reached", ACCOUNT),
    # Our sender: its messages wait, messages of other senders go on.
    _row(21212, "our From is not a valid number", SENDER_REFUSED),
    _row(21267, "trial account: no alphanumeric From", SENDER_REFUSED),
    _row(21601, "From is not a number of ours that can send SMS", SENDER_REFUSED),
    _row(21603, "no From", SENDER_REFUSED),
    _row(21606, "From cannot send SMS, or not to this destination", SENDER_REFUSED_HERE),
    _row(21659, "From is not a Twilio number, or a short code of another country", SENDER_REFUSED_HERE, OBSERVED),
    _row(21660, "From belongs to another account", SENDER_REFUSED),
    _row(21661, "From cannot send SMS", SENDER_REFUSED),
    _row(21701, "no such messaging service", SENDER_REFUSED),
    _row(21703, "messaging service has no sender, or none for this destination", SENDER_REFUSED_HERE),
    _row(21704, "messaging service has no number", SENDER_REFUSED),
    _row(21705, "messaging service id is invalid", SENDER_REFUSED),
    _row(30018, "the carrier wants this sender to be registered", SENDER_REFUSED_HERE, OBSERVED),
    _row(30024, "the carrier does not know this sender", SENDER_REFUSED_HERE),
    _row(30032, "toll-free number is not verified", SENDER_REFUSED),
    _row(30033, "campaign is suspended (US A2P 10DLC)", SENDER_REFUSED, OBSERVED),
    _row(30034, "our account has not registered the number (US A2P 10DLC)", SENDER_NOT_REGISTERED, OBSERVED),
    _row(30035, "number is still being registered (US A2P 10DLC)", SENDER_REFUSED, OBSERVED),
    _row(63007, "the channel does not know our From", SENDER_REFUSED),
    # Too fast: certainly not processed.
    _row(20429, "too many requests", THROTTLED),
    _row(14107, "rate limit of messages reached", THROTTLED, OBSERVED),
    _row(30001, "queue overflow", _QUEUE_FULL),
    _row(21611, "queue of this sender is full", _SENDER_QUEUE_FULL),
    _row(30022, "too fast for the sender's campaign (US A2P 10DLC)", _SENDER_QUEUE_FULL, OBSERVED),
    _row(30023, "daily limit of the sender's brand reached (US A2P 10DLC)", _SENDER_DAY_OVER, OBSERVED),
    _row(30027, "daily limit of the sender reached at T-Mobile (US A2P 10DLC)", _SENDER_DAY_OVER, OBSERVED),
    _row(63018, "too fast for the channel", THROTTLED),
    # The destination: a country, a network.
    _row(21408, "region not permitted for this account", DESTINATION_REFUSED),
    _row(21612, "no route from this sender to To", DESTINATION_REFUSED),
    _row(30450, "blocked as SMS pumping: the prefix of To", DESTINATION_REFUSED, OBSERVED),
    _row(30017, "the carrier's network is congested", _CONGESTED, OBSERVED),
    # The recipient.
    _row(21211, "To is not a valid number", NO_SUCH_RECIPIENT),
    _row(21604, "no To", BAD_RECIPIENT),
    _row(21614, "To cannot receive SMS", NO_SUCH_RECIPIENT),
    _row(21635, "To is a landline", NO_SUCH_RECIPIENT),
    _row(30005, "unknown destination handset", NO_SUCH_RECIPIENT, OBSERVED),
    _row(63003, "the channel does not know To", BAD_RECIPIENT),
    _row(21219, "trial account: number not verified", NOT_FOR_RECIPIENT),
    _row(21608, "trial account: number not verified", NOT_FOR_RECIPIENT),
    _row(21265, "To is a short code", UNREACHABLE),
    _row(21266, "To and From are the same", UNREACHABLE),
    _row(30006, "landline or unreachable carrier", UNREACHABLE),
    _row(30036, "not delivered within its validity", UNREACHABLE, OBSERVED),
    _row(21610, "recipient has opted out (STOP)", OPTED_OUT),
    _row(63014, "recipient has blocked the sender", OPTED_OUT),
    _row(30003, "handset cannot be reached now", _HANDSET),
    _row(30008, "unknown error on the way", _HANDSET, OBSERVED),
    # The content.
    _row(21602, "no body", CONTENT),
    _row(21617, "body longer than 1600 characters", CONTENT),
    _row(21619, "no body and no media", CONTENT),
    _row(30004, "message blocked", CONTENT, OBSERVED),
    _row(30007, "filtered by the carrier", CONTENT, OBSERVED),
    _row(30019, "larger than the carrier accepts", CONTENT, OBSERVED),
    _row(30038, "a one-time code that was filtered", CONTENT, OBSERVED),
    _row(30110, "a domain in the body is blocked", CONTENT),
    # Twilio's own failures: its page about 20500 says that the message may have been sent.
    _row(20500, "internal server error", UNKNOWN),
)


def judge(status: int, code: int | None) -> Verdict:
    """What an answer other than 2xx means: by Twilio's code, otherwise by the HTTP status. A 5xx is always
    unknown. A 3xx does not come from Twilio's API, so the address is wrong. Any other 4xx is a refusal."""
    if status >= 500:
        return UNKNOWN
    if code is not None and (row := find_row(TABLE, code)):
        return row.verdict
    # Twilio's page about 20429 says that a request answered with 429 was not processed.
    return judge_status(status) if code is None or status < 400 or status == 429 else REFUSED
