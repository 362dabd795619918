"""Shows what templates make of a context, in every language, before anything is sent."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from pydantic_core import from_json

from notifier.domain.errors import Fault, InvalidMessage, NotFound, RenderingFailed, TemplateInvalid
from notifier.domain.statuses import Channel
from notifier.operations.api_keys import Holder
from notifier.rendering import Rendered, Renderer, Template, limited_time

#: Processor time for a preview in every language. Anybody with the scope `read` may ask for one as often as they
#: like.
MAX_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class TemplatePreview:
    locale: str
    #: None: `problem` says why.
    rendered: Rendered | None
    #: File and line, and what to do; "" if nothing is wrong. Repeats no value.
    problem: str = ""


def seen_templates(renderer: Renderer, holder: Holder, channel: Channel) -> dict[str, Template | None]:
    """The templates of a channel that the holder may see, by name. None: the template is broken."""
    found: dict[str, Template | None] = {}
    for name in renderer.names(channel):
        try:
            if not unseen_faults(renderer, holder, channel, name):
                found[name] = renderer.template(channel, name)
        except TemplateInvalid:
            found[name] = None
        except NotFound:  # removed since the names were read
            continue
    return found


def unseen_faults(renderer: Renderer, holder: Holder, channel: Channel, name: str) -> list[Fault]:
    """Why the holder may not see this template: whoever may not send it or write its HTML may not see it either.

    Raises `NotFound`, but only to a holder that may know that the template does not exist. What a broken template
    declares is unknown.
    """
    if faults := holder.template_faults(channel, name):
        return faults
    try:
        writes_html = bool(renderer.template(channel, name).html_names)
    except TemplateInvalid:
        return []
    return holder.own_html_faults() if writes_html else []


def read_context(text: str) -> dict[str, Any]:
    """Read the JSON object that somebody typed. Raises `InvalidMessage`."""
    try:
        context = from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise _wrong(f"is not JSON: {error}", "Correct it there") from None
    if not isinstance(context, dict):
        raise _wrong("is not an object", 'Write variables and values, such as {"name": "Ada"}')
    return context


def _wrong(problem: str, fix: str) -> InvalidMessage:
    return InvalidMessage([Fault("context", "not_json", problem, fix)])


def previews(renderer: Renderer, channel: Channel, name: str, context: Mapping[str, Any]) -> list[TemplatePreview]:
    """A preview for each language of the template, the default one first.

    Raises:
        InvalidMessage: variables are missing or have the wrong type.
        NotFound: there is no such template.
        TemplateInvalid: it is broken.
    """
    template = renderer.template(channel, name)
    faults = renderer.check_context(channel, name, context)
    if faults:
        raise InvalidMessage(faults)
    # For all languages together, because people wait for it.
    with limited_time(MAX_SECONDS):
        return [_preview(renderer, channel, name, locale, context) for locale in template.locales]


def preview(
    renderer: Renderer, channel: Channel, name: str, locale: str | None, context: Mapping[str, Any]
) -> Rendered:
    """A preview in one language. Raises what `Renderer.render` raises."""
    with limited_time(MAX_SECONDS):
        return renderer.render(channel, name, locale, context)


def _preview(
    renderer: Renderer, channel: Channel, name: str, locale: str, context: Mapping[str, Any]
) -> TemplatePreview:
    try:
        return TemplatePreview(locale, renderer.render(channel, name, locale, context))
    except RenderingFailed as error:
        return TemplatePreview(locale, None, str(error))
