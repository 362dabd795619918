"""Works on a batch in parts: if the database or our own code fails on the whole, smaller parts mostly succeed."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

from notifier.config.logs import log, log_failure
from notifier.domain.errors import RowsHeld, ServiceUnavailable, StatementCancelled
from notifier.domain.message import Message
from notifier.domain.producers import Origin
from notifier.intake.batch import IntakeAnswer

#: If other sessions hold this many rows of one producer, the rest of a joint batch waits for no more of them.
_MOST_HELD = 2

_Item = TypeVar("_Item")
_Done = TypeVar("_Done")


def in_parts(
    items: Sequence[_Item],
    work: Callable[[Sequence[_Item]], list[_Done]],
    give_up: Callable[[_Item], _Done],
) -> list[_Done]:
    """Work on all items at once. If that takes the database too long, work on halves. If our code fails, or
    another session holds the row of an item, work on each alone. `give_up` answers for an item on which our code
    fails even alone.

    Raises:
        ServiceUnavailable: not everything was recorded.
    """
    try:
        return work(items)
    except StatementCancelled:
        # The same batch would take as long again.
        if len(items) == 1:
            raise
        log.warning("intake.halved", count=len(items))
        size = len(items) // 2
        parts = [items[:size], items[size:]]
    except RowsHeld:
        if len(items) == 1:
            raise
        parts = [[item] for item in items]
    except ServiceUnavailable:
        raise
    except Exception as error:
        log_failure("intake.failed", error, count=len(items))
        parts = [[item] for item in items]
    if len(items) == 1:
        return [give_up(items[0])]
    done: list[_Done] = []
    held: RowsHeld | None = None
    for part in parts:
        try:
            done += in_parts(part, work, give_up)
        except RowsHeld as error:
            # Finish the other parts first, so that they can be delivered meanwhile.
            held = error
    if held is not None:
        raise held
    return done


class EachAnswered:
    """Work for `in_parts` on messages of several senders. If messages are not recorded, the error becomes the
    answer of those messages only. One instance serves one joint batch."""

    def __init__(self, answer: Callable[[Sequence[tuple[Message, Origin]]], list[IntakeAnswer]]) -> None:
        self._answer = answer
        self._held: dict[str | None, list[RowsHeld]] = {}

    def __call__(self, part: Sequence[tuple[Message, Origin]]) -> list[IntakeAnswer | ServiceUnavailable]:
        held = self._held.setdefault(part[0][0].producer, []) if len(part) == 1 else []
        if len(held) == _MOST_HELD:
            # The producer repeats these messages. The others do not wait for more of its rows.
            return [held[-1]]
        try:
            return [*self._answer(part)]
        except ServiceUnavailable as error:
            if isinstance(error, StatementCancelled | RowsHeld) and len(part) > 1:
                raise
            if isinstance(error, RowsHeld):
                held.append(error)
            return [error for _ in part]
