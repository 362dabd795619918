"""Twilio's webhooks: status callbacks for our messages, and messages that people write to our numbers.

The statuses are those of Twilio's message resource
(https://www.twilio.com/docs/messaging/api/message-resource#message-status-values). They arrive in any order, and
more than once. Twilio adds fields and statuses freely, so unknown ones are not errors.
"""

from __future__ import annotations

import hmac
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from types import MappingProxyType
from urllib.parse import parse_qsl, urlparse

from multidict import MultiDict
from twilio.request_validator import RequestValidator, add_port, remove_port

from notifier.domain.statuses import Status
from notifier.providers import sms
from notifier.providers.base import AttemptReport, InboundWish, Report, Webhook, WebhookRequest, Wish
from notifier.providers.twilio.codes import TABLE
from notifier.providers.twilio.options import TwilioOptions

#: A SID stands for one message, whichever account sent it.
ID_SPACE = "twilio"

_SIGNATURE_HEADER = "x-twilio-signature"

#: The fields of a form; a name may occur twice.
Form = MultiDict[str]

#: Twilio's status → the notification's.
STATUSES: Mapping[str, Status] = MappingProxyType(
    {
        "accepted": Status.SENT,
        "scheduled": Status.SENT,
        "queued": Status.SENT,
        "sending": Status.SENT,
        "sent": Status.SENT,
        "delivered": Status.DELIVERED,
        "read": Status.DELIVERED,
        "undelivered": Status.UNDELIVERED,
        # Twilio accepted it but could not pass it on.
        "failed": Status.UNDELIVERED,
        "canceled": Status.UNDELIVERED,
    }
)
#: More than any of Twilio's forms has.
_MAX_FIELDS = 200
_SID = re.compile(r"[A-Za-z0-9]{2,64}")
_CODE = re.compile(r"[0-9]{1,6}")


#: Twilio's own keywords; a keyword must be the whole text. https://help.twilio.com/articles/223134027
_KEYWORDS: Mapping[str, Wish] = MappingProxyType(
    {
        **dict.fromkeys(
            ("STOP", "STOPALL", "UNSUBSCRIBE", "CANCEL", "END", "QUIT", "REVOKE", "OPTOUT"), Wish.STOP
        ),
        **dict.fromkeys(("START", "YES", "UNSTOP"), Wish.START),
        **dict.fromkeys(("HELP", "INFO"), Wish.HELP),
    }
)


class _TwilioWebhook(Webhook[TwilioOptions]):
    """A form that is signed with the token of the account that it names."""

    def __init__(self, request: WebhookRequest) -> None:
        super().__init__(request)
        self.form = read_form(request.body) or Form()

    def is_signed_by(self, options: TwilioOptions) -> bool:
        signature = self.request.headers.get(_SIGNATURE_HEADER, "")
        if not signature or not options.public_url or self.form.get("AccountSid") != options.account_sid:
            return False
        # The signature covers the public URL that Twilio calls, not the host that a proxy passes on.
        return is_signed(options.auth_token, options.public_url + self.request.path, self.form, signature)


class InboundText(_TwilioWebhook):
    """Somebody wrote to one of our numbers. Only keywords count."""

    path = "inbound"
    #: An empty answer, because Twilio replies to its keywords itself.
    answer = ('<?xml version="1.0" encoding="UTF-8"?><Response/>', "text/xml")

    def wishes(self) -> Sequence[InboundWish]:
        wish = read_wish(self.form)
        senders = frozenset({self.form.get("To", ""), self.form.get("MessagingServiceSid", "")} - {""})
        return [InboundWish(wish, self.form.get("From", ""), senders)] if wish else []


class TwilioStatusCallback(_TwilioWebhook):
    path = "{notification:uuid}/{attempt}"

    def reports(self) -> Sequence[AttemptReport]:
        report, names = read_callback(self.form), self.request.parameters
        return [AttemptReport(names["notification"], names["attempt"], report)] if report else []


def read_form(body: bytes) -> Form | None:
    """The fields of a form, in order, including empty ones; None if it is not a form."""
    try:
        fields = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MAX_FIELDS)
    except ValueError:
        return None
    return MultiDict(fields)


def is_signed(token: str, url: str, form: Form, signature: str) -> bool:
    """Whether the holder of the account's token signed a POST of this form to this URL.

    The URL is tried with and without the port, because Twilio uses both. Twilio's own `validate` does not compare
    in constant time, so only its computation is used.
    """
    validator, given = RequestValidator(token), signature.encode()
    parts = urlparse(url)
    try:
        wanted = [validator.compute_signature(each(parts), form) for each in (remove_port, add_port)]
    except ValueError:
        return False  # not a valid port
    return any(hmac.compare_digest(each.encode(), given) for each in wanted)


def read_callback(form: Form) -> Report | None:
    """The report in the form; None if it holds none."""
    sid = form.get("MessageSid") or form.get("SmsSid") or ""
    word = form.get("MessageStatus") or form.get("SmsStatus") or ""
    if not word or not _SID.fullmatch(sid):
        return None
    return report_of(
        sid, word, form.get("ErrorCode"), occurred_at=sms.carrier_time(form.get("RawDlrDoneDate", ""))
    )


def report_of(sid: str, word: str, code: str | None, *, occurred_at: datetime | None = None) -> Report:
    known = code if code is not None and _CODE.fullmatch(code) and code != "0" else None
    return sms.report_of(sid, word, STATUSES, TABLE, known, occurred_at)


def read_wish(form: Form) -> Wish | None:
    """What an inbound message asks for. `OptOutType` is present if the account has Advanced Opt-Out, which knows
    more words and languages than we do (https://www.twilio.com/docs/messaging/tutorials/advanced-opt-out)."""
    told = form.get("OptOutType", "").strip().upper()
    if told in Wish.__members__:
        return Wish(told)
    return _KEYWORDS.get(form.get("Body", "").strip().upper())
