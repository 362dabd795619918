"""The local mail server and the local Twilio, with a record of every call that reaches them."""

from __future__ import annotations

from collections import Counter
from uuid import UUID

from notifier.dev.faults import Faults, RuleT
from notifier.dev.smtp_faults import Rule
from notifier.dev.smtp_server import MailServer
from notifier.dev.twilio_faults import TwilioRule
from notifier.dev.twilio_server import TwilioServer

#: Every call takes a moment, as at real providers; otherwise no fault would ever meet a call.
LATENCY_SECONDS = 0.08


#: What the providers do while nothing is wrong.
MAIL_LATENCY = Rule("*", stage="body", delay_seconds=LATENCY_SECONDS)
SMS_LATENCY = TwilioRule("*", delay_seconds=LATENCY_SECONDS)
_MANY = 10_000


class RecordedFaults(Faults[RuleT]):
    """Counts the POSTs to Twilio, or the mail transactions that reached RCPT."""

    def __init__(self, latency: RuleT) -> None:
        super().__init__([latency])
        self._latency = latency
        #: Recipient → number of calls.
        self.calls: Counter[str] = Counter()
        #: How often a fault was applied.
        self.struck = 0

    def clear(self) -> None:
        super().clear()
        self.add(self._latency)

    def find(self, *recipients: str, stage: str | None = None) -> RuleT | None:
        if stage in (None, "rcpt"):
            self.calls.update(recipients)
        rule = super().find(*recipients, stage=stage)
        self.struck += rule not in (None, self._latency)
        return rule


class Providers:
    """Both servers, and what they received."""

    def __init__(self) -> None:
        self.mail_faults, self.sms_faults = RecordedFaults(MAIL_LATENCY), RecordedFaults(SMS_LATENCY)
        self.mail, self.twilio = MailServer(), TwilioServer()
        self.mail.faults, self.twilio.faults = self.mail_faults, self.sms_faults

    def heal(self) -> None:
        self.mail_faults.clear()
        self.sms_faults.clear()
        self.mail.max_connections = _MANY

    def calls(self) -> Counter[str]:
        """Recipient → calls that reached a provider, including refused ones."""
        # Each is copied in one step, because calls go on at the same time.
        return Counter(dict(self.mail_faults.calls)) + Counter(dict(self.sms_faults.calls))

    def accepted(self) -> Counter[str]:
        """Recipient → messages that a provider accepted. Every message of the suite has its own recipient."""
        mails = Counter(mail.rcpt_to[0] for mail in self.mail.messages)
        return mails + Counter(sms.to for sms in self.twilio.messages)

    @property
    def struck(self) -> int:
        """How often they misbehaved on purpose."""
        return self.mail_faults.struck + self.sms_faults.struck + self.mail.turned_away

    def strangers(self) -> int:
        """Mails whose Message-ID does not contain a notification's id; there must be none."""
        return sum(not _is_id(mail.message_id) for mail in self.mail.messages)


def _is_id(message_id: str) -> bool:
    try:
        return UUID(message_id.strip("<>").partition("@")[0]).version == 7
    except ValueError:
        return False
