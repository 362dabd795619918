"""The pages of rejected messages: what is wrong with them. Edit one, or publish them again."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from fastapi import APIRouter, Form, Query, Request, Response
from pydantic import BaseModel, Field

from notifier.api.schemas import read_cursor, write_cursor
from notifier.broker.dead_letters import Raw
from notifier.console.forms import ActForm, Condition
from notifier.console.outcomes import said
from notifier.console.parts import ConsoleParts, PartsDep, raw_publisher
from notifier.console.session import AdminThere, OperatorThere, PageRoute
from notifier.domain.errors import Fault, InvalidMessage, ServiceUnavailable, WrongSelection
from notifier.domain.message import MAX_BODY_BYTES
from notifier.domain.producers import Origin
from notifier.domain.statuses import Channel, Lane
from notifier.intake.batch import IntakeSummary, Received
from notifier.operations import ActionResult
from notifier.operations.api_keys import Holder, Scope
from notifier.operations.replayable import came_of
from notifier.store.rejected import COUNTED
from notifier.store.rejected_selection import RejectedSelection
from notifier.store.status_lookup import StatusLookup

router = APIRouter(route_class=PageRoute, include_in_schema=False)

#: Time limit for one request that replays, and for a page of it; the next request continues.
REPLAY_SECONDS = 10.0
#: Messages on a page.
PAGE = 50


class RejectedConditions(BaseModel):
    """Which rejected messages."""

    producer: Condition = None
    code: Condition = None

    @property
    def group(self) -> dict[str, str | None]:
        return {"producer": self.producer, "code": self.code}

    @property
    def selection(self) -> RejectedSelection:
        return RejectedSelection(producer=self.producer, code=self.code)


class RejectedQuery(RejectedConditions):
    """A page of rejected messages, as its URL has it."""

    after: Annotated[str | None, Field(max_length=50)] = None


class ReplayForm(RejectedConditions, ActForm):
    """Replay every message that the conditions find and that was not replayed before."""


class ReplayOneForm(ActForm):
    """Replay one message, from a page that said whether it was replayed before or a replay was interrupted."""

    again: bool = False


class EditForm(ReplayOneForm):
    body: Annotated[str, Field(max_length=MAX_BODY_BYTES)]


@router.get("/rejected")
def rejected(
    parts: PartsDep, _: OperatorThere, request: Request, wanted: Annotated[RejectedQuery, Query()]
) -> Response:
    return _list(parts, request, wanted)


@router.post("/rejected/replay")
def replay_all(
    parts: PartsDep, visitor: OperatorThere, request: Request, form: Annotated[ReplayForm, Form()]
) -> Response:
    done = _replay(parts, visitor.holder, form.selection, form)
    return _list(parts, request, RejectedQuery(**form.group), done=done)


@router.get("/rejected/{message:uuid}")
def rejected_message(parts: PartsDep, visitor: OperatorThere, request: Request, message: UUID) -> Response:
    return _one(parts, visitor.holder, request, message)


@router.post("/rejected/{message:uuid}/replay")
def replay_one(
    parts: PartsDep,
    visitor: OperatorThere,
    request: Request,
    message: UUID,
    form: Annotated[ReplayOneForm, Form()],
) -> Response:
    """Publish it again, byte for byte."""
    done = _replay(parts, visitor.holder, RejectedSelection(ids=(message,)), form, again=form.again)
    return _one(parts, visitor.holder, request, message, done=done)


@router.post("/rejected/{message:uuid}/edited")
def replay_edited(
    parts: PartsDep, visitor: AdminThere, request: Request, message: UUID, form: Annotated[EditForm, Form()]
) -> Response:
    """Accept the edited message, if it keeps the contract."""

    def check(raw: Raw, channel: Channel, lane: Lane, origin: Origin) -> tuple[Fault, ...]:
        return parts.api.intake.rejection_faults(Received(raw.body, channel, lane, raw.headers, origin=origin))

    def take_in(raw: Raw, channel: Channel, lane: Lane, origin: Origin) -> IntakeSummary:
        return parts.api.intake.process([Received(raw.body, channel, lane, raw.headers, origin=origin)])

    how: dict[str, Any] = {"operator": visitor.holder.operator, "reason": form.why, "dry_run": form.dry_run}
    text = form.body.encode("utf-8", "replace")
    try:
        done = parts.replays.replay_edited(message, text, take_in, check, over=form.again, **how)
    except InvalidMessage as error:
        return _one(parts, visitor.holder, request, message, status=422, edited=form, faults=error.faults)
    except WrongSelection as error:
        return _one(parts, visitor.holder, request, message, status=409, edited=form, problem=str(error))
    except ServiceUnavailable as error:
        return _one(
            parts, visitor.holder, request, message, status=503, edited=form, problem=str(error), unsure=True
        )
    edited = form if form.dry_run else None
    told = said(done, "replayed", "message", form)
    return _one(parts, visitor.holder, request, message, done=told, edited=edited)


def _replay(
    parts: ConsoleParts, holder: Holder, selection: RejectedSelection, form: ActForm, *, again: bool = False
) -> dict[str, Any]:
    how: dict[str, Any] = {"operator": holder.operator, "reason": form.why, "again": again}
    # A replay of one named message has no time limit.
    how["seconds"] = None if selection.ids else REPLAY_SECONDS
    begun, end = parts.rejections.now(), time.monotonic() + REPLAY_SECONDS
    if form.dry_run:
        done = parts.replays.replay_rejected(selection, lambda _: None, dry_run=True, **how)
    else:
        with raw_publisher(parts) as broker:
            done = parts.replays.replay_rejected(selection, broker.publish, **how)
    told = said(done, "replayed", "message", form)
    # Messages that were rejected again during this replay do not count.
    rest = 0 if time.monotonic() < end else _rest(parts, replace(selection, until=begun), done)
    if rest:
        told["lines"].append(not_looked_at(rest, "notifier rejected replay"))
    return told


def not_looked_at(rest: int, command: str) -> str:
    """Says that one request was too short for the rest."""
    return f"{rest} more of these were not looked at yet: do it again to go on, or run {command} for all at once."


def _rest(parts: ConsoleParts, selection: RejectedSelection, done: ActionResult) -> int:
    """How many messages are left because the time was too short."""
    if selection.ids:
        return 0
    left = sum(found.count for found in done.codes or parts.rejections.count(selection, again=False))
    return max(0, left - (done.matched if done.record_id is None else len(done.skipped)))


def _list(parts: ConsoleParts, request: Request, wanted: RejectedQuery, **more: Any) -> Response:
    found = parts.api.audit.rejected(wanted.selection, limit=PAGE, before=read_cursor(wanted.after))
    query = wanted.group
    following = _address(**query, after=write_cursor(found[-1].id)) if len(found) == PAGE else None
    groups = parts.rejections.groups()
    return parts.pages.page(
        request,
        "rejected.html",
        found=found,
        groups=[(group, _address(group.producer, group.code)) for group in groups],
        waiting=sum(group.waiting for group in groups),
        is_all=sum(group.count for group in groups) < COUNTED,
        query=query,
        is_filtered=any(query.values()),
        following=following,
        **{"done": None, **more},
    )


def _address(producer: str | None, code: str | None, after: str | None = None) -> str:
    query = {"producer": producer, "code": code, "after": after}
    return f"/rejected?{urlencode({name: value for name, value in query.items() if value})}"


def _one(
    parts: ConsoleParts, holder: Holder, request: Request, message: UUID, *, status: int = 200, **more: Any
) -> Response:
    found = parts.api.audit.rejected_message(message)
    # As in the API, only admins see what producers sent.
    body = as_text(found.body) if holder.may(Scope.ADMIN) else None
    replay = None if found.replay_id is None else parts.api.operator_actions.record(found.replay_id)
    became = came_of(StatusLookup(parts.services.engine, parts.services.personal_data), found, replay)
    given: dict[str, Any] = {"done": None, "edited": None, "faults": (), "problem": None, "unsure": False, **more}
    given |= {"found": found, "body": body, "replay": replay, "became": became}
    return parts.pages.page(request, "rejected_message.html", status, **given)


def as_text(body: bytes) -> str:
    """The body for a person to read and edit: JSON on several lines; bytes that are not UTF-8 as `\\xff`."""
    text = body.decode("utf-8", "backslashreplace")
    try:
        lines = json.dumps(json.loads(text), ensure_ascii=False, indent=2, allow_nan=False)
        # Half a surrogate pair, which JSON can name but UTF-8 cannot hold, stays as `\\ud800`.
        return lines.encode("utf-8", "backslashreplace").decode("utf-8")
    except (ValueError, RecursionError):
        return text
