"""Accepts batches of raw messages: validates them, writes them in one transaction, then publishes their tasks.

Crash points. Before the commit: nothing happened, and the broker delivers the messages again. Between the commit
and the tasks, or between the tasks and the acknowledgement: the redelivered messages find their own keys, are
recorded as duplicates, and have their tasks published again, which does no harm. The same holds if the answer to
the commit is lost. Over HTTP nobody delivers again: the rows are `queued` with a `due_at`, and the sweep
dispatches them.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from itertools import chain
from typing import NamedTuple
from uuid import UUID

from notifier.broker import user_id
from notifier.broker.topology import notify_queue_name
from notifier.callbacks.policy import CallbackPolicy
from notifier.config.logs import log
from notifier.config.structure import Structure
from notifier.domain.batches import placed
from notifier.domain.cloud_events import without_headers
from notifier.domain.errors import Fault, ServiceUnavailable, few
from notifier.domain.message import Message
from notifier.domain.producers import Origin
from notifier.domain.statuses import Channel, Lane, Status
from notifier.domain.trace_context import read_traceparent
from notifier.domain.validation import Entry, parse_body
from notifier.intake.accept_spans import AcceptSpans
from notifier.intake.batch import IntakeAnswer, IntakeSummary, PublishTasks, Received
from notifier.intake.checks import Checks, check_encoding
from notifier.intake.parts import EachAnswered, in_parts
from notifier.intake.producers import Producers
from notifier.rendering import Renderer
from notifier.store.ledger import Ledger
from notifier.store.records import Acceptance, NewNotification, NewRejection
from notifier.telemetry import metrics
from notifier.telemetry.metrics import IntakeSource

#: Entries are written as soon as their total size reaches this. Bytes.
MAX_PORTION_BYTES = 4 * 1024 * 1024


class _Found(NamedTuple):
    """A message, one of its entries, and the position of that entry in a batch message."""

    received: Received
    entry: Entry
    place: int | None


class Intake:
    """Accepts batches. One instance serves all queues and threads of a process."""

    def __init__(
        self,
        ledger: Ledger,
        renderer: Renderer,
        structure: Structure,
        publish_tasks: PublishTasks,
        *,
        callback_hosts: Collection[str] = (),
        producers: Producers | None = None,
        broker: str = "rabbitmq",
    ) -> None:
        """`broker`: "rabbitmq" or "redis", for traces."""
        self._ledger = ledger
        self._renderer = renderer
        self._publish_tasks = publish_tasks
        self._broker = broker
        self._callbacks = CallbackPolicy(structure.callbacks, callback_hosts)
        self._producers = producers or Producers(structure)
        self._checks = Checks(renderer, structure, self._producers, self._callbacks)

    def now(self) -> datetime:
        """The current time by the database's clock, against which messages are judged.

        Raises:
            ServiceUnavailable: the time is not known yet, and the database is away.
        """
        return self._ledger.now()

    def faults(self, message: Message) -> tuple[Fault, ...]:
        """Why this message would be refused now. Its channel and lane must be set. Nothing is recorded."""
        assert message.channel is not None, "set by parsing"
        return few(self._checks.faults(message, message.channel))

    def channel_of(self, template: object) -> Channel | None:
        """The only channel that has a template of this name. None: none has one, or more than one has."""
        return self._checks.channel_of(template)

    def process(self, batch: Sequence[Received]) -> IntakeSummary:
        """Accept or reject every message; when this returns, all of them are recorded.

        If our own code fails on a message, the message is isolated and rejected as `technical_error`. A batch that
        takes the database too long is halved.

        Raises:
            ServiceUnavailable: not everything was recorded; keep the batch and call again.
        """
        return _sum(in_parts(batch, lambda part: [self._process(part)], self._reject_as_ours))

    def answer(self, messages: Sequence[Message], origin: Origin) -> list[IntakeAnswer]:
        """Accept messages whose sender waits for the answer. The channel and lane of each must be set.

        For a test no provider is ever called. Tests are possible only here, because over the broker publishers
        name themselves. The rules are the same as for a batch from the broker, but refused messages are not kept:
        their sender gets the faults.

        Raises:
            ServiceUnavailable: not everything was recorded; what was recorded is a duplicate when it comes again.
        """
        return in_parts([(message, origin) for message in messages], self._answer, _fault_of_ours)

    def rejection_faults(self, received: Received) -> tuple[Fault, ...]:
        """Why this message, or an entry of it, would be rejected now; (): it would be accepted. Records nothing.

        Raises:
            ServiceUnavailable: as `now`.
        """
        return few(
            fault
            for one, entry, place in self._found([received])
            for fault in placed(place, self._entry_faults(entry, one))
        )

    def answer_each(self, messages: Sequence[tuple[Message, Origin]]) -> list[IntakeAnswer | ServiceUnavailable]:
        """Like `answer`, for messages of several senders, each with its origin. An error that `answer` would raise
        becomes the answer of the messages that were not recorded, and of no others."""
        return in_parts(messages, EachAnswered(self._answer), _fault_of_ours)

    def _answer(self, messages: Sequence[tuple[Message, Origin]]) -> list[IntakeAnswer]:
        spans = AcceptSpans(IntakeSource.HTTP, self._broker, time.time_ns())
        answers: dict[int, IntakeAnswer] = {}
        valid: list[NewNotification] = []
        for position, (message, origin) in enumerate(messages):
            assert message.channel is not None, "set by parsing"
            faults = self.faults(message)
            if faults:
                answers[position] = IntakeAnswer(None, False, faults)
            else:
                lane = message.lane or Lane.NORMAL
                valid.append(self._new(message, message.channel, lane, position, origin))
        accepted = self._ledger.accept(spans.begin(valid)) if valid else []
        spans.end(accepted)
        _count_accepted(accepted, IntakeSource.HTTP)
        for found in accepted:
            if found.fault is not None:
                answers[found.position] = IntakeAnswer(None, False, (found.fault,))
            else:
                answers[found.position] = IntakeAnswer(found.id, found.status is None)
        self._hand_over(_queued(accepted))
        return [answers[position] for position in range(len(messages))]

    def _reject_as_ours(self, received: Received) -> IntakeSummary:
        received = self._identified(received)
        fix = "Report it; `notifier rejected show` has the message"
        fault = Fault("", "technical_error", "the intake failed on this message", fix)
        plain = replace(received, headers={}, content_type=None, content_encoding=None, broker_user=None)
        last: Exception | None = None
        # Its headers and properties may be impossible to write; its body is not.
        for kept in (received, plain):
            rejection = _rejection(kept, Entry(None), None, (fault,))
            try:
                self._ledger.accept([], [rejection])
            except ServiceUnavailable:
                raise
            except Exception as error:
                last = error
            else:
                _count_rejected([rejection])
                return IntakeSummary(rejected=1)
        # Not even this can be written: perhaps the schema is missing. Nothing is lost while we wait.
        raise ServiceUnavailable("rejected messages cannot be recorded") from last

    def _process(self, batch: Sequence[Received]) -> IntakeSummary:
        begun = time.time_ns()
        summaries = [self._record(portion, begun) for portion in _portions(self._found(batch))]
        summary = _sum(summaries)
        log.info(
            "intake.batch",
            count=len(batch),
            accepted=summary.accepted,
            duplicates=summary.duplicates,
            rejected=summary.rejected,
        )
        return summary

    def _found(self, batch: Sequence[Received]) -> Iterator[_Found]:
        """Every entry of every message. Fields that a batch message shares are merged into each entry."""
        now = self.now()
        for received in map(self._identified, batch):
            for index, entry in enumerate(_entries(received, now)):
                yield _Found(received, entry, index if entry.raw is not None else None)

    def _record(self, portion: Sequence[_Found], begun: int) -> IntakeSummary:
        """Write these entries, normally in one transaction, and publish their tasks."""
        spans = AcceptSpans(IntakeSource.QUEUE, self._broker, begun)
        valid: list[NewNotification] = []
        sources: list[_Found] = []
        rejections: list[NewRejection] = []
        for found in portion:
            new = self._judge(found, len(sources))
            if isinstance(new, NewRejection):
                rejections.append(new)
            else:
                valid.append(new)
                sources.append(found)
        answers = self._ledger.accept(spans.begin(valid), rejections)
        spans.end(answers)
        _count_accepted(answers, IntakeSource.QUEUE)
        _count_rejected(rejections)
        conflicts = [_rejection(*sources[answer.position], (answer.fault,)) for answer in answers if answer.fault]
        if conflicts:
            self._ledger.accept([], conflicts)
            _count_rejected(conflicts)
        # The tasks of a redelivered message may never have been published: the process that took it first may have
        # ended right after the commit.
        again = (one for one in answers if one.is_duplicate and sources[one.position].received.redelivered)
        self._hand_over([*_queued(answers), *again])
        return IntakeSummary(
            accepted=sum(answer.status is not None for answer in answers),
            duplicates=sum(answer.is_duplicate for answer in answers),
            rejected=len(rejections) + len(conflicts),
        )

    def _judge(self, found: _Found, position: int) -> NewNotification | NewRejection:
        received, entry, _ = found
        faults = self._entry_faults(entry, received)
        if entry.message is None or faults:
            return _rejection(*found, faults)
        origin = received.origin
        if origin is None:
            user = received.broker_user
            origin = Origin(self._producers.proof(entry.message.producer, user), user and f"user:{user}")
        return self._new(
            entry.message, received.channel, received.lane, position, origin, redelivered=received.redelivered
        )

    def _identified(self, received: Received) -> Received:
        """The message with the broker user who first published it, and without headers that only claim one."""
        user = self._producers.publisher(received.broker_user, received.headers)
        headers = user_id.without_voucher(received.headers)
        if user == received.broker_user and headers is received.headers:
            return received
        return replace(received, broker_user=user, headers=headers)

    def _entry_faults(self, entry: Entry, received: Received) -> tuple[Fault, ...]:
        if entry.message is not None:
            return few(self._faults(entry.message, received))
        own = entry.with_further(self._faults(entry.draft.message, received) if entry.draft else ())
        of_parts = (placed(place, self._entry_faults(part, received)) for place, part in enumerate(entry.parts))
        return few(chain(own, chain.from_iterable(of_parts)))

    def _faults(self, message: Message, received: Received) -> list[Fault]:
        faults = self._checks.faults(message, received.channel)
        if received.origin is not None:
            return faults
        return self._producers.proof_faults(message.producer, received.broker_user) + faults

    def _new(
        self,
        message: Message,
        channel: Channel,
        lane: Lane,
        position: int,
        origin: Origin,
        *,
        redelivered: bool = False,
    ) -> NewNotification:
        template = self._renderer.template(channel, message.template)
        told = self._callbacks.told(message)
        secrets = tuple(name for name in template.secret_names if name in message.context)
        return NewNotification(
            message,
            channel,
            lane,
            template.version,
            template.on_unknown,
            position,
            redelivered,
            told,
            secret_names=secrets,
            proof=origin.proof,
            sent_by=origin.sent_by,
            is_test=origin.is_test,
            note=origin.note,
        )

    def _hand_over(self, answers: Iterable[Acceptance]) -> None:
        groups: dict[tuple[Channel, Lane], list[UUID]] = defaultdict(list)
        for answer in answers:
            groups[answer.channel, answer.lane].append(answer.id)
        for (channel, lane), ids in groups.items():
            try:
                self._publish_tasks(channel, lane, ids)
            except Exception as error:
                # They are recorded, so the sweep dispatches them when the broker is back.
                log.warning("intake.tasks_not_published", count=len(ids), error=type(error).__name__)
                self._requeue_soon(ids)

    def _requeue_soon(self, ids: Sequence[UUID]) -> None:
        try:
            self._ledger.requeue_soon(ids)
        except ServiceUnavailable:
            pass  # then they are due when their lane's time is over


def _fault_of_ours(_: tuple[Message, Origin]) -> IntakeAnswer:
    fix = "Report it, with the time; the message was not accepted"
    return IntakeAnswer(None, False, (Fault("", "technical_error", "the service failed on it", fix),))


def _queued(answers: Iterable[Acceptance]) -> list[Acceptance]:
    return [answer for answer in answers if answer.status is Status.QUEUED]


def _count_accepted(answers: Iterable[Acceptance], source: IntakeSource) -> None:
    accepted = [(one.channel, one.lane, source) for one in answers if one.status is not None]
    metrics.count(metrics.ACCEPTED, accepted)


def _count_rejected(rejections: Iterable[NewRejection]) -> None:
    metrics.count(metrics.REJECTED, [(one.faults[0].code,) for one in rejections if one.faults])


def _portions(entries: Iterable[_Found]) -> Iterator[list[_Found]]:
    """Groups of entries, each small enough for one statement."""
    portion: list[_Found] = []
    size = 0
    for found in entries:
        portion.append(found)
        size += len(found.received.body if found.entry.raw is None else found.entry.raw)
        if size >= MAX_PORTION_BYTES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _sum(summaries: Sequence[IntakeSummary]) -> IntakeSummary:
    return IntakeSummary(
        accepted=sum(summary.accepted for summary in summaries),
        duplicates=sum(summary.duplicates for summary in summaries),
        rejected=sum(summary.rejected for summary in summaries),
    )


def _entries(received: Received, now: datetime) -> list[Entry]:
    faults = received.faults or tuple(_check_wrapping(received))
    if faults:
        return [Entry(None, faults)]
    entries = [
        replace(entry, faults=without_headers(entry.faults, received.headers)) if entry.faults else entry
        for entry in parse_body(received.body, received.channel, received.lane, now=now)
    ]
    given = received.headers.get("traceparent")
    traceparent = None if given is None else read_traceparent(given)
    return entries if traceparent is None else [entry.within(traceparent) for entry in entries]


def _check_wrapping(received: Received) -> list[Fault]:
    if "task" in received.headers:
        fix = "Publish plain JSON to the exchange notify; Celery's own task messages are not read here"
        return [Fault("", "celery_message", "a message of Celery's task protocol", fix)]
    return check_encoding(received.content_type, received.content_encoding)


def _rejection(received: Received, entry: Entry, position: int | None, faults: tuple[Fault, ...]) -> NewRejection:
    return NewRejection(
        queue=notify_queue_name(received.channel, received.lane),
        body=received.body if entry.raw is None else entry.raw,
        faults=faults,
        headers={
            **received.headers,
            **({"content_type": received.content_type} if received.content_type else {}),
            **({"content_encoding": received.content_encoding} if received.content_encoding else {}),
        },
        producer=entry.producer,
        broker_user=received.broker_user,
        entry=position,
        redelivered=received.redelivered,
        size=received.size if entry.raw is None else None,
    )
