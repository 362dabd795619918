"""The page of suppressions: look up a recipient, suppress one, or lift a suppression. URLs never contain a
recipient."""

from __future__ import annotations

from typing import Annotated, Any
from urllib.parse import urlencode

from fastapi import APIRouter, Form, Query, Request, Response
from pydantic import BaseModel, Field

from notifier.api.schemas import Words, read_cursor, read_filter, write_cursor
from notifier.console.forms import ActForm, Day, Empty
from notifier.console.parts import ConsoleParts, PartsDep
from notifier.console.session import OperatorThere, PageRoute
from notifier.domain.local_days import day_bounds
from notifier.domain.statuses import Channel, SuppressionReason
from notifier.feedback.suppressions import GLOBAL
from notifier.operations.api_keys import Holder
from notifier.operations.lookup import record_read
from notifier.store.filters import Filter
from notifier.store.suppressions import SuppressionFilter

router = APIRouter(route_class=PageRoute, include_in_schema=False)

#: Suppressions on a page.
PAGE = 50

ScopeText = Annotated[str, Field(max_length=120)]


class SuppressionQuery(BaseModel):
    """Which suppressions, as the page's URL has it."""

    reason: Annotated[SuppressionReason | None, Empty] = None
    scope: Annotated[ScopeText | None, Empty] = None
    source: Annotated[Words | None, Empty] = None
    channel: Annotated[Channel | None, Empty] = None
    ended: bool = False
    after: Annotated[str | None, Field(max_length=50)] = None


class WhomForm(ActForm):
    """A recipient: an address, or a number such as +15550100123."""

    address: Annotated[str, Field(max_length=320)]

    @property
    def recipient(self) -> dict[str, Any]:
        address = self.address.strip()
        return {"channel": Channel.EMAIL if "@" in address else Channel.SMS, "address": address}


class SuppressForm(WhomForm):
    scope: Annotated[ScopeText, Empty] = GLOBAL
    suppression: SuppressionReason = SuppressionReason.MANUAL
    #: The last day, in the service's time zone; None: the suppression never ends by itself.
    last_day: Day = None


class LiftForm(WhomForm):
    scope: ScopeText = GLOBAL
    suppression: SuppressionReason


@router.get("/suppressions")
def suppressions(
    parts: PartsDep, _: OperatorThere, request: Request, wanted: Annotated[SuppressionQuery, Query()]
) -> Response:
    conditions = read_filter(SuppressionFilter, wanted, with_ended=wanted.ended)
    found, last = parts.api.suppressions.page(conditions, limit=PAGE, before=read_cursor(wanted.after))
    query = wanted.model_dump(mode="json", exclude={"after"}, exclude_defaults=True)
    following = None if last is None else urlencode({**query, "after": write_cursor(last)})
    return parts.pages.page(
        request,
        "suppressions.html",
        found=found,
        form=wanted.model_dump(mode="json"),
        following=following,
        reasons=list(SuppressionReason),
    )


@router.post("/suppressions/look-up")
def look_up(
    parts: PartsDep, visitor: OperatorThere, request: Request, form: Annotated[WhomForm, Form()]
) -> Response:
    page = _history(parts, request, form)
    whom = form.recipient
    wanted = Filter(recipient=whom["address"], channel=whom["channel"])
    record_read(parts.api.operator_actions, visitor.holder, "look_up", wanted)
    return page


@router.post("/suppressions/add")
def add(
    parts: PartsDep, visitor: OperatorThere, request: Request, form: Annotated[SuppressForm, Form()]
) -> Response:
    ends = None if form.last_day is None else day_bounds(form.last_day, parts.services.settings.timezone)[1]
    is_new = parts.api.suppressions.add(
        **form.recipient,
        **_scoped(form, visitor.holder),
        expires_at=ends,
    )
    said = "They are suppressed from now on." if is_new else "They were suppressed already, for this reason."
    return _history(parts, request, form, done={"lines": [said], "form": form})


@router.post("/suppressions/lift")
def lift(parts: PartsDep, visitor: OperatorThere, request: Request, form: Annotated[LiftForm, Form()]) -> Response:
    is_lifted = parts.api.suppressions.lift(**form.recipient, **_scoped(form, visitor.holder))
    said = "It is lifted." if is_lifted else "Nothing was done: it ended meanwhile."
    return _history(parts, request, form, done={"lines": [said], "form": form})


def _scoped(form: SuppressForm | LiftForm, holder: Holder) -> dict[str, Any]:
    source = f"operator:{holder.operator}"
    return {"scope": form.scope, "reason": form.suppression, "source": source, "detail": form.why}


def _history(parts: ConsoleParts, request: Request, form: WhomForm, **more: Any) -> Response:
    found = parts.api.suppressions.find(**form.recipient)
    return parts.pages.page(
        request,
        "suppressed.html",
        whom=form.recipient["address"],
        channel=form.recipient["channel"],
        found=found,
        is_suppressed=any(one.state == "active" for one in found),
        reasons=list(SuppressionReason),
        **{"done": None, **more},
    )
