"""Accepts messages of concurrent requests in batches: messages gather while earlier ones are written.

Nothing waits for a batch to fill: the first message starts at once, and messages that arrive meanwhile are the
next batch. If a message is refused, or takes the database too long, only its own request fails. If another session
holds a message's key, it delays the batch for half a second. After that each message is accepted by itself, and a
producer with several such keys is told to repeat the rest (`Intake.answer_each`).

Crash points: those of `Intake`, and none of its own. Requests are answered after their batch commits. If the
process dies before that, none was answered. Producers repeat their messages, and those already recorded are
duplicates.
"""

from __future__ import annotations

import asyncio
import threading
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from queue import SimpleQueue

from notifier.api.key_shares import Shares
from notifier.domain.message import Message
from notifier.domain.producers import Origin
from notifier.intake import Intake
from notifier.intake.batch import BATCH_SIZE, IntakeAnswer

#: A batch takes no more messages once it reaches this size, so that a large batch delays few others. Bytes.
MAX_BATCH_BYTES = 256 * 1024
#: Time to write waiting messages when the process ends. Seconds.
CLOSE_SECONDS = 3.0

#: Reads a message at the given time of the database's clock. What it raises is raised for its own request only.
Read = Callable[[datetime], Message]


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    read: Read
    size: int
    origin: Origin
    answer: asyncio.Future[IntakeAnswer]


_Outcome = IntakeAnswer | Exception


class JointAcceptance:
    """Accepts messages for a process, with its own thread and its own connection to the database."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        # A key that sends a lot leaves half of each batch to the others.
        self._shares = Shares(BATCH_SIZE // 2)
        self._waiting: SimpleQueue[_Request | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="acceptance", daemon=True)
        self._thread.start()

    async def accept(self, read: Read, size: int, *, key_id: str, origin: Origin) -> IntakeAnswer:
        """Accept one message of `size` bytes for a key.

        Raises:
            ServiceUnavailable: it was not recorded, or it is unknown whether it was.
        """
        async with self._shares.turn(key_id):
            request = _Request(read, size, origin, asyncio.get_running_loop().create_future())
            self._waiting.put(request)
            return await request.answer

    def close(self) -> None:
        """Write the messages that wait, within a time limit."""
        self._waiting.put(None)
        self._thread.join(CLOSE_SECONDS)

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch: list[_Request] = []
            size = 0
            while is_open and (not batch or not self._waiting.empty()):
                request = self._waiting.get()
                if request is None:
                    is_open = False
                    break
                batch.append(request)
                size += request.size
                if len(batch) == BATCH_SIZE or size >= MAX_BATCH_BYTES:
                    break
            if batch:
                _tell(batch, self._outcomes(batch))

    def _outcomes(self, batch: Sequence[_Request]) -> list[_Outcome]:
        try:
            return self._accept(batch)
        except Exception as error:
            # Without this, nobody would answer them.
            return [error] * len(batch)

    def _accept(self, batch: Sequence[_Request]) -> list[_Outcome]:
        now = self._intake.now()
        outcomes: dict[int, _Outcome] = {}
        valid: dict[int, tuple[Message, Origin]] = {}
        for position, request in enumerate(batch):
            try:
                valid[position] = request.read(now), request.origin
            except Exception as error:
                outcomes[position] = error
        if valid:
            outcomes |= zip(valid, self._intake.answer_each(list(valid.values())), strict=True)
        return [outcomes[position] for position in range(len(batch))]


def _tell(batch: Sequence[_Request], outcomes: Sequence[_Outcome]) -> None:
    """Give the outcomes to the requests, waking each event loop once."""
    loops: defaultdict[asyncio.AbstractEventLoop, list[tuple[_Request, _Outcome]]] = defaultdict(list)
    for request, outcome in zip(batch, outcomes, strict=True):
        loops[request.answer.get_loop()].append((request, outcome))
    for loop, told in loops.items():
        try:
            loop.call_soon_threadsafe(_resolve, told)
        except RuntimeError:
            pass  # the loop is closed: nobody waits there any more


def _resolve(told: Sequence[tuple[_Request, _Outcome]]) -> None:
    for request, outcome in told:
        if request.answer.done():
            continue  # the request was cut off
        if isinstance(outcome, Exception):
            request.answer.set_exception(outcome)
        else:
            request.answer.set_result(outcome)
