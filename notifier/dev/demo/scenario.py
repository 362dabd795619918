"""What the demo publishes: every shipped template except the heartbeat's, in three languages, and typical
failures."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from notifier.dev.smtp_server import Rule
from notifier.domain.statuses import Channel, Lane, Reason, Status
from notifier.operations.heartbeats import TEMPLATE as HEARTBEAT
from notifier.rendering import Renderer

LOCALES = ("en", "fr", "zh-Hans")
#: Locale → the customer who reads it. Domains and numbers are reserved for examples.
MAILBOXES = {
    "en": "Ada Okafor <ada@example.com>",
    "fr": "Chloé Lefèvre <chloe@example.com>",
    "zh-Hans": "王小明 <xiaoming@example.com>",
}
NUMBERS = {"en": "+15550100101", "fr": "+15550100102", "zh-Hans": "+15550100103"}
LANES = {
    "password_reset": Lane.URGENT,
    "login_code": Lane.URGENT,
    "weekly_digest": Lane.BULK,
}

#: Its server answers 451 once, so the second attempt succeeds.
BUSY_MAILBOX = "busy@example.com"
MAIL_RULES = (Rule(BUSY_MAILBOX, reply="451 4.3.0 mailbox busy, try again later", times=1),)
#: Twilio's own test number for "not a valid number" (error 21211).
REFUSED_NUMBER = "+15005550001"
#: A message on the e-mail queue that cannot be parsed.
MALFORMED = b'{"producer": "shop", "to": "ada@example.com", "template": '


@dataclass(frozen=True, slots=True)
class Planned:
    """One message, and how it must end."""

    title: str
    channel: Channel
    lane: Lane
    template: str
    to: str
    locale: str
    context: dict[str, Any]
    status: Status = Status.SENT
    attempts: int = 1
    reason: Reason | None = None
    #: Whether the demo shows its story, because it shows more than success.
    is_told: bool = False

    @property
    def key(self) -> str:
        return f"demo:{self.template}:{self.title}"


def plan(renderer: Renderer, *, with_receipts: bool) -> list[Planned]:
    """All messages except the malformed one and the duplicate, in order of publishing.

    `with_receipts`: somebody listens for delivery receipts of SMS.
    """
    code = _sample(renderer, Channel.SMS, "login_code", "en")
    reset = _sample(renderer, Channel.EMAIL, "password_reset", "en")
    return [
        *_every_template(renderer, Status.DELIVERED if with_receipts else Status.SENT),
        Planned(
            "a number that Twilio refuses",
            Channel.SMS,
            Lane.URGENT,
            "login_code",
            REFUSED_NUMBER,
            "en",
            code,
            Status.FAILED,
            reason=Reason.INVALID_RECIPIENT,
            is_told=True,
        ),
        Planned(
            "a mailbox that is busy at first",
            Channel.EMAIL,
            Lane.URGENT,
            "password_reset",
            BUSY_MAILBOX,
            "en",
            reset,
            attempts=2,
            is_told=True,
        ),
    ]


def _every_template(renderer: Renderer, text: Status) -> Iterator[Planned]:
    for channel, people in ((Channel.EMAIL, MAILBOXES), (Channel.SMS, NUMBERS)):
        for name in sorted({*renderer.names(channel)} - {HEARTBEAT}):
            if renderer.template(channel, name).html_names:
                continue  # a producer's own content has no sample to show in any language
            for locale in LOCALES:
                lane = LANES.get(name, Lane.NORMAL)
                context = _sample(renderer, channel, name, locale)
                status = text if channel is Channel.SMS else Status.SENT
                yield Planned(f"in {locale}", channel, lane, name, people[locale], locale, context, status)


def _sample(renderer: Renderer, channel: Channel, name: str, locale: str) -> dict[str, Any]:
    """The template's sample for this language, or otherwise its first sample."""
    samples = renderer.template(channel, name).samples
    fitting = [sample for sample in samples if sample.locale == locale]
    return dict((fitting or samples)[0].context)
