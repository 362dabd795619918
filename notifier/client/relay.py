"""The relay publishes what producers wrote into their outbox, for as long as it takes.

    relay = Relay(SqlOutbox(engine), Wire("amqp://shop:…@broker/"))
    relay.run(stop)

Rows leave the outbox after the broker has confirmed them, in the transaction that holds them. A relay that dies
between the confirmation and its commit leaves rows that are published a second time, with the same id and
idempotency key: the service accepts them once. So nothing is lost and nothing is sent twice, and several relays
may run at once: if the database can skip locked rows (PostgreSQL, MySQL 8) they share the work.

Rows come from an `Outbox`, a small protocol with a class for SQLAlchemy (`notifier.client.outbox`) and one for
Django (`notifier.contrib.django`).
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

#: Rows of one transaction.
BATCH_ROWS = 500
#: Pause while the outbox is empty.
IDLE_SECONDS = 0.5
#: Shortest and longest pause after failures; it doubles, and half of it is random.
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 15.0

#: Identifies one of the producers' queues.
Pair = tuple[Channel, Lane]


@dataclass(frozen=True, slots=True)
class OutboxRow:
    id: UUID
    channel: Channel
    lane: Lane
    #: The contract's JSON.
    body: bytes

    @property
    def pair(self) -> Pair:
        return (self.channel, self.lane)


@dataclass(frozen=True, slots=True)
class Passed:
    """What became of the rows that were taken. Rows in neither list were not tried."""

    published: Sequence[UUID] = ()
    failed: Sequence[UUID] = ()
    #: Why they failed, and where.
    error: str = ""
    pair: Pair | None = None
    #: Whether that lasts: publishing again does not help before somebody corrects what `error` names.
    is_refused: bool = False


class Outbox(Protocol):
    def pass_on(
        self, limit: int, pairs: Sequence[Pair], publish: Callable[[Sequence[OutboxRow]], Passed]
    ) -> Passed:
        """Take up to `limit` rows of `pairs`, oldest id first, that no other relay holds; give them to `publish`;
        delete what it published and note the error in what failed. Returns what `publish` returned.

        Raises:
            ServiceUnavailable: the database cannot be used now. What was published may be taken again.
        """


class Publisher(Protocol):
    """Where rows go; `notifier.broker.publisher.Wire` is one."""

    def publish(self, channel: Channel, lane: Lane, *bodies: bytes) -> None:
        """Return when the broker holds these, or raise PublishFailed."""


@dataclass(slots=True)
class _Pause:
    """Grows with every failure until something succeeds."""

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
    """Passes rows on until it is stopped.

    Rows of one channel and lane are published in the batch form of the contract, up to 1 000 or 1 MiB at a time:
    they share one confirmation, and with it one write to the quorum queue's disk. A single row uses the single
    form, and so does one whose body is no plain message, because a batch is refused as a whole if one entry breaks
    its JSON.

    A queue that accepts nothing (it is full, or not for this user, or the broker is away) pauses alone: the rows
    of others pass it.
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
        """Pass rows on until `stop` is set; the batch in hand is finished first."""
        while not stop.is_set():
            stop.wait(self.step())

    def drain(self) -> int:
        """Pass on everything that is there now. Returns how many rows. For cron jobs and tests.

        A queue that accepts nothing is tried once; what is for others still goes out before this raises.

        Raises:
            PublishFailed: the broker did not accept all of it; the rest stays where it is.
            PublishRefused: of some of it, for good: it stays until somebody corrects what the text names.
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
        """Pass on one batch. Returns the seconds to wait before the next; 0 while there is more to do."""
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
        """The rows, urgent ones first, until the first failure."""
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
    """What a human must correct comes before what another try may mend."""
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
    """Whether it can be an entry of a batch. If it is something else, the service will say so."""
    try:
        value = from_json(body)
    except ValueError:
        return False
    return isinstance(value, dict) and "batch" not in value
