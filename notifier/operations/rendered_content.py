"""Shows people what a recipient read, or will read, by rendering it again from the record.

The text of a message is not stored, only its context and its template. The values of `secret` variables are not
read for this; dots stand for them.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from notifier.domain.errors import CannotOpen, NotFound, RenderingFailed, TemplateInvalid
from notifier.domain.statuses import Channel
from notifier.rendering import Rendered, Renderer, Template, Type, segments
from notifier.store.message_content import ContentRepository, StoredContent

DOTS = "••••••"
#: Used when counting segments, because a dot is not in the GSM alphabet while a code is.
_LETTERS = "xxxxxx"


@dataclass(frozen=True, slots=True)
class RenderedContent:
    #: None: `problem` says why.
    rendered: Rendered | None
    #: What prevents it and what to do, in whole sentences; "" if nothing does.
    problem: str = ""
    #: Variables for which dots stand.
    secrets: tuple[str, ...] = ()
    #: The template's version in the record.
    kept_version: str = ""

    @property
    def is_changed(self) -> bool:
        """Whether the template has changed since: then this is not exactly what was sent."""
        return self.rendered is not None and self.rendered.version != self.kept_version


class RenderedContents:
    """Renders contents again. Thread-safe."""

    def __init__(self, contents: ContentRepository, renderer: Renderer) -> None:
        self._contents = contents
        self._renderer = renderer

    def find(self, notification_id: UUID) -> RenderedContent:
        """The content of a notification that the caller may see.

        Raises:
            NotFound: no notification has this id.
            ServiceUnavailable: the database is unreachable.
        """
        try:
            stored = self._contents.find(notification_id)
        except CannotOpen as error:
            return RenderedContent(None, f"It cannot be decrypted: {error}.")
        if stored.context is None:
            return RenderedContent(None, "It was redacted: its recipient and its variables are gone for good.")
        try:
            return self._render(stored, stored.context)
        except (NotFound, TemplateInvalid):
            return RenderedContent(
                None, f"The template {stored.template} is gone or broken: notifier templates check says more."
            )
        except RenderingFailed as error:
            return RenderedContent(None, f"The template does not render with what is kept of it: {error}.")

    def _render(self, stored: StoredContent, context: Mapping[str, Any]) -> RenderedContent:
        channel = Channel(stored.channel)
        template = self._renderer.template(channel, stored.template)
        hidden = _secrets(template, stored, context)

        def render(mark: str) -> Rendered:
            shown = {**context, **{name: _hidden(template, name, mark) for name in hidden}}
            return self._renderer.render(channel, stored.template, stored.locale, shown)

        rendered = render(DOTS)
        if hidden and rendered.segments is not None:
            rendered = replace(rendered, segments=segments(render(_LETTERS).text))
        return RenderedContent(rendered, secrets=tuple(hidden), kept_version=stored.template_version)


def _secrets(template: Template, stored: StoredContent, context: Collection[str]) -> list[str]:
    """The message's secrets, and variables that have become secrets since."""
    declared = template.secret_names
    if stored.secret_names == ():
        # Nobody knows which of them the message had.
        return sorted(declared)
    return sorted({*(stored.secret_names or ()), *declared.intersection(context)})


def _hidden(template: Template, name: str, mark: str) -> str:
    variable = template.variables.get(name)
    return f"https://{mark}" if variable is not None and variable.type is Type.URL else mark
