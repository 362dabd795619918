"""Routes that send, retry, cancel and reschedule. The row is written before the answer; each action leaves an
operator record."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from fastapi import Depends, Header, Request, Response

from notifier.api import openapi_examples
from notifier.api.auth import Operator, Sender, SenderOrOperator, admit
from notifier.api.dependencies import AcceptanceDep, AuditDep, IntakeDep, JobsDep, OperationsDep, RateLimitsDep
from notifier.api.errors import Refusal, errors_of, refusal, status_of
from notifier.api.headers import as_written
from notifier.api.routers import keyed_router
from notifier.api.routes.search import story_for
from notifier.api.schemas import (
    AcceptedEntry,
    AcceptedMessage,
    BatchAnswer,
    Done,
    RefusedEntry,
    RescheduleRequest,
    RetryRequest,
    Why,
    read_filter,
)
from notifier.domain.errors import Fault, InvalidMessage
from notifier.domain.message import Message
from notifier.domain.statuses import Lane, Status
from notifier.domain.trace_context import read_traceparent
from notifier.domain.validation import Entry, decode
from notifier.intake import Intake
from notifier.intake.batch import IntakeAnswer
from notifier.intake.checks import check_encoding
from notifier.intake.http_requests import read_batch_request, read_request
from notifier.operations import ActionResult, Selection
from notifier.operations.api_keys import Holder
from notifier.store.filters import Filter
from notifier.store.jobs import JobView
from notifier.telemetry import metrics

router = keyed_router("send", 400, 409, 413, 415)
actions = keyed_router("act", 400, 404, 409, 413)


async def _body(request: Request) -> bytes:
    """The body's bytes. `Shield` enforces the limit."""
    faults = check_encoding(request.headers.get("content-type"), request.headers.get("content-encoding"))
    if faults:
        _count_refused([faults])
        raise refusal(faults)
    return await request.body()


Body = Annotated[bytes, Depends(_body)]
Trace = Annotated[
    str | None,
    Header(description="W3C Trace Context, for messages without their own. An invalid value is ignored."),
]
_REPLAYED = {
    "Idempotency-Replayed": {
        "schema": {"type": "string"},
        "description": "`true`: the message was accepted before.",
    }
}
_LOCATION = {"Location": {"schema": {"type": "string"}, "description": "Where to read what became of it."}}

_JOB = {"Location": {"schema": {"type": "string"}, "description": "Where to read its progress."}}


@router.post(
    "/v1/notifications",
    status_code=202,
    summary="Send one message",
    openapi_extra=openapi_examples.body("Notification", openapi_examples.NOTIFICATION),
    responses={202: {"headers": {**_LOCATION, **_REPLAYED}, "description": "It is in the record."}},
)
async def send(
    acceptance: AcceptanceDep,
    intake: IntakeDep,
    holder: Sender,
    body: Body,
    response: Response,
    idempotency_key: Annotated[
        str | None,
        Header(
            max_length=300,
            description="The message's idempotency_key: the same request again gets the same answer.",
        ),
    ] = None,
    traceparent: Trace = None,
) -> AcceptedMessage:
    """Accept one message. From then on it is in the record and will be sent, whatever happens to the broker.

    The same request with the same key is the same notification and gets the same answer.
    """

    def read(now: datetime) -> Message:
        with _counted():
            producer, key = _producer(holder), _key_of(idempotency_key)
            entry = read_request(body, producer, key, now=now, channel_of=intake.channel_of)
        faults = _faults(intake, holder, entry)
        if entry.message is None or faults:
            _count_refused([faults])
            raise refusal(faults, decode(body))
        return entry.message.within(read_traceparent(traceparent))

    answer = await acceptance.accept(read, len(body), key_id=holder.share, origin=holder.origin)
    if answer.id is None:
        _count_refused([answer.faults])
        raise refusal(answer.faults, decode(body))
    found = AcceptedMessage.of(answer.id)
    response.headers["Location"] = found.url
    if answer.is_replay:
        response.headers["Idempotency-Replayed"] = "true"
    return found


@router.post(
    "/v1/notifications/batch",
    status_code=202,
    summary="Send up to 1000 messages",
    openapi_extra=openapi_examples.body("Batch", openapi_examples.BATCH),
)
def send_batch(
    intake: IntakeDep,
    rates: RateLimitsDep,
    holder: Sender,
    body: Body,
    request: Request,
    traceparent: Trace = None,
) -> BatchAnswer:
    """Accept or refuse every entry on its own; the answer has one result for each entry, in their order.

    If no entry is accepted, the answer is a problem with the faults of all entries.
    """
    if "idempotency-key" in request.headers:
        fault = Fault(
            "Idempotency-Key", "key_not_here", "is for one message", "Give each entry an idempotency_key"
        )
        raise Refusal(422, "a batch has no key of its own", [{**fault.as_dict(), "parameter": fault.field}])
    with _counted():
        batch = read_batch_request(body, _producer(holder), now=intake.now(), channel_of=intake.channel_of)
    entries = batch.entries
    # `KeyedRoute` has already counted one of them.
    if len(entries) > 1:
        admit(rates, holder, len(entries) - 1)
    context = read_traceparent(traceparent)
    answers: dict[int, IntakeAnswer] = {}
    valid: dict[int, Message] = {}
    for position, entry in enumerate(entries):
        faults = _faults(intake, holder, entry)
        if entry.message is None or faults:
            answers[position] = IntakeAnswer(None, False, faults)
        elif batch.faults:
            answers[position] = IntakeAnswer(None, False, intake.faults(entry.message))
        else:
            valid[position] = entry.message.within(context)
    if batch.faults:
        _count_refused([batch.faults])
        errors = [*errors_of(batch.faults), *_batch_errors([answers[i] for i in range(len(entries))])]
        raise Refusal(status_of(batch.faults), "the batch is not valid, and no entry was accepted", errors)
    found = intake.answer(list(valid.values()), holder.origin) if valid else ()
    answers |= zip(valid, found, strict=True)
    return _batch_answer([answers[position] for position in range(len(entries))])


def _batch_answer(answers: Sequence[IntakeAnswer]) -> BatchAnswer:
    accepted = sum(answer.id is not None for answer in answers)
    _count_refused([answer.faults for answer in answers if answer.id is None])
    if not accepted:
        faults = [fault for answer in answers for fault in answer.faults]
        raise Refusal(status_of(faults), "no entry was accepted", _batch_errors(answers))
    entries = [_batch_entry(answer) for answer in answers]
    return BatchAnswer(accepted=accepted, refused=len(answers) - accepted, entries=entries)


def _batch_errors(answers: Sequence[IntakeAnswer]) -> list[dict[str, str]]:
    return [e for i, answer in enumerate(answers) for e in errors_of(answer.faults, below=f"/batch/{i}")]


def _batch_entry(answer: IntakeAnswer) -> AcceptedEntry | RefusedEntry:
    if answer.id is None:
        errors: list[Any] = errors_of(answer.faults)
        return RefusedEntry(status=status_of(answer.faults), errors=errors)
    return AcceptedEntry(**AcceptedMessage.of(answer.id).model_dump(), is_replay=answer.is_replay)


@contextmanager
def _counted() -> Iterator[None]:
    """Count a body that is refused as a whole."""
    try:
        yield
    except InvalidMessage as error:
        _count_refused([error.faults])
        raise


def _count_refused(messages: Iterable[Sequence[Fault]]) -> None:
    """Count these messages, each by its first fault."""
    metrics.count(metrics.REJECTED, [(faults[0].code,) for faults in messages if faults])


def _producer(holder: Holder) -> str:
    assert holder.producer is not None, "the scope send has one"
    return holder.producer


def _key_of(header: str | None) -> str | None:
    if header is None:
        return None
    # The same key in the body counts as the same key.
    key = as_written(header)
    # The header's draft (draft-ietf-httpapi-idempotency-key-header) puts it in quotes; hardly anyone does.
    return key[1:-1] if len(key) > 1 and key[0] == key[-1] == '"' else key


def _faults(intake: Intake, holder: Holder, entry: Entry) -> tuple[Fault, ...]:
    """Every reason known here why the entry is refused. (): the entry goes on to the intake, which checks the
    rest."""
    if entry.message is not None:
        return tuple(_not_allowed(holder, entry.message))
    if entry.draft is None:
        return entry.faults
    # If the key may not send this template, nothing more is said about it.
    return entry.with_further(_not_allowed(holder, entry.draft.message) or intake.faults(entry.draft.message))


def _not_allowed(holder: Holder, message: Message) -> list[Fault]:
    assert message.channel is not None, "set by parsing"
    return holder.faults(message.channel, message.lane or Lane.NORMAL, message.template)


@actions.post(
    "/v1/notifications/retry",
    summary="Retry many",
    responses={202: {"model": JobView, "headers": _JOB, "description": "A job carries it out."}},
)
def retry_many(
    operations: OperationsDep, jobs: JobsDep, holder: Operator, wanted: RetryRequest, response: Response
) -> ActionResult | JobView:
    """Retry notifications that have ended: everything the filter finds, with status `failed` unless it names
    another. If the request is cut off, repeat it: it continues where it stopped. With `background` the answer is a
    job, which goes on whatever happens to this process."""
    conditions = wanted.filter
    if conditions.status is None and conditions.model_dump(exclude_none=True):
        conditions = conditions.model_copy(update={"status": Status.FAILED})
    selection = Selection(filter=read_filter(Filter, conditions))
    options: dict[str, Any] = {
        "operator": holder.operator,
        "reason": wanted.reason,
        "rate_per_second": wanted.rate_per_second,
    }
    if not wanted.background or wanted.dry_run:
        return operations.retry(selection, dry_run=wanted.dry_run, **options)
    job = jobs.retry(selection, **options)
    response.status_code = 202
    response.headers["Location"] = f"/v1/jobs/{job.id}"
    return job


@actions.post("/v1/notifications/{notification:uuid}/retry", summary="Retry one")
def retry_one(
    audit: AuditDep, operations: OperationsDep, holder: Operator, notification: UUID, why: Why | None = None
) -> Done:
    """Retry a notification that has ended: failed, expired, undelivered or suppressed."""
    audit.story(notification)
    reason = why.reason if why else None
    return _done(
        notification, operations.retry(Selection((notification,)), operator=holder.operator, reason=reason)
    )


@actions.post("/v1/notifications/{notification:uuid}/cancel", summary="Cancel one")
def cancel_one(
    audit: AuditDep,
    operations: OperationsDep,
    holder: SenderOrOperator,
    notification: UUID,
    why: Why | None = None,
) -> Done:
    """Cancel a notification that has not been sent yet. The producer that sent it may do this too."""
    story_for(audit, holder, notification)
    reason = why.reason if why else None
    return _done(
        notification, operations.cancel(Selection((notification,)), operator=holder.operator, reason=reason)
    )


@actions.post("/v1/notifications/{notification:uuid}/reschedule", summary="Reschedule one")
def reschedule_one(
    audit: AuditDep,
    operations: OperationsDep,
    holder: SenderOrOperator,
    notification: UUID,
    wanted: RescheduleRequest,
) -> Done:
    """Give a notification that waits for its first call another time. Its producer may do this too."""
    story_for(audit, holder, notification)
    selection = Selection((notification,))
    return _done(
        notification,
        operations.reschedule(selection, wanted.send_at, operator=holder.operator, reason=wanted.reason),
    )


def _done(notification: UUID, result: ActionResult) -> Done:
    """The answer for one notification. Raises `Refusal`, 409, if the action left it alone."""
    if not result.changed:
        raise Refusal(409, result.skipped[0].why if result.skipped else "it changed in the meantime; try again")
    return Done(id=notification, record_id=result.record_id)
