"""Vonage's webhooks: delivery receipts for our messages, one for each part of a text.

A receipt (https://developer.vonage.com/en/messaging/sms/guides/delivery-receipts) comes as a form or as JSON,
depending on the account. `sig` signs all other fields with the account's signature secret, using the account's
method (https://developer.vonage.com/en/getting-started/concepts/signing-messages).
"""

from __future__ import annotations

import hashlib
import hmac
import json
import re
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any
from urllib.parse import parse_qsl

from notifier.domain.statuses import Status
from notifier.providers import sms
from notifier.providers.base import AttemptReport, Report, Webhook, WebhookRequest
from notifier.providers.vonage.codes import RECEIPTS
from notifier.providers.vonage.options import VonageOptions

#: An id stands for one message, that is, one part of a text.
ID_SPACE = "vonage"

#: Vonage's status → the notification's.
STATUSES: Mapping[str, Status] = MappingProxyType(
    {
        "submitted": Status.SENT,
        "buffered": Status.SENT,
        # The carrier has it.
        "accepted": Status.SENT,
        "delivered": Status.DELIVERED,
        "expired": Status.UNDELIVERED,
        "failed": Status.UNDELIVERED,
        "rejected": Status.UNDELIVERED,
    }
)
_MAX_FIELDS = 100
_ID = re.compile(r"[A-Za-z0-9-]{2,64}")
_CODE = re.compile(r"[0-9]{1,4}")
#: The signed part contains the time of signing. Vonage repeats a receipt that was not accepted for a day
#: (https://developer.vonage.com/en/getting-started/concepts/webhooks), perhaps with its first signature.
_OLDEST, _NEWEST = timedelta(hours=25), timedelta(hours=1)
_SECONDS = re.compile(r"[0-9]{1,11}")


class DeliveryReceipt(Webhook[VonageOptions]):
    """Tells how a part of a message ended."""

    path = "{notification:uuid}/{attempt}/{parts}"

    def __init__(self, request: WebhookRequest) -> None:
        super().__init__(request)
        self.fields = read_fields(request.body, request.headers.get("content-type", "")) or {}

    def is_signed_by(self, options: VonageOptions) -> bool:
        secret = options.signature_secret
        if not secret or self.fields.get("api-key") != options.api_key:
            return False
        return is_signed(secret, options.signature_method, self.fields)

    def is_fresh(self, clock: Callable[[], datetime]) -> bool:
        return is_fresh(self.fields, clock())

    def reports(self) -> Sequence[AttemptReport]:
        report, names = read_receipt(self.fields), self.request.parameters
        # The URL is not signed. `client-ref` is, and repeats the id.
        if report is None or self.fields.get("client-ref") != str(names["notification"]):
            return []
        return [AttemptReport(names["notification"], names["attempt"], report, names["parts"])]


def read_fields(body: bytes, content_type: str) -> dict[str, str] | None:
    """The receipt's fields; None if they cannot be read."""
    try:
        if "json" in content_type:
            return _flat(json.loads(body))
        return dict(parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS))
    except (ValueError, RecursionError):
        return None


def _flat(content: Any) -> dict[str, str] | None:
    """The members of a JSON object of plain values, as texts; None if it is something else."""
    if not isinstance(content, dict) or len(content) > _MAX_FIELDS:
        return None
    if any(isinstance(value, dict | list | bool | float) for value in content.values()):
        return None
    return {name: "" if value is None else str(value) for name, value in content.items()}


def is_signed(secret: str, method: str, fields: Mapping[str, str]) -> bool:
    """Whether `sig` is the signature of the other fields under this secret."""
    given = fields.get("sig", "").lower().encode(errors="replace")
    return hmac.compare_digest(given, sign(secret, method, fields).encode())


def is_fresh(fields: Mapping[str, str], now: datetime) -> bool:
    """Whether `timestamp`, which is signed, is about now. A recorded old receipt does not count."""
    seconds = fields.get("timestamp", "")
    if not _SECONDS.fullmatch(seconds):
        return False
    age = timedelta(seconds=now.timestamp() - int(seconds))
    return -_NEWEST <= age <= _OLDEST


def sign(secret: str, method: str, fields: Mapping[str, str]) -> str:
    """The `sig` for these fields, in lower case. A `sig` among them is ignored."""
    signed = "".join(
        f"&{name}={fields[name].replace('&', '_').replace('=', '_')}" for name in sorted(fields) if name != "sig"
    )
    if method == "md5hash":
        # Vonage's own choice; an account can use an HMAC instead.
        return hashlib.md5(f"{signed}{secret}".encode(errors="replace"), usedforsecurity=False).hexdigest()
    return hmac.new(secret.encode(), signed.encode(errors="replace"), method).hexdigest()


def read_receipt(fields: Mapping[str, str]) -> Report | None:
    """The report in the fields; None if they hold none."""
    id_, word = fields.get("messageId", ""), fields.get("status", "")
    if not word or not _ID.fullmatch(id_):
        return None
    code = fields.get("err-code", "")
    known = code if _CODE.fullmatch(code) and int(code) != 0 else None
    return sms.report_of(id_, word, STATUSES, RECEIPTS, known, sms.carrier_time(fields.get("scts", "")))
