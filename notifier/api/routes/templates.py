"""Routes for templates, rejected messages and providers."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from fastapi import Query
from pydantic import BaseModel, Field

from notifier.api.auth import Operator, SenderOrReader
from notifier.api.dependencies import AuditDep, ProvidersDep, RendererDep
from notifier.api.errors import Refusal, refusal
from notifier.api.routers import keyed_router
from notifier.api.schemas import PageQuery, PreviewRequest, RejectedMessageView, RejectedPage
from notifier.domain.statuses import Channel
from notifier.operations import template_previews
from notifier.operations.api_keys import Scope
from notifier.operations.providers import ProviderView
from notifier.rendering import Segments, Template, Type

router = keyed_router("look", 400, 404, 413)


class MemberShape(BaseModel):
    """The type of a member of an object, or of the entries of a list."""

    type: Type
    required: bool
    description: str
    #: Entries of a list.
    of: MemberShape | None = None
    #: Members of an object.
    fields: dict[str, MemberShape] = Field(default_factory=dict)


class VariableShape(MemberShape):
    """A variable that a template declares."""

    #: Its value is never shown.
    secret: bool


class TemplateShape(BaseModel):
    """What a template declares."""

    channel: Channel
    name: str
    #: It cannot be used: `notifier templates check` says why.
    is_broken: bool
    version: str | None = None
    description: str | None = None
    default_locale: str | None = None
    locales: list[str] = Field(default_factory=list)
    #: Kind of message, which recipients can suppress by itself.
    category: str | None = None
    #: False: its mails carry an unsubscribe link for their category.
    transactional: bool = True
    #: It is sent even if the recipient opted out.
    suppression_exempt: bool = False
    variables: dict[str, VariableShape] = Field(default_factory=dict)


class Rendering(BaseModel):
    """A rendered template."""

    template: str
    version: str
    #: The language that was found, not the one that was asked for.
    locale: str
    #: "" for SMS.
    subject: str
    text: str
    html: str | None
    #: SMS only.
    segments: Segments | None


@router.get("/v1/templates", summary="Templates")
def templates(renderer: RendererDep, holder: SenderOrReader) -> list[TemplateShape]:
    """Every template that the key may use, with its languages and what it needs."""
    return [
        _shape(channel, name, template)
        for channel in Channel
        for name, template in template_previews.seen_templates(renderer, holder, channel).items()
    ]


def _shape(channel: Channel, name: str, template: Template | None) -> TemplateShape:
    if template is None:
        return TemplateShape(channel=channel, name=name, is_broken=True)
    variables = {key: VariableShape.model_validate(one.model_dump()) for key, one in template.variables.items()}
    names = TemplateShape.model_fields.keys() - {"channel", "name", "is_broken", "variables"}
    found = {field: getattr(template, field) for field in names}
    return TemplateShape(channel=channel, name=name, is_broken=False, variables=variables, **found)


@router.post("/v1/templates/{channel}/{name}/preview", summary="Preview a template")
def preview(
    renderer: RendererDep, holder: SenderOrReader, channel: Channel, name: str, wanted: PreviewRequest
) -> Rendering:
    """The template rendered with a context, or with its first sample. Sends nothing."""
    if not_its_own := template_previews.unseen_faults(renderer, holder, channel, name):
        raise refusal(not_its_own)
    template = renderer.template(channel, name)
    context, locale = wanted.context, wanted.locale
    if context is None:
        if not template.samples:
            raise Refusal(422, f"the template {name} has no sample: give a context")
        context, locale = dict(template.samples[0].context), locale or template.samples[0].locale
    faults = renderer.check_context(channel, name, context)
    if faults:
        raise refusal(faults, {"context": context})
    rendered = template_previews.preview(renderer, channel, name, locale, context)
    names = Rendering.model_fields
    return Rendering(**{name: getattr(rendered, name) for name in names})


@router.get("/v1/rejected-messages", summary="Rejected messages")
def rejected(audit: AuditDep, _: Operator, wanted: Annotated[PageQuery, Query()]) -> RejectedPage:
    """Messages from the broker that were not accepted, newest first, with every reason."""
    page = audit.rejected(limit=wanted.limit, before=wanted.before)
    items = [RejectedMessageView.of(view, whole=False) for view in page]
    return RejectedPage(items=items, next=wanted.next([one.id for one in page]))


@router.get("/v1/rejected-messages/{message:uuid}", summary="One rejected message")
def rejected_message(audit: AuditDep, holder: Operator, message: UUID) -> RejectedMessageView:
    """Every reason; admins also get the body and headers."""
    return RejectedMessageView.of(audit.rejected_message(message), whole=holder.may(Scope.ADMIN))


@router.get("/v1/providers", summary="Providers")
def providers(providers: ProvidersDep, _: Operator) -> list[ProviderView]:
    """Each configured provider: in use, paused, or with an open circuit; and its calls in the last minute."""
    return providers.providers()
