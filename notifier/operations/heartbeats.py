"""Heartbeats: small messages to a mailbox and a number of ours, which the real providers send. A late heartbeat
shows that a lane does not send, before anybody misses a message.

Crash points: one heartbeat of a lane is accepted in each time slot, however often the task runs, because its
idempotency key is the channel, the lane and the slot. A missed slot stays empty, and a heartbeat that cannot be
sent expires, so that none arrive late in a heap.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from notifier.config.heartbeats import HeartbeatTable
from notifier.config.logs import log
from notifier.domain.errors import InvalidMessage
from notifier.domain.message import Message
from notifier.domain.statuses import Channel, Lane
from notifier.operations.daily_report import Accept
from notifier.operations.upkeep import ScheduledStep
from notifier.store.heartbeats import HeartbeatRepository, NewestHeartbeat

#: Their producer and template. No producer of messages has this name; statistics recognise heartbeats by it.
PRODUCER, TEMPLATE = "notifier-heartbeat", "heartbeat"
#: A heartbeat is late, and expires, after this many intervals.
LATE_INTERVALS = 2
#: How many intervals back the record is searched.
KNOWN_INTERVALS = 10


@dataclass(frozen=True, slots=True)
class HeartbeatState:
    channel: Channel
    lane: Lane
    #: When a heartbeat was last sent; None: none in the last `KNOWN_INTERVALS`.
    last_sent_at: datetime | None
    sent_seconds_ago: float | None
    is_late: bool


class Heartbeats:
    def __init__(self, table: HeartbeatTable, repository: HeartbeatRepository, accept: Accept) -> None:
        self.table = table
        self._repository = repository
        self._accept = accept

    def send(self) -> int:
        """Send the heartbeats that the current slot lacks. Returns how many were accepted; refusals are logged."""
        if not self._recipients:
            return 0
        slot, known = self._slot(), self._newest()
        wanted = [
            self._message(channel, lane, recipient, slot)
            for channel, lane, recipient in self._recipients
            if (newest := known.get((channel, lane))) is None or newest.accepted_at < slot
        ]
        accepted = 0
        for message, faults in zip(wanted, self._accept(wanted) if wanted else (), strict=True):
            if faults:
                reason = str(InvalidMessage(list(faults)))
                log.warning("heartbeat.refused", channel=message.channel, lane=message.lane, reason=reason)
            else:
                accepted += 1
        return accepted

    def states(self) -> list[HeartbeatState]:
        """The state of each channel and lane that has heartbeats."""
        known = self._newest() if self._recipients else {}
        return [self._state(channel, lane, known.get((channel, lane))) for channel, lane, _ in self._recipients]

    def schedule(self) -> list[ScheduledStep]:
        """When the next heartbeats are due, in the form of upkeep's steps. Success means that a provider accepted
        one."""
        if not self._recipients:
            return []
        minutes = self.table.every_minutes
        when = "every minute" if minutes == 1 else f"every {minutes} minutes"
        return [
            ScheduledStep(
                name=f"heartbeat {one.channel} {one.lane}",
                when=when,
                next_run_at=self._slot() + self.table.interval,
                last_success_at=one.last_sent_at,
                last_failure_at=None,
                failure=None,
                is_late=one.is_late,
            )
            for one in self.states()
        ]

    @property
    def _recipients(self) -> list[tuple[Channel, Lane, str]]:
        return list(self.table.recipients())

    def _newest(self) -> dict[tuple[Channel, Lane], NewestHeartbeat]:
        since = self._repository.now() - KNOWN_INTERVALS * self.table.interval
        return {(one.channel, one.lane): one for one in self._repository.newest(PRODUCER, since)}

    def _slot(self) -> datetime:
        """When the current slot began, by the database's clock. Slots are counted from 1970."""
        seconds = self.table.interval.total_seconds()
        return datetime.fromtimestamp(self._repository.now().timestamp() // seconds * seconds, UTC)

    def _message(self, channel: Channel, lane: Lane, recipient: str, slot: datetime) -> Message:
        return Message(
            producer=PRODUCER,
            idempotency_key=f"heartbeat {channel}:{lane}:{slot:%Y-%m-%dT%H:%MZ}",
            channel=channel,
            lane=lane,
            to=recipient,
            template=TEMPLATE,
            context={"lane": str(lane), "at": f"{slot:%Y-%m-%dT%H:%M:%SZ}"},
            expires_at=slot + LATE_INTERVALS * self.table.interval,
        )

    def _state(self, channel: Channel, lane: Lane, newest: NewestHeartbeat | None) -> HeartbeatState:
        sent_at = None if newest is None else newest.sent_at
        ago = None if newest is None else newest.sent_seconds_ago
        is_late = ago is None or ago > LATE_INTERVALS * self.table.interval.total_seconds()
        return HeartbeatState(channel, lane, sent_at, ago, is_late)
