"""The page of what waits for a person's decision: unknown outcomes, held suppressions, unread returned mails."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Form, Query, Request, Response
from pydantic import BaseModel, Field

from notifier.api.schemas import read_cursor, write_cursor
from notifier.console.forms import ActForm, Condition
from notifier.console.outcomes import said
from notifier.console.parts import ConsoleParts, PartsDep
from notifier.console.routes.rejected import as_text
from notifier.console.session import AdminThere, OperatorThere, PageRoute
from notifier.domain.statuses import Status
from notifier.operations import Resolution, Selection
from notifier.store.filters import Filter
from notifier.store.held_suppressions import HeldFilter

router = APIRouter(route_class=PageRoute, include_in_schema=False)

#: How many unknown outcomes and held suppressions are shown as examples; how many unread returned mails on a page.
SHOWN, UNREAD_SHOWN = 10, 50


class UnknownConditions(BaseModel):
    """Unknown outcomes of this provider and template."""

    provider: Condition = None
    template: Condition = None

    @property
    def group(self) -> dict[str, str | None]:
        return {"provider": self.provider, "template": self.template}

    @property
    def filter(self) -> Filter:
        return Filter(status=Status.UNKNOWN, provider=self.provider, template=self.template)


class UnknownQuery(UnknownConditions):
    """The conditions, as the page's URL has them."""

    #: Show unread returned mails before this one.
    unread_after: Annotated[str | None, Field(max_length=50)] = None


class ResolveForm(UnknownConditions, ActForm):
    """Resolve every outcome that the conditions find, or the one with this id."""

    notification: UUID | None = None
    resolution: Resolution

    @property
    def selection(self) -> Selection:
        if self.notification is not None:
            return Selection(ids=(self.notification,))
        return Selection(filter=self.filter)


class HeldForm(ActForm):
    """Suppressions held by a mass alarm: of one provider or sender identity, or all."""

    provider: Condition = None
    sender: Condition = None
    #: True: suppress these recipients. False: delete what was held.
    apply: Annotated[bool, Field()]


@router.get("/unknown")
def unknown(
    parts: PartsDep, _: OperatorThere, request: Request, wanted: Annotated[UnknownQuery, Query()]
) -> Response:
    return _page(parts, request, wanted)


@router.post("/unknown/resolve")
def resolve(
    parts: PartsDep, visitor: OperatorThere, request: Request, form: Annotated[ResolveForm, Form()]
) -> Response:
    how: dict[str, Any] = {"operator": visitor.holder.operator, "reason": form.why, "dry_run": form.dry_run}
    done = parts.api.operations.resolve(form.selection, form.resolution, **how)
    verb = "recorded as sent" if form.resolution is Resolution.SENT else "sent again"
    return _page(parts, request, UnknownQuery(**form.group), done=said(done, verb, "notification", form))


@router.post("/held/end")
def end_held(
    parts: PartsDep, visitor: OperatorThere, request: Request, form: Annotated[HeldForm, Form()]
) -> Response:
    wanted = HeldFilter(provider=form.provider, sender=form.sender)
    how: dict[str, Any] = {"operator": visitor.holder.operator, "reason": form.why, "dry_run": form.dry_run}
    done = parts.services.held.end(wanted, apply=form.apply, **how)
    verb = "applied" if form.apply else "discarded"
    return _page(parts, request, UnknownQuery(), done=said(done, verb, "held suppression", form))


@router.get("/unread/{bounce:uuid}")
def unread(parts: PartsDep, _: AdminThere, request: Request, bounce: UUID) -> Response:
    """The text of a returned mail. It may quote the whole mail with its secrets, so only admins see it, like
    bodies of messages."""
    found = parts.services.unread.find(bounce)
    return parts.pages.page(request, "unread.html", mails=[(one, as_text(one.content)) for one in found])


def _page(parts: ConsoleParts, request: Request, wanted: UnknownQuery, **more: Any) -> Response:
    services = parts.services
    unread = services.unread.page(limit=UNREAD_SHOWN, before=read_cursor(wanted.unread_after))
    groups = parts.api.operator_actions.preview(Selection(filter=Filter(status=Status.UNKNOWN)), (Status.UNKNOWN,))
    return parts.pages.page(
        request,
        "unknown.html",
        groups=[(group, _address(group.provider, group.template)) for group in groups],
        unknown=sum(group.count for group in groups),
        with_look_up=parts.api.providers.with_look_up,
        found=parts.api.audit.search(wanted.filter, limit=SHOWN) if groups else [],
        query=wanted.group,
        search=urlencode({"status": Status.UNKNOWN, **{name: one for name, one in wanted.group.items() if one}}),
        shown=SHOWN,
        holding=services.held.stuck(),
        held=services.held.page(HeldFilter(), limit=SHOWN),
        unread=unread,
        unread_following=write_cursor(unread[-1].id) if len(unread) == UNREAD_SHOWN else None,
        **{"done": None, **more},
    )


def _address(provider: str | None, template: str) -> str:
    query = {name: value for name, value in (("provider", provider), ("template", template)) if value}
    return f"/unknown?{urlencode(query)}#resolve"
