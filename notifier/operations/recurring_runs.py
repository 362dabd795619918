"""Runs of recurring notifications: each time of a plan reaches each recipient of its list once.

A tick every minute takes the due plans, one after the other, and has their messages accepted by the ordinary
intake, in portions. So suppressions, quotas and limits apply as for any message. A long list continues with the
next tick.

After a downtime of the service, only the latest missed time is made up for, and only if it is less than an hour
old. A run that stood still for an hour, because the service was down or the plan was paused, ends there. What was
due while a plan was paused is not made up for, even if a run was in progress.

Crash points: the plan's next time is written only after the last portion, by the statement that also files the run
among the past ones. After a crash between the acceptance of a portion and the note of the run's progress, the
portion is accepted again. Its idempotency keys, made of the run's time and the recipient, make nothing of it
twice. The same holds if two ticks work on one run because the first one's lease has ended. If the list is replaced
in the middle of a run, the run begins again with the new list; the keys show who has already received the message,
even if its text differs now.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from threading import Event
from typing import Any

from notifier.config.logs import log, log_failure
from notifier.domain.errors import Fault, ServiceUnavailable
from notifier.domain.message import Message
from notifier.domain.producers import Origin, ProducerProof
from notifier.domain.validation import Entry, read_message
from notifier.operations.upkeep import why_failed
from notifier.store.recurring import ListedRecipient, RecurringPlan
from notifier.store.recurring_runs import Portion, RecurringRunRepository, TakenRun

#: A missed time is made up for within this, and a run may stand still for this long.
LATE = timedelta(hours=1)
#: How long a tick works; it may take one portion longer. Seconds.
TICK_SECONDS = 40.0
#: Recipients whose messages are accepted in one transaction.
PORTION = 500
#: Maximum number of a run's faults that are kept.
KEPT_FAULTS = 20

_BEFORE = "idempotency_conflict"

#: Accepts messages as the intake does. Returns the faults of each message; none: it is in the record, from now or
#: before.
Accept = Callable[[Sequence[Message], Origin], Sequence[Sequence[Fault]]]


def message_of(plan: RecurringPlan, recipient: ListedRecipient, key: str, now: datetime) -> Entry:
    """The message to one recipient, or what is wrong with it."""
    fields = {
        "producer": plan.producer,
        "idempotency_key": key,
        "to": recipient.to,
        "template": plan.template,
        "context": {**plan.context, **recipient.context},
        "locale": recipient.locale or plan.locale,
        "sender": plan.sender,
        # So that everything it sent can be searched for.
        "reference": plan.name,
    }
    return read_message(fields, plan.channel, plan.lane, now=now)


@dataclass(frozen=True, slots=True)
class _Turn:
    """How long one tick may work."""

    end: float
    stop: Event | None

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.end or (self.stop is not None and self.stop.is_set())


class RecurringRuns:
    """Runs what is due. Thread-safe; several ticks at once do no harm."""

    def __init__(self, repository: RecurringRunRepository, accept: Accept) -> None:
        self._repository = repository
        self._accept = accept

    def tick(self, stop: Event | None = None) -> dict[str, int]:
        """Work on what is due, until `stop` is set because the process ends. Returns counts of messages.

        Raises:
            ServiceUnavailable: the next tick continues.
        """
        turn, done = _Turn(time.monotonic() + TICK_SECONDS, stop), {"accepted": 0, "refused": 0}
        while not turn.is_over:
            try:
                run = self._repository.take()
            except ServiceUnavailable:
                raise
            except Exception as error:
                log_failure("recurring.failed", error)
                continue
            if run is None:
                break
            self._work(run, turn, done)
        return done

    def _work(self, run: TakenRun, turn: _Turn, done: dict[str, int]) -> None:
        try:
            run_at = run.run_at or self._begin(run)
            if run_at is not None:
                self._go_through(run, run_at.astimezone(UTC), turn, done)
        except ServiceUnavailable:
            raise
        except Exception as error:
            # Other plans continue; this one is tried again when its lease ends.
            log_failure("recurring.failed", error, recurring=run.plan.name, producer=run.plan.producer)
            self._repository.note(run.id, run.token, why_failed(error))

    def _begin(self, run: TakenRun) -> datetime | None:
        """The time of the run that begins; None: no run begins."""
        assert run.next_at is not None, "it is due"
        plan = run.plan.recurrence
        run_at = plan.latest(max(run.next_at, run.now - LATE), run.now)
        if run_at is None:
            missed = run.next_at.astimezone(UTC)
            log.warning("recurring.missed", recurring=run.plan.name, producer=run.plan.producer)
            note = f"the run of {missed:%Y-%m-%d %H:%M} UTC was missed: the service was away for more than an hour"
            self._repository.skip(run, plan.next(run.now), note)
            return None
        return run_at if self._repository.begin(run, run_at) else None

    def _go_through(self, run: TakenRun, run_at: datetime, turn: _Turn, done: dict[str, int]) -> None:
        place = run.run_position if run.run_at else 0
        next_at = run.plan.recurrence.next(run_at)
        if run.run_at and run.run_moved_at and run.now - run.run_moved_at > LATE:
            self._repository.finish(run, next_at, "the run stood still for more than an hour and was ended")
            return
        while rows := self._repository.recipients(run, place, PORTION):
            portion = self._send(run, run_at, rows)
            done["accepted"] += portion.accepted
            done["refused"] += portion.refused
            if not self._repository.advance(run, run_at, place, portion):
                return
            place = portion.position
            if turn.is_over:
                self._repository.release(run)
                return
        self._repository.finish(run, next_at)
        log.info("recurring.finished", recurring=run.plan.name, producer=run.plan.producer)

    def _send(self, run: TakenRun, run_at: datetime, rows: Sequence[tuple[ListedRecipient, bytes]]) -> Portion:
        now = self._repository.now()
        faults: dict[int, Sequence[Fault]] = {}
        messages: dict[int, Message] = {}
        for recipient, address_hash in rows:
            key = f"recurring:{run.id}:{run_at.isoformat()}:{address_hash.hex()}"
            entry = message_of(run.plan, recipient, key, now)
            if entry.message is None:
                faults[recipient.position] = entry.faults
            else:
                messages[recipient.position] = entry.message
        if messages:
            origin = Origin(ProducerProof.SERVICE, f"recurring:{run.id}", is_test=run.plan.is_test)
            answers = self._accept(list(messages.values()), origin)
            faults |= dict(zip(messages, answers, strict=True))
        refused = {line: found for line, found in sorted(faults.items()) if found and found[0].code != _BEFORE}
        first = [_told(line, found[0]) for line, found in list(refused.items())[:KEPT_FAULTS]]
        return Portion(rows[-1][0].position, len(rows) - len(refused), len(refused), first)


def _told(line: int, fault: Fault) -> dict[str, Any]:
    return {"line": line, **fault.as_dict()}
