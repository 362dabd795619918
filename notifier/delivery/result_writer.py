"""Writes results, whatever goes wrong: a lost result is an unknown outcome, and may cause a second copy.

A result that cannot be written is kept and tried again in other ways. First on a new connection that prepares
nothing; then one by one, so that a result that PostgreSQL refuses does not block the others; then without the
provider's words; then as the bare outcome. All of these writes are conditional, so repeating one whose answer was
lost changes nothing.
"""

from __future__ import annotations

import math
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace

from notifier.config.logs import log, log_failure
from notifier.delivery.late_answers import Delay, Steps
from notifier.domain.errors import ServiceUnavailable
from notifier.domain.statuses import Outcome, Reason
from notifier.runtime.backoff import pause_seconds
from notifier.store.database_errors import is_about_statement
from notifier.store.engine import unprepared
from notifier.store.records import DeliveryResult

#: Results are given up after this: by then the leases are over and the outcomes count as unknown. Seconds.
WRITE_DEADLINE_SECONDS = 300.0
#: Replaces a due time that cannot be written. Seconds.
_DUE_SECONDS = 60.0
_NO_WORDS = "what its provider said could not be recorded; see the log"

#: A method of the ledger that writes results, and may be repeated.
Write = Callable[[Sequence[DeliveryResult]], None]


class ResultWriter:
    """Holds the unwritten results of one task. No method raises."""

    def __init__(self) -> None:
        self._left: list[tuple[Write, DeliveryResult]] = []

    def write(self, results: Sequence[DeliveryResult], write: Write) -> None:
        """Write these results now if possible; otherwise keep them for `flush`."""
        if not results or _is_written(results, write):
            return
        self._left += [(write, result) for result in results]
        self._try_again()

    def flush(self) -> Steps[None]:
        """End when everything is written, or after `WRITE_DEADLINE_SECONDS`; pause between tries."""
        gives_up_at = time.monotonic() + WRITE_DEADLINE_SECONDS
        tries = 0
        while self._left and time.monotonic() < gives_up_at:
            yield Delay(pause_seconds(tries))
            tries += 1
            self._try_again()
        for _, result in self._left:
            log.error("deliver.result_lost", notification_id=str(result.id), outcome=result.outcome)
        self._left.clear()

    def _try_again(self) -> None:
        kept: defaultdict[Write, list[DeliveryResult]] = defaultdict(list)
        for write, result in self._left:
            kept[write].append(result)
        with unprepared():
            self._left = [
                (write, result)
                for write, results in kept.items()
                if not _is_written(results, write)
                for result in _one_by_one(results, write)
            ]


def _is_written(results: Sequence[DeliveryResult], write: Write) -> bool:
    try:
        write(results)
    except ServiceUnavailable:
        log.warning("deliver.results_wait", count=len(results))
    except Exception as error:
        log_failure("deliver.results_refused", error, count=len(results))
    else:
        return True
    return False


def _one_by_one(results: Sequence[DeliveryResult], write: Write) -> list[DeliveryResult]:
    """Write each by itself. Returns what is left, untried results first: two failures in a row mean that the
    database is away."""
    left: list[DeliveryResult] = []
    away = 0
    for place, result in enumerate(results):
        try:
            is_written = _in_some_form(result, write)
        except ServiceUnavailable as error:
            is_written = False
            # A statement that fails by itself, such as on a locked row, does not mean that the database is away.
            away = 0 if is_about_statement(error) else away + 1
        else:
            away = 0
        if not is_written:
            left.append(result)
        if away == 2:
            return [*results[place + 1 :], *left]
    return left


def _in_some_form(result: DeliveryResult, write: Write) -> bool:
    for form in (result, _without_words(result), _bare(result)):
        try:
            write([form])
        except ServiceUnavailable:
            raise
        except Exception as error:
            log_failure("deliver.result_refused", error, notification_id=str(result.id))
        else:
            return True
    return False


def _without_words(result: DeliveryResult) -> DeliveryResult:
    id_ = result.provider_message_id
    return replace(
        result,
        detail=_NO_WORDS,
        code=None,
        subject=None,
        template_version=None,
        suppression=None,
        provider_message_id=None if id_ is None else str(id_),
    )


def _bare(result: DeliveryResult) -> DeliveryResult:
    """A result of values that every row can hold."""
    due = result.due_in_seconds
    if due is not None and not (isinstance(due, int | float) and math.isfinite(due) and 0 <= due < 1e7):
        due = _DUE_SECONDS
    return replace(
        _without_words(result),
        reason=result.reason if result.reason in tuple(Reason) else None,
        outcome=result.outcome if result.outcome in (None, *Outcome) else Outcome.UNKNOWN,
        provider_message_id=None,
        id_space=None,
        due_in_seconds=due,
    )
