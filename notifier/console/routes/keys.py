"""The page of API keys: who has one, and for what. Admins create, rotate and revoke keys."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, Any
from zoneinfo import ZoneInfo

from fastapi import APIRouter, Form, Path, Request, Response
from pydantic import BaseModel, ConfigDict, Field

from notifier.console.forms import ActForm, Day, Empty
from notifier.console.parts import ConsoleParts, PartsDep
from notifier.console.session import AdminThere, PageRoute
from notifier.domain.local_days import day_bounds
from notifier.domain.statuses import Channel
from notifier.operations.api_keys import Grants, Scope

router = APIRouter(route_class=PageRoute, include_in_schema=False)

KeyId = Annotated[str, Path(pattern=r"^[0-9a-f]{12}$")]


class NewKeyForm(BaseModel):
    """The grants of a new key. Fields left empty limit nothing."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[str, Field(max_length=100)] = ""
    producer: Annotated[Annotated[str, Field(max_length=100)] | None, Empty] = None
    scopes: list[Scope] = Field(default_factory=list)
    channels: list[Channel] = Field(default_factory=list)
    #: Patterns of template names, separated by commas.
    templates: Annotated[str, Field(max_length=1000)] = ""
    rate: Annotated[Annotated[float, Field(gt=0, allow_inf_nan=False)] | None, Empty] = None
    last_day: Day = None
    is_test: bool = False

    def grants(self, zone: ZoneInfo) -> Grants:
        patterns = tuple(one.strip() for one in self.templates.split(",") if one.strip())
        return Grants(
            scopes=tuple(self.scopes),
            name=self.name.strip() or self.producer or "",
            producer=self.producer,
            channels=tuple(self.channels) or None,
            templates=patterns or None,
            rate_per_second=self.rate,
            expires_at=None if self.last_day is None else day_bounds(self.last_day, zone)[1],
            is_test=self.is_test,
        )


class RotateForm(BaseModel):
    #: How many hours the old key stays valid.
    hours: Annotated[float, Field(ge=0, le=8760, allow_inf_nan=False)] = 24


@router.get("/keys")
def keys(parts: PartsDep, _: AdminThere, request: Request) -> Response:
    return _list(parts, request)


@router.post("/keys")
def create(
    parts: PartsDep, visitor: AdminThere, request: Request, form: Annotated[NewKeyForm, Form()]
) -> Response:
    """Create a key. The answer is the only place where it is ever shown."""
    grants = form.grants(parts.services.settings.timezone)
    made = parts.api.keys.create(grants, operator=visitor.holder.operator)
    return _list(parts, request, made=made)


@router.get("/keys/{key}")
def one(parts: PartsDep, _: AdminThere, request: Request, key: KeyId) -> Response:
    return _one(parts, request, key)


@router.post("/keys/{key}/rotate")
def rotate(
    parts: PartsDep, visitor: AdminThere, request: Request, key: KeyId, form: Annotated[RotateForm, Form()]
) -> Response:
    operator = visitor.holder.operator
    made = parts.api.keys.rotate(key, overlap_seconds=form.hours * 3600, operator=operator)
    return _list(parts, request, made=made)


@router.post("/keys/{key}/revoke")
def revoke(
    parts: PartsDep, visitor: AdminThere, request: Request, key: KeyId, form: Annotated[ActForm, Form()]
) -> Response:
    changed = parts.api.keys.revoke(key, operator=visitor.holder.operator, reason=form.why)
    said = "It is revoked: its next request is refused." if changed else "It was revoked already."
    plans = parts.api.keys.plans_left(key)
    return _one(parts, request, key, done={"lines": [said], "form": form}, plans=plans)


def _list(parts: ConsoleParts, request: Request, **more: Any) -> Response:
    now = datetime.now(UTC)
    found = [(key, key.state(now)) for key in parts.api.keys.list()]
    return parts.pages.page(
        request,
        "keys.html",
        valid=[(key, state) for key, state in found if state == "valid"],
        ended=[(key, state) for key, state in found if state != "valid"],
        scopes=list(Scope),
        **{"made": None, **more},
    )


def _one(parts: ConsoleParts, request: Request, key: str, **more: Any) -> Response:
    found = parts.api.keys.view(key)
    state = found.state(datetime.now(UTC))
    return parts.pages.page(request, "key.html", key=found, state=state, **{"done": None, "plans": (), **more})
