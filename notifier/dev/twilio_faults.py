"""Rules for what the local Twilio does wrong, and for which numbers; and Twilio's own magic numbers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from notifier.dev.http_server import Action


@dataclass(frozen=True, slots=True)
class TwilioRule:
    #: Pattern of the number in To ("+1555*").
    match: str
    #: HTTP status and Twilio code of the error to return; None: the ordinary answer.
    status: int | None = None
    code: int = 20500
    message: str = "Internal Server Error"
    headers: Mapping[str, str] = field(default_factory=dict)
    #: For how many tries of each number the rule applies; None: always.
    times: int | None = None
    #: Wait before anything else. Seconds.
    delay_seconds: float = 0.0
    action: Action | None = None
    #: The last status callback for an accepted message: what the handset reports in the end.
    final_status: Literal["delivered", "undelivered", "failed"] = "delivered"
    error_code: int | None = None


@dataclass(frozen=True, slots=True)
class TwilioRefusal:
    status: int
    code: int
    message: str


#: Numbers that Twilio's test credentials refuse. https://www.twilio.com/docs/iam/test-credentials
MAGIC_TO: Mapping[str, TwilioRefusal] = MappingProxyType(
    {
        "+15005550001": TwilioRefusal(400, 21211, "Invalid 'To' Phone Number: +15005550001"),
        "+15005550002": TwilioRefusal(400, 21612, "'To' cannot be reached from this 'From'"),
        "+15005550003": TwilioRefusal(400, 21408, "Permission to send an SMS has not been enabled for the region"),
        "+15005550004": TwilioRefusal(400, 21610, "Attempt to send to unsubscribed recipient"),
        "+15005550009": TwilioRefusal(400, 21614, "'To' number is not a valid mobile number"),
    }
)
MAGIC_FROM: Mapping[str, TwilioRefusal] = MappingProxyType(
    {
        "+15005550001": TwilioRefusal(400, 21212, "The 'From' number +15005550001 is not a valid phone number"),
        "+15005550007": TwilioRefusal(400, 21606, "The 'From' phone number is not SMS-capable"),
        "+15005550008": TwilioRefusal(429, 21611, "The queue of this 'From' number is full"),
    }
)
