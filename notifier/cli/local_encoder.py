"""Checks a message that is not sent against the local templates, so that one answer has everything that is
wrong."""

from __future__ import annotations

from pathlib import Path

from notifier.client.messages import MessageEncoder
from notifier.domain.errors import Fault
from notifier.domain.message import Message
from notifier.domain.statuses import Channel
from notifier.rendering import Renderer


class LocalEncoder(MessageEncoder):
    """Also checks messages against the templates of one folder. A template that is not in it is left to the
    service."""

    def __init__(self, folder: Path, producer: str) -> None:
        super().__init__(producer=producer)
        self._renderer = Renderer(folder)

    def _template_faults(self, message: Message) -> list[Fault]:
        channel, template = message.channel, message.template
        if channel is None or template not in self._renderer.names(channel):
            return []
        return self._renderer.check_context(channel, template, message.context)

    def _channel_of(self, template: object) -> Channel | None:
        return self._renderer.channel_of(template)
