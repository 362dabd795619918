"""What SMS providers share: tables of codes, and reports on messages that they accepted."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from notifier.domain.errors import Rejected
from notifier.domain.statuses import Reason, Status
from notifier.providers.base import Report
from notifier.providers.outcomes import REFUSED, Verdict
from notifier.providers.redaction import sms_detail

#: The source of a row: the provider's page, or experience.
DOCUMENTED, OBSERVED = "documented", "observed"

#: A carrier's time that is further from ours than this is ignored.
_PLAUSIBLE = timedelta(days=4)


@dataclass(frozen=True, slots=True)
class SmsCodeRow:
    """The meaning of one code, or of one code together with certain words in the answer."""

    code: int
    meaning: str
    verdict: Verdict
    basis: str = DOCUMENTED
    #: Regular expression that must match in the answer's text; empty: any text.
    words: str = ""
    #: The page that documents it.
    url: str = ""


def find_row(table: Iterable[SmsCodeRow], code: int, text: str = "") -> SmsCodeRow | None:
    """The first row that fits."""
    return next((row for row in table if row.code == code and re.search(row.words, text, re.IGNORECASE)), None)


def report_of(
    id_: str,
    word: str,
    statuses: Mapping[str, Status],
    table: Iterable[SmsCodeRow],
    code: str | None,
    occurred_at: datetime | None,
) -> Report:
    """Make a report from the provider's word for a status and its error code (None: it gives none)."""
    status = statuses.get(word)
    shown = word if status else f"reports {sms_detail(word)[:40]!r}"
    if status is not Status.UNDELIVERED:
        return Report(id_, shown, status, occurred_at=occurred_at)
    if code is None:
        return Report(id_, shown, status, Reason.PROVIDER_REJECTED, occurred_at=occurred_at)
    row = find_row(table, int(code))
    verdict = row.verdict if row else REFUSED
    words = f"{shown}: {row.meaning} (code {code})" if row else f"{shown} (code {code})"
    return Report(id_, words, status, verdict.reason, verdict.suppress, occurred_at)


def carrier_time(text: str) -> datetime | None:
    """When the carrier finished with a message: YYMMDDhhmm, read as UTC. None if it cannot be right."""
    try:
        done_at = datetime.strptime(text, "%y%m%d%H%M").replace(tzinfo=UTC)
    except ValueError:
        return None
    return done_at if abs(done_at - datetime.now(UTC)) < _PLAUSIBLE else None


def validity(seconds_to_expiry: float | None, *, longest: int, shortest: int, problem: str) -> int:
    """Whole seconds for which the provider may keep trying, rounded down, so that it never sends an expired
    message.

    Raises:
        Rejected: with `problem`, if less than `shortest` is left.
    """
    if seconds_to_expiry is None:
        return longest
    left = math.floor(seconds_to_expiry)
    if left < shortest:
        raise Rejected(problem, reason=Reason.EXPIRED)
    return min(left, longest)
