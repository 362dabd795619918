"""Messages of requests that are under way at once are accepted together: they gather while others are written.

Nothing waits for more to come: the first begins at once, and what arrives meanwhile is the next batch. A message
that is refused, or that the database takes too long for, is answered by itself. A key that another session holds
keeps a batch for half a second. After that each message is accepted by itself, and a producer with several such
keys is told to repeat the rest (`Intake.answer_each`).

Crash points: those of `Intake`, and none of its own. A request is answered after the commit of its batch. A
process that dies before that has answered none of it. The producers repeat their messages; what was in is a
duplicate.
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

#: A batch takes no further message once it comes to this size: a large one holds up few others. Bytes.
MAX_BATCH_BYTES = 256 * 1024
#: At the end of the process, time to write what waits. Seconds.
CLOSE_SECONDS = 3.0

#: Reads a message at that time, by the database's clock. What it raises is raised for its request alone.
Read = Callable[[datetime], Message]


@dataclass(frozen=True, slots=True, eq=False)
class _Request:
    read: Read
    size: int
    origin: Origin
    answer: asyncio.Future[IntakeAnswer]


_Outcome = IntakeAnswer | Exception


class JointAcceptance:
    """One for each process, with a thread and a connection to the database of its own."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        # A key that sends much leaves the others half of each batch.
        self._shares = Shares(BATCH_SIZE // 2)
        self._waiting: SimpleQueue[_Request | None] = SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="acceptance", daemon=True)
        self._thread.start()

    async def accept(self, read: Read, size: int, *, key_id: str, origin: Origin) -> IntakeAnswer:
        """Accept one message of `size` bytes for a key.

        Raises:
            ServiceUnavailable: it was not recorded, or it is not known whether it was.
        """
        async with self._shares.turn(key_id):
            request = _Request(read, size, origin, asyncio.get_running_loop().create_future())
            self._waiting.put(request)
            return await request.answer

    def close(self) -> None:
        """Write what waits, for a limited time."""
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
            # Nobody else would answer them.
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
    """Wake each event loop once."""
    loops: defaultdict[asyncio.AbstractEventLoop, list[tuple[_Request, _Outcome]]] = defaultdict(list)
    for request, outcome in zip(batch, outcomes, strict=True):
        loops[request.answer.get_loop()].append((request, outcome))
    for loop, told in loops.items():
        try:
            loop.call_soon_threadsafe(_resolve, told)
        except RuntimeError:
            pass  # it is closed: nobody waits there any more


def _resolve(told: Sequence[tuple[_Request, _Outcome]]) -> None:
    for request, outcome in told:
        if request.answer.done():
            continue  # its request was cut off
        if isinstance(outcome, Exception):
            request.answer.set_exception(outcome)
        else:
            request.answer.set_result(outcome)
