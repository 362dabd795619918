"""The relay: publishes what producers wrote into their outbox, and keeps trying until the broker has it.

    relay = Relay(SqlOutbox(engine), Wire("amqp://shop:…@broker/"))
    relay.run(stop)

The relay deletes rows after the broker has confirmed them, in the transaction that holds them. If a relay dies
between the confirmation and its commit, the rows are published a second time with the same id and idempotency key,
and the service accepts them once. So nothing is lost and nothing is sent twice, and several relays may run at
once. If the database can skip locked rows (PostgreSQL, MySQL 8), they share the work.

Rows come from an `Outbox`, a small protocol with one implementation for SQLAlchemy (`notifier.client.outbox`) and
one for Django (`notifier.contrib.django`).
"""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from threading import Event
from typing import Protocol
from uuid import UUID

from pydantic_core import from_json

from notifier.broker import topology
from notifier.broker.batch_form import portions
from notifier.domain.errors import ConfigurationError, PublishFailed, PublishRefused, ServiceUnavailable
from notifier.domain.statuses import Channel, Lane

log = logging.getLogger("notifier.client.relay")

#: Rows in one transaction.
BATCH_ROWS = 500
#: Pause while the outbox is empty. Seconds.
IDLE_SECONDS = 0.5
#: Shortest and longest pause after failures. It doubles each time, and half of it is random. Seconds.
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0

#: Identifies one of the producers' queues.
Pair = tuple[Channel, Lane]


@dataclass(frozen=True, slots=True)
class OutboxRow:
    id: UUID
    channel: Channel
    lane: Lane
    #: The message as JSON of the contract.
    body: bytes

    @property
    def pair(self) -> Pair:
        return (self.channel, self.lane)


@dataclass(frozen=True, slots=True)
class Passed:
    """The result for the rows that were taken. Rows in neither list were not tried."""

    published: Sequence[UUID] = ()
    failed: Sequence[UUID] = ()
    #: Why rows failed, and where.
    error: str = ""
    pair: Pair | None = None
    #: Whether the failure lasts: publishing again does not help until somebody corrects what `error` names.
    is_refused: bool = False


class Outbox(Protocol):
    def pass_on(
        self, limit: int, pairs: Sequence[Pair], publish: Callable[[Sequence[OutboxRow]], Passed]
    ) -> Passed:
        """Take up to `limit` rows of `pairs` that no other relay holds, oldest id first, and give them to
        `publish`. Delete the rows it published, and note the error in those that failed. Returns what `publish`
        returned.

        Raises:
            ServiceUnavailable: the database cannot be used now. Rows that were published may be taken again.
        """


class Publisher(Protocol):
    """Publishes rows; `notifier.broker.publisher.Wire` is the implementation."""

    def publish(self, channel: Channel, lane: Lane, *bodies: bytes) -> None:
        """Return when the broker holds these bodies, or raise `PublishFailed`."""


@dataclass(slots=True)
class _Pause:
    """A pause that grows with every failure and starts again after a success."""

    failures: int = 0
    until: float = 0.0

    def grow(self, now: float) -> float:
        seconds = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(self.failures, 10))
        seconds *= random.uniform(0.5, 1)  # noqa: S311 - spreads relays, guards nothing
        self.failures += 1
        self.until = now + seconds
        return seconds


@dataclass(slots=True)
class Relay:
    """Publishes rows of the outbox until it is stopped.

    Rows of one channel and lane are published in the contract's batch form, up to 1 000 rows or 1 MiB at a time.
    They share one confirmation, and so one write to the quorum queue's disk. A single row uses the single form. A
    row whose body is not a plain message does too, because a batch is refused as a whole if one entry breaks its
    JSON.

    If a queue accepts nothing (it is full, this user may not write to it, or the broker is away), only that queue
    pauses. Rows for other queues go on.
    """

    outbox: Outbox
    publisher: Publisher
    batch_rows: int = BATCH_ROWS
    idle_seconds: float = IDLE_SECONDS
    clock: Callable[[], float] = time.monotonic
    _pauses: dict[Pair, _Pause] = field(default_factory=dict, init=False)
    _database: _Pause = field(default_factory=_Pause, init=False)

    def __post_init__(self) -> None:
        if self.batch_rows < 1 or self.idle_seconds <= 0:
            raise ConfigurationError("a relay takes at least 1 row at a time, and its pause is longer than 0 s")

    def run(self, stop: Event) -> None:
        """Publish rows until `stop` is set; the current batch is finished first."""
        while not stop.is_set():
            stop.wait(self.step())

    def drain(self) -> int:
        """Publish every row that is there now, for cron jobs and tests. Returns the number of rows.

        A queue that accepts nothing is tried once. Rows for other queues are still published before this raises.

        Raises:
            PublishFailed: the broker did not accept every row; the rest stay in the outbox.
            PublishRefused: the broker will not accept some rows until somebody corrects what the text names; they
                stay.
            ServiceUnavailable: the database cannot be used.
        """
        count = 0
        pairs = list(topology.pairs())
        failures: list[Passed] = []
        while pairs:
            passed = self.outbox.pass_on(self.batch_rows, pairs, self._publish)
            count += len(passed.published)
            if passed.pair is not None:
                failures.append(passed)
                pairs.remove(passed.pair)
            elif not passed.published:
                break
        if failures:
            raise _failure(failures, count)
        return count

    def step(self) -> float:
        """Publish one batch. Returns the seconds to wait before the next; 0 if there is more to do."""
        now = self.clock()
        pairs = [pair for pair in topology.pairs() if pair not in self._pauses or self._pauses[pair].until <= now]
        if not pairs:
            return max(0.0, min(pause.until for pause in self._pauses.values()) - now)
        try:
            passed = self.outbox.pass_on(self.batch_rows, pairs, self._publish)
        except ServiceUnavailable as error:
            seconds = self._database.grow(now)
            log.warning("outbox cannot be read, next try in %.1f s: %s", seconds, error)
            return seconds
        self._database = _Pause()
        if passed.pair is not None:
            seconds = self._pauses.setdefault(passed.pair, _Pause()).grow(self.clock())
            queue = topology.notify_queue_name(*passed.pair)
            log.warning("outbox rows of %s wait, next try in %.1f s: %s", queue, seconds, passed.error)
            return 0.0
        is_full = len(passed.published) >= self.batch_rows
        return 0.0 if is_full else self.idle_seconds

    def _publish(self, rows: Sequence[OutboxRow]) -> Passed:
        """Publish the rows, urgent ones first, until the first failure."""
        published: list[UUID] = []
        for group in _groups(rows):
            first = group[0]
            try:
                self.publisher.publish(first.channel, first.lane, *(row.body for row in group))
            except PublishFailed as error:
                failed = [row.id for row in group]
                return Passed(published, failed, str(error), first.pair, isinstance(error, PublishRefused))
            published += [row.id for row in group]
            if self._pauses.pop(first.pair, None):
                log.warning("outbox rows of %s pass again", topology.notify_queue_name(*first.pair))
        return Passed(published)


def _failure(failures: Sequence[Passed], count: int) -> PublishFailed:
    """The error to raise: faults that a person must correct come before those that another try may solve."""
    said = sorted(failures, key=lambda passed: not passed.is_refused)[0]
    queues = ", ".join(topology.notify_queue_name(*passed.pair) for passed in failures if passed.pair)
    kind = PublishRefused if said.is_refused else PublishFailed
    return kind(f"{count} published, the rows of {queues} stay in the outbox: {said.error}")


def _groups(rows: Sequence[OutboxRow]) -> Iterable[list[OutboxRow]]:
    """Rows that are published together."""
    order = {pair: index for index, pair in enumerate(topology.pairs())}
    for _, group in groupby(sorted(rows, key=lambda row: order[row.pair]), key=lambda row: row.pair):
        of_pair = list(group)
        if len(of_pair) == 1:
            yield of_pair
            continue
        plain = {row.id for row in of_pair if _is_plain(row.body)}
        yield from portions((row for row in of_pair if row.id in plain), lambda row: row.body)
        yield from ([row] for row in of_pair if row.id not in plain)


def _is_plain(body: bytes) -> bool:
    """Whether the body can be an entry of a batch. If it is something else, the service will report it."""
    try:
        value = from_json(body)
    except ValueError:
        return False
    return isinstance(value, dict) and "batch" not in value
