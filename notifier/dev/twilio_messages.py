"""Twilio's message resource, in the form of its API.

Fields and types follow twilio-oai 2.6.7, `api.v2010.account.message`: numbers of segments and media are strings,
dates are RFC 2822, and almost everything else may be null.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import format_datetime
from typing import Any

from notifier.dev.twilio_faults import MAGIC_FROM, MAGIC_TO, TwilioRefusal

API_VERSION = "2010-04-01"
_NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")
_SERVICE = re.compile(r"MG[0-9a-fA-F]{32}")
_MAX_BODY = 1600


@dataclass(frozen=True, slots=True)
class SmsMessage:
    sid: str
    account_sid: str
    to: str
    sender: str | None
    messaging_service_sid: str | None
    body: str
    status: str
    created_at: datetime
    updated_at: datetime
    sent_at: datetime | None = None
    status_callback: str | None = None
    validity_period: int | None = None
    error_code: int | None = None

    @property
    def num_segments(self) -> int:
        # Imported here because it loads Jinja and Babel, which a server that only refuses does not need.
        from notifier.rendering import segments

        return segments(self.body).count

    def moved_to(self, status: str, *, error_code: int | None = None) -> SmsMessage:
        now = datetime.now(UTC)
        sent_at = self.sent_at or (now if status == "sent" else None)
        return replace(self, status=status, updated_at=now, sent_at=sent_at, error_code=error_code)

    def as_json(self) -> dict[str, Any]:
        uri = f"/{API_VERSION}/Accounts/{self.account_sid}/Messages/{self.sid}"
        return {
            "account_sid": self.account_sid,
            "api_version": API_VERSION,
            "body": self.body,
            "date_created": _rfc2822(self.created_at),
            "date_sent": _rfc2822(self.sent_at),
            "date_updated": _rfc2822(self.updated_at),
            "direction": "outbound-api",
            "error_code": self.error_code,
            "error_message": None,
            "from": self.sender,
            "messaging_service_sid": self.messaging_service_sid,
            "num_media": "0",
            "num_segments": str(self.num_segments),
            "price": None,
            "price_unit": "USD",
            "sid": self.sid,
            "status": self.status,
            "subresource_uris": {"media": f"{uri}/Media.json"},
            "to": self.to,
            "uri": f"{uri}.json",
        }

    def as_callback(self) -> dict[str, str]:
        """The form that Twilio posts to StatusCallback."""
        form = {
            "AccountSid": self.account_sid,
            "ApiVersion": API_VERSION,
            "From": self.sender,
            "MessageSid": self.sid,
            "MessageStatus": self.status,
            "MessagingServiceSid": self.messaging_service_sid,
            "SmsSid": self.sid,
            "SmsStatus": self.status,
            "To": self.to,
            "ErrorCode": str(self.error_code) if self.error_code is not None else None,
        }
        if self.status in ("delivered", "undelivered"):
            # When the carrier reported it, as YYMMDDhhmm.
            form["RawDlrDoneDate"] = f"{self.updated_at:%y%m%d%H%M}"
        return {key: value for key, value in form.items() if value is not None}


def refusal(form: Mapping[str, str]) -> TwilioRefusal | None:
    """Why Twilio would refuse this form; None: it would not. Checked in Twilio's order: To, then From, then
    Body."""
    to, sender, service = form.get("To", ""), form.get("From", ""), form.get("MessagingServiceSid", "")
    if not to:
        return TwilioRefusal(400, 21604, "A 'To' phone number is required.")
    if to in MAGIC_TO:
        return MAGIC_TO[to]
    if not _NUMBER.fullmatch(to):
        return TwilioRefusal(400, 21211, f"The 'To' number {to} is not a valid phone number.")
    if not sender and not service:
        return TwilioRefusal(400, 21603, "A 'From' phone number is required.")
    if sender in MAGIC_FROM:
        return MAGIC_FROM[sender]
    if service and not _SERVICE.fullmatch(service):
        return TwilioRefusal(400, 21705, "The Messaging Service Sid is invalid.")
    return _content_refusal(form)


def _content_refusal(form: Mapping[str, str]) -> TwilioRefusal | None:
    body, callback = form.get("Body", ""), form.get("StatusCallback", "http://")
    validity = form.get("ValidityPeriod", "36000")
    if not body:
        return TwilioRefusal(400, 21602, "Message body is required.")
    if len(body) > _MAX_BODY:
        return TwilioRefusal(400, 21617, "The concatenated message body exceeds the 1600 character limit.")
    if not callback.startswith(("http://", "https://")):
        return TwilioRefusal(400, 21609, f"The 'StatusCallback' URL {callback} is not a valid URL.")
    if not validity.isdecimal() or not 1 <= int(validity) <= 36000:
        return TwilioRefusal(400, 20001, "ValidityPeriod must be from 1 to 36000.")
    return None


def new_message(account_sid: str, form: Mapping[str, str]) -> SmsMessage:
    now = datetime.now(UTC)
    validity = form.get("ValidityPeriod")
    service = form.get("MessagingServiceSid") or None
    return SmsMessage(
        sid="SM" + secrets.token_hex(16),
        account_sid=account_sid,
        to=form["To"],
        sender=form.get("From") or None,
        messaging_service_sid=service,
        body=form["Body"],
        status="accepted" if service else "queued",
        created_at=now,
        updated_at=now,
        status_callback=form.get("StatusCallback") or None,
        validity_period=int(validity) if validity else None,
    )


def _rfc2822(moment: datetime | None) -> str | None:
    return format_datetime(moment) if moment else None
