"""What the intake does with a batch of raw messages: validate, one transaction, then tasks for the workers.

Crash points. Before the commit: nothing happened, the broker delivers again. Between the commit and the tasks,
or the tasks and the acknowledgement: the redelivered messages find their own keys, are recorded as duplicates, and
have their tasks published again, which does no harm. The same if the answer to the commit is lost. Where nobody
delivers again, as over HTTP, the rows are `queued` with a `due_at`, and the sweep issues their tasks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from notifier.broker import user_id
from notifier.broker.topology import notify_queue_name
from notifier.callbacks.policy import Rules
from notifier.config.logs import log, log_failure
from notifier.config.structure import Structure
from notifier.domain.errors import Fault, NotFound, ServiceUnavailable, StatementCancelled, TemplateInvalid, few
from notifier.domain.message import Message
from notifier.domain.producers import ProducerProof
from notifier.domain.statuses import Channel, Lane, Status
from notifier.domain.validation import Entry, parse_body
from notifier.intake.producers import Producers
from notifier.providers.smtp.address import parse_mailbox
from notifier.rendering import Renderer
from notifier.store.ledger import Ledger
from notifier.store.records import Acceptance, NewNotification, NewRejection

#: Publishes deliver tasks: channel, lane, ids. May raise anything; the sweep covers for it.
PublishTasks = Callable[[Channel, Lane, Sequence[UUID]], None]

#: So many messages make a batch, at the most.
BATCH_SIZE = 200
#: When the entries in hand come to this, they are written before the next one is looked at. Bytes.
MAX_PORTION_BYTES = 4 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Received:
    """One message as the broker gave it, not looked into yet."""

    body: bytes
    channel: Channel
    lane: Lane
    #: Application headers, of any shape.
    headers: Mapping[str, Any] = field(default_factory=dict)
    content_type: str | None = None
    content_encoding: str | None = None
    #: The property `user_id`, which RabbitMQ vouches for; None: it has none, or came by another broker.
    broker_user: str | None = None
    #: It may have been taken in before: the broker delivers it again, or we failed when we tried.
    redelivered: bool = False
    #: What the reader already found wrong with its wrapping; such a message is rejected for that.
    faults: tuple[Fault, ...] = ()
    #: Bytes that its body had; None: those of `body`, which the reader did not cut.
    size: int | None = None


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of a batch. Counts are of entries, so a batch message counts as many."""

    accepted: int = 0
    duplicates: int = 0
    rejected: int = 0


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one message whose sender waits: the notification, or why there is none."""

    id: UUID | None
    #: It was accepted before.
    is_replay: bool
    faults: tuple[Fault, ...] = ()


#: A message, one of its entries, and which one it is if there are several.
_Found = tuple[Received, Entry, int | None]


class Intake:
    """Takes batches. One instance serves every queue and thread of a process."""

    def __init__(
        self,
        ledger: Ledger,
        renderer: Renderer,
        structure: Structure,
        publish_tasks: PublishTasks,
        *,
        callback_hosts: Collection[str] = (),
        producers: Producers | None = None,
    ) -> None:
        self._ledger = ledger
        self._renderer = renderer
        self._structure = structure
        self._publish_tasks = publish_tasks
        self._callbacks = Rules(structure.callbacks, callback_hosts)
        self._producers = producers or Producers(structure)

    def now(self) -> datetime:
        """The time against which messages are judged: by the database's clock.

        Raises:
            ServiceUnavailable: it is not known yet, and the database is away.
        """
        return self._ledger.now()

    def process(self, batch: Sequence[Received]) -> Summary:
        """Accept or reject every message; when this returns, all of them are in the record.

        A message that makes our own code fail is isolated and rejected as `technical_error`. What takes the
        database too long is done in halves.

        Raises:
            ServiceUnavailable: not everything was recorded; keep the batch and call again.
        """
        try:
            return self._process(batch)
        except StatementCancelled:
            # The same again would take as long again.
            if len(batch) == 1:
                raise
            log.warning("intake.halved", count=len(batch))
            half = len(batch) // 2
            return _sum([self.process(batch[:half]), self.process(batch[half:])])
        except ServiceUnavailable:
            raise
        except Exception as error:
            log_failure("intake.failed", error, count=len(batch))
        if len(batch) == 1:
            return self._reject_as_ours(batch[0])
        return _sum([self.process([received]) for received in batch])

    def answer(self, messages: Sequence[Message], *, is_test: bool = False) -> list[Answer]:
        """Accept messages whose sender waits for the answer; each has its channel and lane set. `is_test`: no
        provider is ever called for them. Only this way is there such a thing: not over the broker, where whoever
        publishes says himself who he is.

        The same rules as for a batch of the broker's, but what is refused is not kept: its sender is told.

        Raises:
            ServiceUnavailable: not everything was recorded; what was is a duplicate when it comes again.
        """
        try:
            return self._answer(messages, is_test)
        except StatementCancelled:
            if len(messages) == 1:
                raise
            log.warning("intake.halved", count=len(messages))
            half = len(messages) // 2
            halves = (messages[:half], messages[half:])
            return [answer for part in halves for answer in self.answer(part, is_test=is_test)]
        except ServiceUnavailable:
            raise
        except Exception as error:
            log_failure("intake.failed", error, count=len(messages))
        if len(messages) == 1:
            fix = "Report it, with the time; the message was not accepted"
            return [Answer(None, False, (Fault("", "technical_error", "the service failed on it", fix),))]
        return [answer for message in messages for answer in self.answer([message], is_test=is_test)]

    def _answer(self, messages: Sequence[Message], is_test: bool) -> list[Answer]:
        answers: dict[int, Answer] = {}
        valid: list[NewNotification] = []
        for position, message in enumerate(messages):
            assert message.channel is not None, "set by parsing"
            faults = self._check(message, message.channel)
            if faults:
                answers[position] = Answer(None, False, few(faults))
            else:
                new = self._new(message, message.channel, message.lane or Lane.NORMAL, position)
                valid.append(replace(new, proof=ProducerProof.API_KEY, is_test=is_test))
        accepted = self._ledger.accept(valid) if valid else []
        for found in accepted:
            if found.fault is not None:
                answers[found.position] = Answer(None, False, (found.fault,))
            else:
                answers[found.position] = Answer(found.id, found.status is None)
        self._hand_over(_queued(accepted))
        return [answers[position] for position in range(len(messages))]

    def _reject_as_ours(self, received: Received) -> Summary:
        received = self._identified(received)
        fix = "Report it; `notifier rejected show` has the message"
        fault = Fault("", "technical_error", "the intake failed on this message", fix)
        plain = replace(received, headers={}, content_type=None, content_encoding=None, broker_user=None)
        last: Exception | None = None
        # What its wrapping holds may be what cannot be written; its body always can.
        for kept in (received, plain):
            try:
                self._ledger.accept([], [_rejection(kept, Entry(None), None, (fault,))])
            except ServiceUnavailable:
                raise
            except Exception as error:
                last = error
            else:
                return Summary(rejected=1)
        # Not even that can be written: the schema is missing, say. Nothing is lost while we wait.
        raise ServiceUnavailable("rejected messages cannot be recorded") from last

    def _process(self, batch: Sequence[Received]) -> Summary:
        summaries = [self._record(portion) for portion in _portions(self._found(batch))]
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
        """Every entry of every message; what a batch message shares is in each of its entries."""
        for received in map(self._identified, batch):
            for index, entry in enumerate(self._entries(received)):
                yield received, entry, index if entry.raw is not None else None

    def _record(self, portion: Sequence[_Found]) -> Summary:
        """Write these, in one transaction as a rule, and publish their tasks."""
        valid: list[NewNotification] = []
        rejections: list[NewRejection] = []
        sources: list[_Found] = []
        for received, entry, position in portion:
            faults = few(entry.faults or self._faults(entry.message, received))
            if entry.message is None or faults:
                rejections.append(_rejection(received, entry, position, faults))
                continue
            new = self._new(entry.message, received.channel, received.lane, len(sources), received.redelivered)
            proof = self._producers.proof(entry.message.producer, received.broker_user)
            valid.append(replace(new, proof=proof))
            sources.append((received, entry, position))
        answers = self._ledger.accept(valid, rejections)
        conflicts = [_rejection(*sources[a.position], (a.fault,)) for a in answers if a.fault]
        if conflicts:
            self._ledger.accept([], conflicts)
        # The tasks of what came again may never have been published: its first try, by us or by one that died, may
        # have ended right after the commit.
        again = (a for a in answers if a.is_duplicate and sources[a.position][0].redelivered)
        self._hand_over([*_queued(answers), *again])
        return Summary(
            accepted=sum(answer.status is not None for answer in answers),
            duplicates=sum(answer.is_duplicate for answer in answers),
            rejected=len(rejections) + len(conflicts),
        )

    def _entries(self, received: Received) -> list[Entry]:
        faults = received.faults or tuple(_check_wrapping(received))
        if faults:
            return [Entry(None, faults)]
        return parse_body(received.body, received.channel, received.lane, now=self.now())

    def _identified(self, received: Received) -> Received:
        """The same, with the broker user who published it first, and without what others say about that."""
        user = self._producers.publisher(received.broker_user, received.headers)
        return replace(received, broker_user=user, headers=user_id.without_voucher(received.headers))

    def _faults(self, message: Message | None, received: Received) -> list[Fault]:
        if message is None:
            return []
        not_proven = self._producers.proof_faults(message.producer, received.broker_user)
        return not_proven + self._check(message, received.channel)

    def _check(self, message: Message | None, channel: Channel) -> list[Fault]:
        """What the bytes alone cannot tell: is there such a template, sender, mailbox, and may it be sent?"""
        if message is None:
            return []
        faults = self._renderer.check_context(channel, message.template, message.context)
        for name in ("sender", "reply_to"):
            identity = getattr(message, name)
            if identity is not None and identity not in self._structure.senders:
                known = ", ".join(sorted(self._structure.senders)) or "none"
                faults.append(
                    Fault(name, "unknown_sender", "is no configured sender identity", f"Use one of: {known}")
                )
        if channel is Channel.EMAIL and not is_mailbox(message.to):
            fix = "Write it as name@example.com or Name <name@example.com>"
            faults.append(Fault("to", "not_an_address", "not a valid e-mail address", fix))
        faults += self._producers.limit_faults(message, channel, partial(self._template_sender, message, channel))
        return faults + self._callbacks.faults(message)

    def _template_sender(self, message: Message, channel: Channel) -> str | None:
        try:
            return self._renderer.template(channel, message.template).sender
        except (NotFound, TemplateInvalid):
            return None  # which is a fault already

    def _new(
        self, message: Message, channel: Channel, lane: Lane, position: int, redelivered: bool = False
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
        )

    def _hand_over(self, answers: Iterable[Acceptance]) -> None:
        groups: dict[tuple[Channel, Lane], list[UUID]] = defaultdict(list)
        for answer in answers:
            groups[answer.channel, answer.lane].append(answer.id)
        for (channel, lane), ids in groups.items():
            try:
                self._publish_tasks(channel, lane, ids)
            except Exception as error:
                # They are in the record: the sweep gives them out when the broker is back.
                log.warning("intake.tasks_not_published", count=len(ids), error=type(error).__name__)
                self._hurry(ids)

    def _hurry(self, ids: Sequence[UUID]) -> None:
        try:
            self._ledger.hurry(ids)
        except ServiceUnavailable:
            pass  # then they are due after their lane's time


def _queued(answers: Iterable[Acceptance]) -> list[Acceptance]:
    return [answer for answer in answers if answer.status is Status.QUEUED]


def is_mailbox(address: str) -> bool:
    """Whether mail can be addressed to it: syntax only, display name allowed. No DNS is asked."""
    try:
        parse_mailbox(address)
    except ValueError:
        return False
    return True


def _portions(found: Iterable[_Found]) -> Iterator[list[_Found]]:
    """Some at a time: no statement is larger than a database takes in a moment."""
    portion: list[_Found] = []
    size = 0
    for received, entry, position in found:
        portion.append((received, entry, position))
        size += len(received.body if entry.raw is None else entry.raw)
        if size >= MAX_PORTION_BYTES:
            yield portion
            portion, size = [], 0
    if portion:
        yield portion


def _sum(summaries: Sequence[Summary]) -> Summary:
    return Summary(
        accepted=sum(summary.accepted for summary in summaries),
        duplicates=sum(summary.duplicates for summary in summaries),
        rejected=sum(summary.rejected for summary in summaries),
    )


def _check_wrapping(received: Received) -> list[Fault]:
    if "task" in received.headers:
        fix = "Publish plain JSON to the exchange notify; Celery's own task messages are not read here"
        return [Fault("", "celery_message", "a message of Celery's task protocol", fix)]
    return check_encoding(received.content_type, received.content_encoding)


def check_encoding(content_type: str | None, content_encoding: str | None) -> list[Fault]:
    """What keeps a body from being read as plain JSON."""
    faults = []
    kind = (content_type or "application/json").split(";")[0].strip().lower()
    if kind not in ("application/json", "text/json", "application/octet-stream"):
        fix = "Set content_type to application/json"
        faults.append(Fault("content_type", "wrong_content_type", "is not JSON's", fix))
    encoding = (content_encoding or "utf-8").strip().lower()
    if encoding not in ("utf-8", "utf8", "us-ascii", "binary"):
        fix = "Send plain UTF-8, without compression"
        faults.append(Fault("content_encoding", "wrong_content_encoding", "is not UTF-8", fix))
    return faults


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
