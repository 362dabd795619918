"""The filters that templates may use: Jinja's harmless ones by name, and those that write in a reader's locale.

A filter finds the locale in a context variable, because Jinja gives macros of an imported file no part of the
rendering's own context; `writing_in` sets it around every rendering.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date as Date  # noqa: N812 - `date` and `datetime` are the names of filters here
from datetime import datetime as DateTime  # noqa: N812
from decimal import Decimal
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from babel import Locale, dates, numbers
from jinja2.filters import FILTERS

from notifier.rendering.variables import Money, ValueRefused, read_date, read_datetime, read_money, read_number

#: Not among them, and why: `safe` and `tojson` (switch escaping off), `attr` (reaches into Python),
#: `format`, `center`, `indent`, `batch`, `slice` (a small number makes a huge text), `random` (a retry must
#: render the same mail), `pprint`, `urlize`, `xmlattr`, `filesizeformat` (no use in a notification).
# fmt: off
BUILT_IN = (
    "abs", "capitalize", "count", "d", "default", "dictsort", "e", "escape", "first", "float",
    "forceescape", "groupby", "int", "items", "join", "last", "length", "list", "lower", "map",
    "max", "min", "reject", "rejectattr", "replace", "reverse", "round", "select", "selectattr",
    "sort", "string", "striptags", "sum", "title", "trim", "truncate", "unique", "upper",
    "urlencode", "wordcount", "wordwrap",
)
# fmt: on
#: How a date may be written: CLDR's four lengths, and "day": weekday, day and month, abbreviated ("Thu, Mar 5").
STYLES = ("short", "medium", "long", "full", "day")

# No default: Jinja tries filters on constants when it compiles, and the LookupError makes it leave
# `{{ 5 | money("EUR") }}` to the rendering, where the reader is known.
_locale: ContextVar[Locale] = ContextVar("locale")


@contextmanager
def writing_in(locale: Locale) -> Iterator[None]:
    """Everything inside is written with the conventions of `locale`."""
    token = _locale.set(locale)
    try:
        yield
    finally:
        _locale.reset(token)


def money(value: Any, currency: str | None = None) -> str:
    """`{{ total | money }}` for a money object, `{{ price | money("EUR") }}` for a bare number: "€12.50"."""
    amount = read_money({"amount": value, "currency": currency} if currency else value)
    return _write_money(amount, _locale.get())


def number(value: Any) -> str:
    """`{{ points | number }}`: grouped, at most three decimals: "1,234.5"."""
    return _write_number(read_number(value), _locale.get())


def percent(value: Any) -> str:
    """`{{ 0.055 | percent }}`: "5.5%"."""
    return _write_percent(read_number(value), _locale.get())


def date(value: Any, style: str = "long") -> str:
    """`{{ day | date("full") }}`: "Thursday, March 5, 2026". Styles: see `STYLES`."""
    return _write_date(read_date(value), style, _locale.get())


def time(value: Any, timezone: str | None = None) -> str:
    """`{{ starts_at | time }}`: "2:30 PM" at the offset that the value itself gives, or in a named time zone."""
    return _write_time(_clock_time(value, timezone), _locale.get())


def datetime(value: Any, style: str = "long", timezone: str | None = None) -> str:
    """`{{ starts_at | datetime }}`: "March 5, 2026, 2:30 PM"; seconds and offset are left out."""
    return _write_datetime(_clock_time(value, timezone), style, _locale.get())


# Babel takes 5 to 15 µs for each; prices, days and opening hours repeat, so what was written is kept.


@lru_cache(maxsize=4096)
def _write_money(value: Money, locale: Locale) -> str:
    return numbers.format_currency(value.amount, value.currency, locale=locale)


@lru_cache(maxsize=4096)
def _write_number(value: Decimal, locale: Locale) -> str:
    return numbers.format_decimal(value, locale=locale)


@lru_cache(maxsize=1024)
def _write_percent(value: Decimal, locale: Locale) -> str:
    # Babel would round 0.055 to "6%": a rate of tax is written in full.
    return numbers.format_percent(value, locale=locale, decimal_quantization=False)


@lru_cache(maxsize=4096)
def _write_date(value: Date, style: str, locale: Locale) -> str:
    if style not in STYLES:
        raise ValueRefused(f"a date has no style {style!r}; use one of {', '.join(STYLES)}")
    if style == "day":
        return dates.format_skeleton("MMMEd", value, locale=locale)
    return dates.format_date(value, style, locale=locale)


@lru_cache(maxsize=4096)
def _write_time(value: DateTime, locale: Locale) -> str:
    return dates.format_time(value, "short", locale=locale)


@lru_cache(maxsize=4096)
def _write_datetime(value: DateTime, style: str, locale: Locale) -> str:
    day = _write_date(value.date(), style, locale)
    # CLDR's own long date and time carries seconds and a zone, which nobody wants to read in a message.
    frame = str(locale.datetime_formats["medium" if style == "day" else style]).replace("'", "")
    return frame.format(_write_time(value, locale), day)


def _clock_time(value: Any, timezone: str | None) -> DateTime:
    """What the clock on the wall shows, without an offset.

    Two aware times of one instant are equal whatever their offsets, so they must not be keys of a cache.
    """
    moment = read_datetime(value)
    return (moment.astimezone(_zone(timezone)) if timezone else moment).replace(tzinfo=None)


def _zone(name: str) -> ZoneInfo:
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError):
        raise ValueRefused(f"there is no time zone {name!r}; use a name as Europe/Paris") from None


#: Name → filter: everything that a template may use.
ALLOWED: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {name: FILTERS[name] for name in BUILT_IN}
    | {
        "money": money,
        "number": number,
        "percent": percent,
        "date": date,
        "datetime": datetime,
        "time": time,
    }
)
