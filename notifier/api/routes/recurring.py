"""Routes for recurring notifications: producers plan their own; operators see and stop everybody's."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Annotated, Any
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, JsonValue

from notifier.api import openapi_examples
from notifier.api.auth import Sender, SenderOrOperator, SenderOrReader
from notifier.api.dependencies import RecurringDep
from notifier.api.errors import Refusal, refusal
from notifier.api.routers import keyed_router
from notifier.api.schemas import Done, Why
from notifier.domain.errors import NotFound, WrongSelection
from notifier.domain.message import Locale, Name
from notifier.domain.recurrence import Recurrence
from notifier.domain.statuses import Channel, Lane
from notifier.domain.times import Instant
from notifier.operations.api_keys import Holder
from notifier.operations.recurring import (
    ListedRecipients,
    RecipientLine,
    RecurringNotifications,
    RecurringStory,
)
from notifier.store.recurring import ListedRecipient, RecurringPlan, RecurringView

router = keyed_router("recurring", 400, 404, 409, 413)


class Recipients(Why):
    """A list, or a part of it."""

    recipients: list[RecipientLine]


class PlanRequest(Recipients):
    """What to send, to whom, and when."""

    model_config = ConfigDict(json_schema_extra={"examples": [openapi_examples.RECURRING]})

    name: Name
    cron: Annotated[
        str, Field(max_length=200, description="Minute, hour, day of the month, month, day of the week.")
    ]
    zone: Annotated[
        str, Field(max_length=100, description="A time zone of the IANA database, such as Europe/Berlin.")
    ]
    until: Annotated[Instant | None, Field(description="Nothing is due after this time.")] = None
    channel: Channel
    lane: Lane = Lane.BULK
    template: Name
    context: Annotated[dict[str, JsonValue], Field(description="Variables that all recipients share.")] = Field(
        default_factory=dict
    )
    locale: Locale | None = None
    sender: Name | None = None


class Addresses(Why):
    """Recipients by their addresses or numbers."""

    model_config = ConfigDict(extra="forbid")

    recipients: Annotated[list[str], Field(min_length=1)]


class TakenOff(BaseModel):
    """Recipients that were removed from a list."""

    #: How many of them were on the list.
    count: int


@router.get("/v1/recurring", summary="List recurring notifications")
def recurring_notifications(recurring: RecurringDep, holder: SenderOrReader) -> list[RecurringView]:
    """Every one that the key may see, by name, with its last run."""
    return [view for view in recurring.views() if holder.sees(view)]


@router.post("/v1/recurring", status_code=201, summary="Create a recurring notification")
def add_recurring(recurring: RecurringDep, holder: Sender, wanted: PlanRequest) -> ListedRecipients:
    """Plan a template for a list of recipients. Lines that would be refused today are kept and listed."""
    faults = holder.faults(wanted.channel, wanted.lane, wanted.template)
    if faults:
        raise refusal(faults)
    assert holder.producer is not None, "the scope send has one"
    plan = RecurringPlan(
        producer=holder.producer,
        name=wanted.name,
        recurrence=Recurrence(wanted.cron, wanted.zone, wanted.until),
        channel=wanted.channel,
        lane=wanted.lane,
        template=wanted.template,
        context=wanted.context,
        locale=wanted.locale,
        sender=wanted.sender,
        is_test=holder.is_test,
    )
    with _conflicts():
        return recurring.add(plan, _listed(wanted.recipients), operator=holder.operator, reason=wanted.reason)


@router.get("/v1/recurring/{recurring_id:uuid}", summary="Show one")
def recurring_notification(recurring: RecurringDep, holder: SenderOrReader, recurring_id: UUID) -> RecurringStory:
    """Its plan, its last run with the first lines that were refused, its next times, and its past runs."""
    return recurring.story(recurring_for(recurring, holder, recurring_id))


@router.put("/v1/recurring/{recurring_id:uuid}/recipients", summary="Replace its list")
def replace_recipients(
    recurring: RecurringDep, holder: SenderOrOperator, recurring_id: UUID, wanted: Recipients
) -> ListedRecipients:
    """Replace its list. A run in progress goes on with the new list, and sends nobody the message twice."""
    recurring_for(recurring, holder, recurring_id)
    return recurring.replace_list(
        recurring_id, _listed(wanted.recipients), operator=holder.operator, reason=wanted.reason
    )


@router.post("/v1/recurring/{recurring_id:uuid}/recipients", summary="Add to its list")
def add_recipients(
    recurring: RecurringDep, holder: SenderOrOperator, recurring_id: UUID, wanted: Recipients
) -> ListedRecipients:
    """Add recipients. Those who are on the list already get the new context."""
    recurring_for(recurring, holder, recurring_id)
    return recurring.add_to_list(
        recurring_id, _listed(wanted.recipients), operator=holder.operator, reason=wanted.reason
    )


@router.post("/v1/recurring/{recurring_id:uuid}/recipients/remove", summary="Remove from its list")
def remove_recipients(
    recurring: RecurringDep, holder: SenderOrOperator, recurring_id: UUID, wanted: Addresses
) -> TakenOff:
    """Take recipients off the list. Addresses are in the body, because URLs are written to logs."""
    recurring_for(recurring, holder, recurring_id)
    return TakenOff(
        count=recurring.take_off_list(
            recurring_id, wanted.recipients, operator=holder.operator, reason=wanted.reason
        )
    )


@router.post("/v1/recurring/{recurring_id:uuid}/pause", summary="Pause one")
def pause_recurring(
    recurring: RecurringDep, holder: SenderOrOperator, recurring_id: UUID, why: Why | None = None
) -> Done:
    """Send nothing until it is resumed."""
    recurring_for(recurring, holder, recurring_id)
    return Done(id=recurring_id, record_id=recurring.pause(recurring_id, **_by(holder, why)))


@router.post("/v1/recurring/{recurring_id:uuid}/resume", summary="Resume one")
def resume_recurring(
    recurring: RecurringDep, holder: SenderOrOperator, recurring_id: UUID, why: Why | None = None
) -> Done:
    """Go on with its next time. Times missed in the meantime are not made up for."""
    recurring_for(recurring, holder, recurring_id)
    return Done(id=recurring_id, record_id=recurring.resume(recurring_id, **_by(holder, why)))


@router.post("/v1/recurring/{recurring_id:uuid}/run", summary="Send one now")
def run_recurring(
    recurring: RecurringDep, holder: SenderOrOperator, recurring_id: UUID, why: Why | None = None
) -> Done:
    """Send it once, outside its schedule; a worker begins within a minute."""
    recurring_for(recurring, holder, recurring_id)
    with _conflicts():
        return Done(id=recurring_id, record_id=recurring.run(recurring_id, **_by(holder, why)))


@router.delete("/v1/recurring/{recurring_id:uuid}", summary="Delete one")
def delete_recurring(recurring: RecurringDep, holder: SenderOrOperator, recurring_id: UUID) -> Done:
    """Delete it and its list. Notifications that it has sent stay."""
    recurring_for(recurring, holder, recurring_id)
    return Done(id=recurring_id, record_id=recurring.remove(recurring_id, **_by(holder, None)))


def recurring_for(recurring: RecurringNotifications, holder: Holder, recurring_id: UUID) -> RecurringView:
    """The recurring notification. Raises `NotFound` if there is none or the key may not see it; the text does not
    say which."""
    view = recurring.view(recurring_id)
    if not holder.sees(view):
        raise NotFound(f"no recurring notification has the id {recurring_id}")
    return view


def _listed(lines: Sequence[RecipientLine]) -> list[ListedRecipient]:
    return [line.listed(position) for position, line in enumerate(lines, start=1)]


def _by(holder: Holder, why: Why | None) -> dict[str, Any]:
    return {"operator": holder.operator, "reason": why.reason if why else None}


@contextmanager
def _conflicts() -> Iterator[None]:
    """Answer 409 if the action does not fit the current state."""
    try:
        yield
    except WrongSelection as error:
        raise Refusal(409, str(error)) from None
