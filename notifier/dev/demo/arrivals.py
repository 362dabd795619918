"""Opens what arrived: parses every mail with Python's own parser, and compares every SMS with what should have
been sent."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from email import message_from_bytes, policy
from email.message import EmailMessage, MIMEPart
from email.utils import parseaddr

from notifier.dev.demo.scenario import Planned
from notifier.dev.smtp_server import MailServer
from notifier.dev.twilio_server import TwilioServer
from notifier.domain.statuses import Channel, Status
from notifier.rendering import Rendered, Renderer


def check_arrivals(
    planned: Iterable[Planned], renderer: Renderer, mail: MailServer, twilio: TwilioServer
) -> Iterator[str]:
    sent = [one for one in planned if one.status in (Status.SENT, Status.DELIVERED)]
    mails = [message_from_bytes(kept.content, policy=policy.default) for kept in mail.messages]
    for message in mails:
        yield from _defects(message)
    expected_mails = [one for one in sent if one.channel is Channel.EMAIL]
    expected_texts = [one for one in sent if one.channel is Channel.SMS]
    if len(mails) != len(expected_mails):
        yield f"{len(mails)} mails arrived instead of {len(expected_mails)}"
    if len(twilio.messages) != len(expected_texts):
        yield f"{len(twilio.messages)} SMS arrived instead of {len(expected_texts)}"
    for one in expected_mails:
        rendered = renderer.render(one.channel, one.template, one.locale, one.context)
        if not any(_is_mail(message, one, rendered) for message in mails):
            yield f"the mail {one.template} to {one.to} did not arrive as it was rendered"
    for one in expected_texts:
        rendered = renderer.render(one.channel, one.template, one.locale, one.context)
        segments = rendered.segments.count if rendered.segments else 0
        if not any((m.to, m.body, m.num_segments) == (one.to, rendered.text, segments) for m in twilio.messages):
            yield f"the SMS {one.template} to {one.to} did not arrive as it was rendered"


def _defects(message: EmailMessage) -> Iterator[str]:
    for part in message.walk():
        for defect in part.defects:
            yield f"mail {message['Message-ID']}: {type(defect).__name__}"


def _is_mail(message: EmailMessage, one: Planned, rendered: Rendered) -> bool:
    text, html = message.get_body(("plain",)), message.get_body(("html",))
    return (
        parseaddr(message["To"])[1] == parseaddr(one.to)[1]
        and message["Subject"] == rendered.subject
        and text is not None
        and _content(text) == rendered.text.strip()
        and (rendered.html is None or (html is not None and _content(html) == rendered.html.strip()))
    )


def _content(part: MIMEPart) -> str:
    content: str = part.get_content()
    return content.replace("\r\n", "\n").strip()
