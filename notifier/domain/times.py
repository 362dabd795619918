"""Dates and times of the contract: RFC 3339 with an offset on the wire, aware and in UTC in the code."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, PlainSerializer, WithJsonSchema
from pydantic_core import PydanticCustomError

from notifier.domain.local_days import check_day

_RFC3339 = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)\Z", re.ASCII)


def rule_error(code: str, problem: str, fix: str) -> PydanticCustomError:
    """The error by which a model refuses a value, in the form that `faults_of` reads."""
    # Pydantic formats the template with {}, so both texts travel in the context, unchanged.
    return PydanticCustomError("contract", "{problem}", {"code": code, "problem": problem, "fix": fix})


def _parse_time(value: object) -> datetime:
    if isinstance(value, str) and _RFC3339.match(value):
        try:
            value = datetime.fromisoformat(value.upper().replace(" ", "T"))
        except ValueError:
            value = None
    if not isinstance(value, datetime) or value.tzinfo is None:
        raise rule_error(
            "bad_time", "not a date and time", "Use RFC 3339 with an offset, such as 2026-11-22T09:30:00Z"
        )
    try:
        return value.astimezone(UTC)
    except (OverflowError, ValueError):
        raise rule_error("bad_time", "a date out of range", "Use a year between 1970 and 9998") from None


def _check_instant(value: datetime) -> datetime:
    try:
        check_day(value.date())
    except ValueError:
        raise rule_error("bad_time", "a date out of range", "Use a year between 1970 and 2999") from None
    return value


def write_time(value: datetime) -> str:
    return value.isoformat().replace("+00:00", "Z")


Time = Annotated[
    datetime,
    BeforeValidator(_parse_time),
    PlainSerializer(write_time, when_used="json"),
    WithJsonSchema({"type": "string", "format": "date-time"}),
]
#: A time in a form or a URL: one that every time zone can show.
Instant = Annotated[Time, AfterValidator(_check_instant)]
