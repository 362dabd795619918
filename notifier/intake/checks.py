"""Finds faults of a message that parsing alone cannot find."""

from __future__ import annotations

from functools import partial

from notifier.callbacks.policy import CallbackPolicy
from notifier.config.structure import Structure
from notifier.domain.cloud_events import CONTENT_TYPE as CLOUD_EVENT
from notifier.domain.errors import Fault, NotFound, TemplateInvalid
from notifier.domain.message import Message
from notifier.domain.statuses import Channel
from notifier.intake.producers import Producers
from notifier.providers.mail.address import parse_mailbox
from notifier.rendering import Renderer, Template


class Checks:
    """Checks a message against the templates, the configuration and the rights of its producer."""

    def __init__(
        self, renderer: Renderer, structure: Structure, producers: Producers, callbacks: CallbackPolicy
    ) -> None:
        self._renderer = renderer
        self._structure = structure
        self._producers = producers
        self._callbacks = callbacks

    def faults(self, message: Message, channel: Channel) -> list[Fault]:
        """Check that template, sender and mailbox exist, and that this producer may send the message."""
        faults = self._renderer.check_context(channel, message.template, message.context)
        for name in ("sender", "reply_to"):
            identity = getattr(message, name)
            if identity is not None and identity not in self._structure.senders:
                known = ", ".join(sorted(self._structure.senders)) or "none"
                faults.append(
                    Fault(name, "unknown_sender", "is not a configured sender identity", f"Use one of: {known}")
                )
        if channel is Channel.EMAIL and not is_mailbox(message.to):
            fix = "Write it as name@example.com or Name <name@example.com>"
            faults.append(Fault("to", "not_an_address", "not a valid e-mail address", fix))
        faults += self._producers.limit_faults(message, channel, partial(self._template_sender, message, channel))
        template = self._template(message, channel)
        if template is not None and template.html_names:
            faults += self._producers.own_html_faults(message)
        return faults + self._callbacks.faults(message)

    def channel_of(self, template: object) -> Channel | None:
        """The only channel that has a template of this name. None: none has one, or more than one has."""
        return self._renderer.channel_of(template)

    def _template_sender(self, message: Message, channel: Channel) -> str | None:
        template = self._template(message, channel)
        return None if template is None else template.sender

    def _template(self, message: Message, channel: Channel) -> Template | None:
        try:
            return self._renderer.template(channel, message.template)
        except (NotFound, TemplateInvalid):
            return None  # `check_context` reports it


def is_mailbox(address: str) -> bool:
    """Whether this is a valid address by its syntax; a display name is allowed. No DNS look-up."""
    try:
        parse_mailbox(address)
    except ValueError:
        return False
    return True


def check_encoding(content_type: str | None, content_encoding: str | None) -> list[Fault]:
    """Why a body with these properties cannot be read as plain JSON."""
    faults = []
    kind = (content_type or "application/json").split(";")[0].strip().lower()
    if kind not in ("application/json", "text/json", "application/octet-stream", CLOUD_EVENT):
        fix = "Set content_type (over HTTP, the header Content-Type) to application/json"
        faults.append(Fault("content_type", "wrong_content_type", "is not application/json", fix))
    encoding = (content_encoding or "utf-8").strip().lower()
    if encoding not in ("utf-8", "utf8", "us-ascii", "binary"):
        fix = "Send plain UTF-8, without compression"
        faults.append(Fault("content_encoding", "wrong_content_encoding", "is not UTF-8", fix))
    return faults
