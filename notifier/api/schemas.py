"""Requests and answers that only the API has; the others are the record's own views."""

from __future__ import annotations

import base64
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Generic, TypeVar
from uuid import UUID

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool

from notifier.api import openapi_examples
from notifier.domain.errors import WrongSelection
from notifier.domain.statuses import Channel, Reason, Status
from notifier.domain.times import Instant, rule_error
from notifier.store.callbacks import CallbackFilter
from notifier.store.search import Filter, NotificationView, RejectedView
from notifier.store.suppressions import SuppressionFilter


def _without_nul(value: str) -> str:
    if "\0" in value:
        raise rule_error("nul_character", "contains a NUL character, which nothing on record does", "Remove it")
    return value


#: A text that the database can hold, and be asked for.
Storable = Annotated[str, AfterValidator(_without_nul)]
Words = Annotated[Storable, Field(min_length=1, max_length=320)]


def _written_as(pattern: str, example: str) -> BeforeValidator:
    """Accept only numbers written in this form in a URL: pydantic would also take `1_0` and `1.0` as whole
    numbers."""
    read = re.compile(pattern)

    def check(value: object) -> object:
        if isinstance(value, str) and not read.fullmatch(value):
            raise rule_error("bad_format", "not a number as it is written here", f"Write it as {example}")
        return value

    return BeforeValidator(check)


Digits = _written_as("-?[0-9]{1,20}", "50: digits only")
PlainDecimal = _written_as(r"-?[0-9]{1,20}(\.[0-9]{1,20})?", "20 or 2.5: digits, and a point where it has to be")
T = TypeVar("T")


class AcceptedMessage(BaseModel):
    """A notification that is in the record."""

    id: UUID
    #: Where to read what became of it.
    url: str

    @classmethod
    def of(cls, notification: UUID) -> AcceptedMessage:
        """The answer for this notification: always the same, so that a repeated request gets the same answer."""
        return cls(id=notification, url=f"/v1/notifications/{notification}")


class Error(BaseModel):
    """One thing that is wrong. It has a `pointer` or a `parameter`."""

    #: JSON pointer into the body; "" is all of it.
    pointer: str | None = None
    #: Name of a parameter of the address, or of a header.
    parameter: str | None = None
    #: A short stable word.
    code: str
    problem: str
    fix: str


class Problem(BaseModel):
    """RFC 9457: why a request was refused, with everything that is wrong with it."""

    type: str
    title: str
    status: int
    detail: str
    errors: list[Error]


class AcceptedEntry(AcceptedMessage):
    """An entry of a batch that is in the record."""

    #: It was accepted before.
    is_replay: bool


class RefusedEntry(BaseModel):
    """An entry of a batch that was refused."""

    #: The status that it would get if it were sent alone.
    status: int
    errors: list[Error]


class BatchAnswer(BaseModel):
    """One answer for each entry, in their order."""

    accepted: int
    refused: int
    entries: list[AcceptedEntry | RefusedEntry]


class ListPage(BaseModel, Generic[T]):
    """A part of a list."""

    items: list[T]
    #: The `after` of the next page; null: this was the last page.
    next: str | None


class NotificationPage(ListPage[NotificationView]):
    """Newest first."""


class Body(BaseModel):
    """What a rejected message held, at most its first 64 KiB."""

    encoding: str
    text: str


class RejectedMessageView(BaseModel):
    """A rejected message. Its body and headers are for admins."""

    id: UUID
    received_at: datetime
    queue: str
    producer: str | None
    body_size: int
    entry: int | None
    faults: list[dict[str, Any]]
    redelivered: bool
    replayed_at: datetime | None
    broker_user: str | None
    body: Body | None = None
    headers: dict[str, Any] | None = None

    @classmethod
    def of(cls, view: RejectedView, *, whole: bool) -> RejectedMessageView:
        """The view without what the producer sent, unless `whole`."""
        names = cls.model_fields.keys() - {"body", "headers"}
        found = cls(**{name: getattr(view, name) for name in names})
        return found.model_copy(update={"body": _text(view.body), "headers": view.headers}) if whole else found


class RejectedPage(ListPage[RejectedMessageView]):
    """Newest first."""


class Conditions(BaseModel):
    """Conditions on notifications, which must all match."""

    model_config = ConfigDict(extra="forbid")

    recipient: Words | None = None
    reference: Words | None = None
    producer: Words | None = None
    template: Words | None = None
    status: Status | None = None
    reason: Reason | None = None
    provider: Words | None = None
    channel: Channel | None = None
    since: Annotated[
        Instant | None, Field(description="At or after this time, by the time in the id; RFC 3339.")
    ] = None
    until: Annotated[Instant | None, Field(description="Before this time, by the time in the id.")] = None
    is_test: Annotated[bool | None, Field(description="Sent with a test key, or not.")] = None


F = TypeVar("F", Filter, CallbackFilter, SuppressionFilter)


def read_filter(kind: type[F], wanted: BaseModel, **more: Any) -> F:
    """The conditions in `wanted` as the store takes them, with those in `more` replaced. Texts are `Storable`.

    Raises:
        WrongSelection: a time that the database cannot hold.
    """
    names = kind.__dataclass_fields__.keys() & type(wanted).model_fields.keys()
    values: dict[str, Any] = {name: getattr(wanted, name) for name in names} | more
    if any(isinstance(value, datetime) and value.year < 1970 for value in values.values()):
        raise WrongSelection("a time before 1970: there was nothing to record then")
    return kind(**values)


class PageQuery(BaseModel):
    """Which page of a list, newest first."""

    model_config = ConfigDict(extra="forbid")

    limit: Annotated[int, Field(ge=1, le=1000, description="Maximum number of results on a page."), Digits] = 50
    after: Annotated[str | None, Field(max_length=50, description="`next` of the previous page.")] = None

    @property
    def before(self) -> UUID | None:
        """The id at which the previous page ended. Raises `WrongSelection` if `after` is not a cursor of ours."""
        return read_cursor(self.after)

    def next(self, ids: Sequence[UUID]) -> str | None:
        """The `after` of the next page; None if this page, with these ids, is the last one."""
        return write_cursor(ids[-1]) if len(ids) == self.limit else None


class RetryRequest(BaseModel):
    """What to retry."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [openapi_examples.RETRY]})

    filter: Conditions
    #: Only count what would be done.
    dry_run: StrictBool = False
    #: Answer at once with a job, which workers carry out.
    background: StrictBool = False
    #: Retries per second; left out: all at once.
    rate_per_second: Annotated[float | None, Field(strict=True, gt=0, le=1_000_000, allow_inf_nan=False)] = None
    #: Kept in the operator record.
    reason: Annotated[str | None, Field(max_length=500)] = None


class Why(BaseModel):
    """The operator's reason."""

    model_config = ConfigDict(extra="forbid")

    reason: Annotated[str | None, Field(max_length=500)] = None


class RescheduleRequest(Why):
    """Another time for one notification."""

    send_at: Annotated[
        Instant,
        Field(
            description="Do not send before this time. RFC 3339 with an offset. A time up to 31 days in the past "
            "means now."
        ),
    ]


class Done(BaseModel):
    """An action on one notification."""

    id: UUID
    #: The operator's record.
    record_id: UUID | None


class PreviewRequest(BaseModel):
    """What to render."""

    model_config = ConfigDict(extra="forbid", json_schema_extra={"examples": [openapi_examples.PREVIEW]})

    #: BCP 47; left out: the sample's, or the template's default.
    locale: Annotated[str | None, Field(max_length=35, pattern=r"^[A-Za-z]{2,3}(-[A-Za-z0-9]{2,8})*$")] = None
    #: Variables; left out: the template's first sample.
    context: dict[str, Any] | None = None


def write_cursor(last: UUID) -> str:
    """The cursor of the next page, opaque to the client."""
    return base64.urlsafe_b64encode(last.bytes).decode().rstrip("=")


def read_cursor(cursor: str | None) -> UUID | None:
    """The id in a cursor. Raises `WrongSelection` if the cursor is not one of ours."""
    if cursor is None:
        return None
    try:
        return UUID(bytes=base64.b64decode(cursor + "==", altchars=b"-_", validate=True))
    except ValueError:
        raise WrongSelection("after is not the `next` of an earlier page") from None


def _text(body: bytes) -> Body:
    try:
        return Body(encoding="utf-8", text=body.decode())
    except UnicodeDecodeError:
        return Body(encoding="base64", text=base64.b64encode(body).decode())
