"""How the JSON of a context says what JSON has no type for: dates, times, money, links.

Used twice: when a message is checked, and when a filter writes the value out.
"""

from __future__ import annotations

import re
from datetime import date, datetime
from decimal import Decimal
from functools import lru_cache
from typing import NamedTuple, TypeVar

from notifier.domain.message import MAX_NUMBER

_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}")
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,9})?")
_Day = TypeVar("_Day", bound=date)
_URL = re.compile(r"https?://[^\s\"'<>\\\x00-\x1f\x7f]+", re.IGNORECASE)


class ValueRefused(ValueError):
    """A value is not what it should be. The text never repeats it: it may be personal."""


class Money(NamedTuple):
    """An amount of one currency, exact."""

    amount: Decimal
    #: ISO 4217: "EUR", "CNY".
    currency: str


def read_number(value: object) -> Decimal:
    """A JSON number below `MAX_NUMBER`, or a string of digits ("12.50"), which keeps what floats lose."""
    if isinstance(value, str):
        return _read_digits(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueRefused("not a number")
    # Through the text, or 0.1 would become 0.1000000000000000055511151231257827.
    number = Decimal(repr(value)) if abs(value) < MAX_NUMBER else Decimal("nan")
    if not number.is_finite():
        raise ValueRefused("a number out of range")
    return number


@lru_cache(maxsize=4096)
def _read_digits(text: str) -> Decimal:
    if not _NUMBER.fullmatch(text):
        raise ValueRefused("not a number of digits, as 12.50")
    return Decimal(text)


def read_money(value: object) -> Money:
    """{"amount": "12.50", "currency": "EUR"}; the amount may be a number, too."""
    if not isinstance(value, dict) or "amount" not in value or "currency" not in value:
        raise ValueRefused('not an amount of money, as {"amount": "12.50", "currency": "EUR"}')
    currency = value["currency"]
    if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
        raise ValueRefused("not a currency code of ISO 4217, as EUR")
    return Money(read_number(value["amount"]), currency)


def read_date(value: object) -> date:
    """Read "2026-03-05", or the day of a date and time."""
    try:
        if isinstance(value, str) and _DATE.fullmatch(value):
            return _in_range(date.fromisoformat(value))
        return read_datetime(value).date()
    except ValueError:
        raise ValueRefused("not a date, as 2026-03-05") from None


def read_datetime(value: object) -> datetime:
    """RFC 3339 with an offset: "2026-03-05T14:30:00+01:00"."""
    try:
        if isinstance(value, str) and _TIME.fullmatch(value):
            return _in_range(datetime.fromisoformat(value.upper().replace(" ", "T")))
    except ValueError:
        pass
    raise ValueRefused("not a date and time with an offset, as 2026-03-05T14:30:00+01:00")


def _in_range(day: _Day) -> _Day:
    """In the first and the last year of Python another time zone may be in a year that it does not have."""
    if not 1 < day.year < 9999:
        raise ValueRefused("a date out of range")
    return day


def read_url(value: object) -> str:
    """An http or https link; javascript: and data: have no place in a mail."""
    if not isinstance(value, str) or not _URL.fullmatch(value):
        raise ValueRefused("not a link, as https://shop.example.com/orders/1")
    return value
