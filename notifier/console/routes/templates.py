"""The pages of templates: which exist, what is wrong with them, and what they make of a context."""

from __future__ import annotations

import json
from collections import defaultdict
from typing import Annotated, Any

from fastapi import APIRouter, Form, Query, Request, Response

from notifier.api.errors import Refusal
from notifier.console.frames import Theme, framed
from notifier.console.parts import ConsoleParts, PartsDep
from notifier.console.session import PageRoute, ReaderThere
from notifier.domain.errors import InvalidMessage, NotFound, TemplateInvalid
from notifier.domain.statuses import Channel
from notifier.operations import template_previews
from notifier.operations.api_keys import Holder
from notifier.operations.template_previews import previews, read_context
from notifier.rendering import Template, TemplateProblem

router = APIRouter(route_class=PageRoute, include_in_schema=False)

#: Maximum length of a context that somebody types. Characters.
MAX_CONTEXT = 100_000
_Context = Annotated[str, Form(max_length=MAX_CONTEXT)]


@router.get("/templates")
def templates(parts: PartsDep, visitor: ReaderThere, request: Request) -> Response:
    holder, renderer = visitor.holder, parts.api.renderer
    seen = {channel: template_previews.seen_templates(renderer, holder, channel) for channel in Channel}
    problems = defaultdict[str, list[TemplateProblem]](list)
    for problem in parts.template_problems.get():
        problems["/".join(problem.path.split("/")[:2])].append(problem)
    rows = {
        channel: [
            {
                "name": name,
                "problems": problems.pop(f"{channel}/{name}", []),
                "template": found,
            }
            for name, found in seen[channel].items()
        ]
        for channel in Channel
    }
    # The rest are problems of files that templates share, and of templates that the visitor does not see.
    shared = [one for found in problems.values() for one in found] if holder.sees_everything else []
    return parts.pages.page(request, "templates.html", channels=rows, shared=shared)


@router.get("/templates/{channel}/{name}")
def template(
    parts: PartsDep,
    visitor: ReaderThere,
    request: Request,
    channel: Channel,
    name: str,
    sample: Annotated[int, Query(ge=1)] = 1,
) -> Response:
    """Show a template. `sample` is the number of the sample whose context is shown first, from 1."""
    _check_seen(parts, visitor.holder, channel, name)
    found = _usable(parts, channel, name)
    problems = parts.template_checks.problems(name=name)
    values: dict[str, Any] = {
        "channel": channel,
        "title": name,
        "template": found,
        "problems": [one for one in problems if one.path.startswith(f"{channel}/")],
    }
    if found is not None:
        chosen = found.samples[sample - 1] if sample <= len(found.samples) else None
        context = dict(chosen.context) if chosen else {}
        locale = (chosen and chosen.locale) or found.default_locale
        values |= {
            "sample": sample,
            "context": json.dumps(context, ensure_ascii=False, indent=2),
            "locale": locale,
        }
        values |= _rendered(parts, found, values["context"], locale)
    return parts.pages.page(request, "template.html", **values)


@router.post("/templates/{channel}/{name}/preview")
def preview(
    parts: PartsDep,
    visitor: ReaderThere,
    request: Request,
    channel: Channel,
    name: str,
    context: _Context = "",
    locale: Annotated[str, Form(max_length=50)] = "",
) -> Response:
    """The part of the page that is fetched whenever somebody types."""
    _check_seen(parts, visitor.holder, channel, name)
    found = parts.api.renderer.template(channel, name)
    values = _rendered(parts, found, context, locale)
    return parts.pages.page(
        request, "template_preview.html", channel=channel, title=name, template=found, context=context, **values
    )


@router.post("/templates/{channel}/{name}/html")
def html(
    parts: PartsDep,
    visitor: ReaderThere,
    channel: Channel,
    name: str,
    context: _Context,
    locale: Annotated[str, Form(max_length=50)],
    theme: Annotated[Theme, Form()],
) -> Response:
    """The HTML part, shown in a frame."""
    _check_seen(parts, visitor.holder, channel, name)
    rendered = template_previews.preview(parts.api.renderer, channel, name, locale, read_context(context))
    if rendered.html is None:
        raise NotFound(f"the template {name} has no HTML part")
    return framed(rendered.html, theme)


def _check_seen(parts: ConsoleParts, holder: Holder, channel: Channel, name: str) -> None:
    """Raises `Refusal` if the visitor may not see the template, or `NotFound` if they may but it does not
    exist."""
    if holder.sees_template(channel, name) and name not in parts.api.renderer.names(channel):
        raise NotFound(f"there is no {channel} template of this name")
    if template_previews.unseen_faults(parts.api.renderer, holder, channel, name):
        raise Refusal(403, f"your key may not send the {channel} template {name}, so it may not see it")


def _usable(parts: ConsoleParts, channel: Channel, name: str) -> Template | None:
    """The template; None: it is broken."""
    try:
        return parts.api.renderer.template(channel, name)
    except TemplateInvalid:
        return None


def _rendered(parts: ConsoleParts, template: Template, context: str, locale: str) -> dict[str, Any]:
    """The rendering in every language, and in the one that the frames show."""
    try:
        found = previews(parts.api.renderer, template.channel, template.name, read_context(context))
    except InvalidMessage as error:
        return {"faults": error.faults, "previews": [], "shown": None}
    shown = next((one for one in found if one.locale == locale), found[0])
    return {"faults": (), "previews": found, "shown": shown}
