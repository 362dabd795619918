"""Turns the end of an HTTP request into one of the `SendError`s: by deadline, status, and whether it was sent.

If no byte of the request was sent, it was certainly not accepted. If it was sent and has no complete answer, or a
5xx, it may have been accepted.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from types import MappingProxyType

from notifier.domain.errors import SendError
from notifier.providers.http_session import HttpCall
from notifier.providers.outcomes import ACCOUNT, REFUSED, THROTTLED, UNAVAILABLE, UNKNOWN, Verdict
from notifier.providers.redaction import sms_detail

#: Longer waits are cut to this, so that one odd answer does not hold a message for days.
MAX_RETRY_AFTER_SECONDS = 3600.0

_BY_STATUS: Mapping[int, Verdict] = MappingProxyType(
    {
        401: ACCOUNT,
        403: ACCOUNT,
        404: ACCOUNT,
        405: ACCOUNT,
        407: ACCOUNT,
        # RFC 9110 section 15.5.9: the server did not receive a complete request.
        408: UNAVAILABLE,
        # RFC 6585 section 4.
        429: THROTTLED,
    }
)


@contextlib.asynccontextmanager
async def in_time(call: HttpCall) -> AsyncIterator[None]:
    """End the block at the call's deadline, and turn network errors into one of the `SendError`s."""
    try:
        async with asyncio.timeout(call.deadline_seconds):
            yield
    except OSError as error:
        raise _lost(call, error) from error


def _lost(call: HttpCall, error: Exception) -> SendError:
    words = "no answer in time" if isinstance(error, TimeoutError) else sms_detail(str(error))
    detail = f"{type(error).__name__}: {words}"
    if call.was_written:
        return UNKNOWN.error(detail, code=str(call.status or ""))
    return UNAVAILABLE.error(detail)


def judge_status(status: int) -> Verdict:
    """What an answer other than 2xx means if it has none of the provider's codes: it comes from a proxy or a wrong
    address.

    A 5xx is unknown. A 3xx does not come from an API, so the address is wrong. Any other 4xx is a refusal.
    """
    if status >= 500:
        return UNKNOWN
    return _BY_STATUS.get(status, ACCOUNT if status < 400 else REFUSED)


def retry_after(headers: Mapping[str, str]) -> float | None:
    """The wait in `Retry-After` (RFC 9110 section 10.2.3), given in seconds or as a date. None if it is absent or
    makes no sense. A date is compared with the answer's own `Date`, because this machine's clock may be wrong."""
    value = headers.get("Retry-After", "").strip()
    if value.isdecimal():
        return min(float(value), MAX_RETRY_AFTER_SECONDS)
    try:
        answered = headers.get("Date")
        now = parsedate_to_datetime(answered) if answered else datetime.now(UTC)
        seconds = (parsedate_to_datetime(value) - now).total_seconds()
    except (TypeError, ValueError):
        return None
    return min(max(seconds, 0.0), MAX_RETRY_AFTER_SECONDS)


def basic_authorization(user: str, password: str) -> dict[str, str]:
    """The Authorization header of RFC 7617."""
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}
