"""`GET /v1/notifications` and `/v1/stats`: find and count notifications."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any, Literal
from uuid import UUID

from fastapi import Header, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, ConfigDict, Field
from starlette.types import Receive, Send
from starlette.types import Scope as ASGIScope

from notifier.api import export, openapi_examples
from notifier.api.auth import Reader
from notifier.api.dependencies import AuditDep, LongReadsDep, OperatorActionsDep, StatusWatchDep
from notifier.api.errors import Refusal
from notifier.api.key_shares import LongReads
from notifier.api.routers import keyed_router
from notifier.api.schemas import Conditions, NotificationPage, PageQuery, PlainDecimal, Storable, read_filter
from notifier.api.status_watch import MAX_WAIT_SECONDS
from notifier.domain.errors import NotFound, WrongSelection
from notifier.domain.notification_status import CONTENT_HEADER, NotificationStatus
from notifier.domain.validation import may_become
from notifier.operations.api_keys import Holder
from notifier.operations.lookup import record_read
from notifier.store.filters import MAX_SPAN, Filter
from notifier.store.search import Audit, Dimension, Story
from notifier.store.status_lookup import AskedStatus

router = keyed_router("read", 404)
#: A group of its own, because it may also return 409.
one_status = keyed_router("read", 404, 409)


class Search(PageQuery, Conditions):
    """Which notifications, and how they are answered."""

    metadata: Annotated[
        list[Storable],
        Field(
            max_length=10,
            description="`name=value`, repeatable. It has no index: also give `recipient` or `reference`, "
            "or `since` and `until` at most 31 days apart.",
        ),
    ] = Field(default_factory=list)
    format: Annotated[
        Literal["json", "csv", "jsonl"] | None,
        Field(description="`csv` and `jsonl` stream all results; if left out, as the header Accept says."),
    ] = None


@router.get(
    "/v1/notifications",
    summary="Search",
    response_model=NotificationPage,
    responses={200: openapi_examples.EXPORTS},
)
def search(
    audit: AuditDep,
    long_reads: LongReadsDep,
    operator_actions: OperatorActionsDep,
    holder: Reader,
    request: Request,
    wanted: Annotated[Search, Query()],
) -> NotificationPage | Response:
    """Find notifications, newest first. New ones do not shift the pages."""
    found, before = _filter(holder, wanted, wanted.metadata), wanted.before
    found.check_span(audit.now())
    kind = wanted.format or export.wanted(request.headers.get("accept", ""))
    if kind != "json":
        # A producer that reads what it sent itself leaves no record.
        if holder.sees_everything:
            record_read(operator_actions, holder, "export", found)
        return export_of(audit, long_reads, holder, found, kind)
    if holder.sees_everything and found.recipient is not None and before is None:
        record_read(operator_actions, holder, "look_up", found)
    with ExitStack() as places:
        if found.may_take_long:
            places.callback(long_reads.begin(holder.share))
        page = audit.search(found, limit=wanted.limit, before=before)
    return NotificationPage(items=page, next=wanted.next([one.id for one in page]))


class _Export(StreamingResponse):
    """A file that is sent while it is read. It keeps its place among the long reads until it is sent."""

    def __init__(self, content: Iterable[str], end: Callable[[], None], **named: Any) -> None:
        super().__init__(content, **named)
        self._end = end

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._end()


def export_of(
    audit: Audit, long_reads: LongReads, holder: Holder, found: Filter, kind: Literal["csv", "jsonl"]
) -> Response:
    """A file of everything that the filter finds. Raises what a search raises."""
    with ExitStack() as places:
        end = long_reads.begin(holder.share)
        places.callback(end)
        pages = audit.pages(found)
        # Read before the answer begins, so that an unreachable database gives a 503 and not half a file.
        first = next(pages, [])
        places.pop_all()
    write: Callable[..., Any] = export.csv_lines if kind == "csv" else export.json_lines
    headers = {"Content-Disposition": f'attachment; filename="notifications.{kind}"'}
    return _Export(write(first, pages), end, media_type=export.MEDIA_TYPES[kind], headers=headers)


@router.get("/v1/notifications/{notification:uuid}", summary="One notification's timeline")
def story(audit: AuditDep, holder: Reader, notification: UUID) -> Story:
    """Where it stands, every call to a provider, and everything that happened to it, oldest first."""
    return story_for(audit, holder, notification)


def story_for(audit: Audit, holder: Holder, notification: UUID) -> Story:
    """The notification's story. Raises `NotFound` if there is none or the key may not see it; the text does not
    say which."""
    found = audit.story(notification)
    if not holder.sees(found.notification):
        raise NotFound(f"no notification has the id {notification}")
    return found


class StatusQuery(BaseModel):
    """How long to wait, and for what."""

    model_config = ConfigDict(extra="forbid")

    wait: Annotated[
        float,
        Field(
            ge=0,
            le=MAX_WAIT_SECONDS,
            allow_inf_nan=False,
            description="Answer as soon as a provider has accepted it or it has ended, at the latest after this "
            "many seconds. If too many requests wait, the answer comes at once.",
        ),
        PlainDecimal,
    ] = 0.0
    idempotency_key: Annotated[
        str | None,
        Field(
            max_length=300,
            # Like every text of a filter: the database cannot hold a NUL character, nor be asked for one.
            pattern=r"^[^\x00]*$",
            description="If no notification has the id, answer about the one accepted under this key of your "
            "producer.",
        ),
    ] = None


@one_status.get("/v1/notifications/{notification:uuid}/status", summary="Where one stands")
async def status(
    watch: StatusWatchDep,
    holder: Reader,
    notification: UUID,
    wanted: Annotated[StatusQuery, Query()],
    content: Annotated[
        str | None,
        Header(
            alias=CONTENT_HEADER,
            pattern="^[0-9a-f]{64}$",
            description="The Python client's hash of its message: 409 if its id or idempotency key was accepted "
            "with other content.",
        ),
    ] = None,
) -> NotificationStatus:
    """Its status, and why. With `wait`, the answer comes once it is sent or has ended. 404 also for a message that
    the intake has not read yet, or has rejected."""
    digest = None if content is None else bytes.fromhex(content)
    asked = AskedStatus(notification, holder.producer, wanted.idempotency_key, digest, is_test=holder.is_test)
    # A notification that can never exist is not waited for.
    wait = wanted.wait if may_become(notification, datetime.now(UTC)) else 0.0
    found = await watch.status(asked, holder, wait)
    if found is None:
        raise NotFound(f"no notification has the id {notification}")
    return found


class StatsQuery(Conditions):
    """What to count, and by what."""

    by: Annotated[list[Dimension], Field(min_length=1, max_length=6)] = Field(
        default_factory=lambda: [Dimension.STATUS]
    )


class Stats(BaseModel):
    """Counts, in the order of their values."""

    since: datetime
    until: datetime
    #: Each has the dimensions asked for, and `count`.
    counts: list[dict[str, str | int | None]]


@router.get("/v1/stats", summary="Counts")
def stats(
    audit: AuditDep, long_reads: LongReadsDep, holder: Reader, wanted: Annotated[StatsQuery, Query()]
) -> Stats:
    """Count notifications by status, channel, template, provider, producer or hour: within the last day, or within
    `since` and `until`, at most 31 days apart. Notifications of test keys are left out, unless `is_test` asks
    for them or the key is a test key."""
    if wanted.is_test is None:
        wanted = wanted.model_copy(update={"is_test": holder.is_test})
    _filter(holder, wanted)  # Checked before hours are counted from a time that the database cannot hold.
    until = wanted.until or audit.now()
    since = wanted.since or until - timedelta(days=1)
    if until - since > MAX_SPAN:
        raise WrongSelection(f"since and until are more than {MAX_SPAN.days} days apart: ask month by month")
    by = list(dict.fromkeys(wanted.by))
    found = _filter(holder, wanted.model_copy(update={"since": since, "until": until}))
    with ExitStack() as places:
        places.callback(long_reads.begin(holder.share))
        groups = audit.group(found, by)
    counts = [{**dict(zip(by, group.values, strict=True)), "count": group.count} for group in groups]
    return Stats(since=since, until=until, counts=counts)


def _filter(holder: Holder, wanted: Conditions, metadata: Sequence[str] = ()) -> Filter:
    return limited(holder, read_filter(Filter, wanted, metadata=_metadata(metadata)))


def limited(holder: Holder, wanted: Filter) -> Filter:
    """The conditions, limited to what the key may see. Raises `Refusal`: 403."""
    if holder.sees_everything:
        return wanted
    if wanted.producer not in (None, holder.producer):
        raise Refusal(403, "this key reads what its own producer sent; others need the scope operate")
    if wanted.is_test not in (None, holder.is_test):
        kind = "tests" if holder.is_test else "no tests"
        raise Refusal(403, f"this key reads {kind} only; others need another key, or the scope operate")
    seen = holder.visible
    limits = {name: getattr(seen, name) for name in ("producer", "is_test", "channels", "templates")}
    return replace(wanted, **limits)


def _metadata(given: Sequence[str]) -> dict[str, str] | None:
    if not given:
        return None
    pairs = [text.partition("=") for text in given]
    if not all(name and equals for name, equals, _ in pairs):
        raise WrongSelection("metadata is written name=value")
    return {name: value for name, _, value in pairs}
