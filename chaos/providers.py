"""The local mail server and the local Twilio, which record every call that reaches them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from uuid import UUID

from notifier.dev.number_faults import NumberFaults
from notifier.dev.smtp_faults import Faults, Rule
from notifier.dev.smtp_faults import Stage as MailStage
from notifier.dev.smtp_server import MailServer
from notifier.dev.twilio_faults import TwilioRule
from notifier.dev.twilio_server import TwilioServer

#: Every call takes a moment, as real ones do; otherwise no fault would ever meet one.
LATENCY_SECONDS = 0.08


class RecordedMailFaults(Faults):
    """Counts the transactions that came as far as RCPT."""

    def __init__(self) -> None:
        super().__init__([_MAIL_LATENCY])
        #: Address → calls.
        self.calls: Counter[str] = Counter()
        #: How often a fault was done.
        self.struck = 0

    def clear(self) -> None:
        """Behave, with the ordinary latency."""
        super().clear()
        self.add(_MAIL_LATENCY)

    def find(self, stage: MailStage, addresses: Sequence[str] = ("",)) -> Rule | None:
        """See `Faults.find`."""
        if stage == "rcpt":
            self.calls.update(addresses)
        rule = super().find(stage, addresses)
        self.struck += rule not in (None, _MAIL_LATENCY)
        return rule


class RecordedSmsFaults(NumberFaults[TwilioRule]):
    """Counts the POSTs."""

    def __init__(self) -> None:
        super().__init__([_SMS_LATENCY])
        #: Number → calls.
        self.calls: Counter[str] = Counter()
        #: How often a fault was done.
        self.struck = 0

    def clear(self) -> None:
        """Behave, with the ordinary latency."""
        super().clear()
        self.add(_SMS_LATENCY)

    def find(self, number: str) -> TwilioRule | None:
        """See `NumberFaults.find`."""
        self.calls[number] += 1
        rule = super().find(number)
        self.struck += rule not in (None, _SMS_LATENCY)
        return rule


_ANY_NUMBER = 10_000
_MAIL_LATENCY = Rule("*", stage="body", delay_seconds=LATENCY_SECONDS)
_SMS_LATENCY = TwilioRule("*", delay_seconds=LATENCY_SECONDS)


class Providers:
    """Both servers, and what they saw."""

    def __init__(self) -> None:
        self.mail_faults, self.sms_faults = RecordedMailFaults(), RecordedSmsFaults()
        self.mail, self.twilio = MailServer(), TwilioServer()
        self.mail.faults, self.twilio.faults = self.mail_faults, self.sms_faults

    def heal(self) -> None:
        """No faults from now on."""
        self.mail_faults.clear()
        self.sms_faults.clear()
        self.mail.max_connections = _ANY_NUMBER

    def calls(self) -> Counter[str]:
        """Recipient → calls that reached a provider, refused ones included."""
        # Copied in one step each: calls go on meanwhile.
        return Counter(dict(self.mail_faults.calls)) + Counter(dict(self.sms_faults.calls))

    def accepted(self) -> Counter[str]:
        """Recipient → messages that a provider took. Every message of the suite has a recipient of its own."""
        mails = Counter(mail.rcpt_to[0] for mail in self.mail.messages)
        return mails + Counter(sms.to for sms in self.twilio.messages)

    @property
    def struck(self) -> int:
        """How often they did something wrong on purpose."""
        return self.mail_faults.struck + self.sms_faults.struck + self.mail.turned_away

    def strangers(self) -> int:
        """Mails whose Message-ID does not hold a notification's id: there must be none."""
        return sum(not _is_id(mail.message_id) for mail in self.mail.messages)


def _is_id(message_id: str) -> bool:
    try:
        return UUID(message_id.strip("<>").partition("@")[0]).version == 7
    except ValueError:
        return False
