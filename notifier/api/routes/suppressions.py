"""Routes for suppressions. The recipient is in the body, because URLs are written to logs."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query
from pydantic import BaseModel, ConfigDict, Field

from notifier.api import openapi_examples
from notifier.api.auth import Operator
from notifier.api.dependencies import SuppressionsDep
from notifier.api.errors import Refusal
from notifier.api.routers import keyed_router
from notifier.api.schemas import ListPage, PageQuery, Storable, Words, read_filter, write_cursor
from notifier.domain.statuses import Channel, SuppressionReason
from notifier.domain.times import Instant
from notifier.feedback.suppressions import GLOBAL
from notifier.store.suppressions import SuppressionFilter, SuppressionView

router = keyed_router("suppressions", 400, 404, 413)

ScopeText = Annotated[
    Storable, Field(max_length=120, description="`global`, `sender:<identity>` or `category:<name>`.")
]
Detail = Annotated[str | None, Field(max_length=500, description="Why, in your words; kept with the suppression.")]


class SuppressionSearch(PageQuery):
    """Which ones. All that is given must hold."""

    channel: Channel | None = None
    scope: ScopeText | None = None
    reason: SuppressionReason | None = None
    source: Annotated[Words | None, Field(description="Where it comes from, such as `provider:twilio`.")] = None
    since: Annotated[Instant | None, Field(description="Made at or after this time; RFC 3339.")] = None
    until: Annotated[Instant | None, Field(description="Made before this time.")] = None
    ended: Annotated[bool, Field(description="Also those that were lifted or have expired.")] = False


class SuppressionPage(ListPage[SuppressionView]):
    """Newest first, as hashes: addresses are not kept."""


class Whom(BaseModel):
    """A recipient on a channel."""

    model_config = ConfigDict(extra="forbid")

    channel: Channel
    #: E-mail address, or E.164 number.
    address: Words


class Suppress(Whom):
    """A suppression to add."""

    model_config = ConfigDict(json_schema_extra={"examples": [openapi_examples.SUPPRESS]})

    scope: ScopeText = GLOBAL
    reason: SuppressionReason = SuppressionReason.MANUAL
    #: When it ends by itself; left out: never.
    expires_at: Instant | None = None
    detail: Detail = None


class Lift(Whom):
    """A suppression to lift."""

    scope: ScopeText = GLOBAL
    #: Lift only suppressions with this reason; left out: all within the scope.
    reason: SuppressionReason | None = None
    detail: Detail = None


class Suppressed(BaseModel):
    """The result."""

    #: Whether it did not exist before.
    is_new: bool


class Lifted(BaseModel):
    """Messages may be sent to the recipient again."""

    is_lifted: bool


class History(BaseModel):
    """Every suppression of a recipient, newest first."""

    is_suppressed: bool
    items: list[SuppressionView]


@router.get("/v1/suppressions", summary="List suppressions")
def suppressions(
    suppressions: SuppressionsDep, _: Operator, wanted: Annotated[SuppressionSearch, Query()]
) -> SuppressionPage:
    """Suppressed recipients, newest first: since when, why, and on whose word."""
    conditions = read_filter(SuppressionFilter, wanted, with_ended=wanted.ended)
    found, following = suppressions.page(conditions, limit=wanted.limit, before=wanted.before)
    return SuppressionPage(items=found, next=None if following is None else write_cursor(following))


@router.post("/v1/suppressions/search", summary="Is a recipient suppressed?")
def search_suppressions(suppressions: SuppressionsDep, _: Operator, whom: Whom) -> History:
    """Whether a recipient is suppressed, and every earlier suppression, with who ended it."""
    found = suppressions.find(whom.channel, whom.address)
    return History(is_suppressed=any(one.state == "active" for one in found), items=found)


@router.post("/v1/suppressions", summary="Suppress a recipient")
def suppress(suppressions: SuppressionsDep, holder: Operator, wanted: Suppress) -> Suppressed:
    """Suppress a recipient within this scope. Repeating the request changes nothing."""
    return Suppressed(is_new=suppressions.add(source=f"operator:{holder.operator}", **dict(wanted)))


@router.post("/v1/suppressions/lift", summary="Lift a suppression")
def lift_suppression(suppressions: SuppressionsDep, holder: Operator, wanted: Lift) -> Lifted:
    """Lift a suppression. The record keeps it, with who ended it."""
    if not suppressions.lift(source=f"operator:{holder.operator}", **dict(wanted)):
        raise Refusal(404, "there is no suppression with this scope and reason")
    return Lifted(is_lifted=True)
