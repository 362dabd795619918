"""The filters that templates may use: Jinja's harmless ones, and ours, which write in a reader's locale.

Filters take the locale from a context variable, because macros of an imported file do not see the rendering's own
context. `writing_in` sets it around every rendering.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import date as Date  # noqa: N812 - `date` and `datetime` are the names of filters here
from datetime import datetime as DateTime  # noqa: N812
from functools import lru_cache
from types import MappingProxyType
from typing import Any
from zoneinfo import ZoneInfo

from babel import Locale, dates, numbers

from notifier.domain.local_days import zone_of
from notifier.domain.template_variables import ValueRefused, read_date, read_datetime, read_money, read_number
from notifier.rendering.limited_filters import BUILT_IN

#: Styles of dates: CLDR's four lengths, and "day": weekday, day and month, abbreviated ("Thu, Mar 5").
STYLES = ("short", "medium", "long", "full", "day")

_locale: ContextVar[Locale] = ContextVar("locale")


@contextmanager
def writing_in(locale: Locale) -> Iterator[None]:
    token = _locale.set(locale)
    try:
        yield
    finally:
        _locale.reset(token)


def money(value: Any, currency: str | None = None) -> str:
    """`{{ total | money }}` for a money object, `{{ price | money("EUR") }}` for a bare number: "€12.50"."""
    amount = read_money({"amount": value, "currency": currency} if currency else value)
    return _format_currency(amount.amount, amount.currency, locale=_locale.get())


def number(value: Any) -> str:
    """`{{ points | number }}`: grouped, at most three decimals: "1,234.5"."""
    return _format_decimal(read_number(value), locale=_locale.get())


def percent(value: Any) -> str:
    """`{{ 0.055 | percent }}`: "5.5%"."""
    # Babel would round 0.055 to "6%", but a tax rate is written in full.
    return _format_percent(read_number(value), locale=_locale.get(), decimal_quantization=False)


def date(value: Any, style: str = "long") -> str:
    """`{{ day | date("full") }}`: "Thursday, March 5, 2026". Styles: see `STYLES`."""
    return _write_date(read_date(value), style, _locale.get())


def time(value: Any, timezone: str | None = None) -> str:
    """`{{ starts_at | time }}`: "2:30 PM" at the offset in the value itself, or in a named time zone."""
    return _format_time(_clock_time(value, timezone), "short", locale=_locale.get())


def datetime(value: Any, style: str = "long", timezone: str | None = None) -> str:
    """`{{ starts_at | datetime }}`: "March 5, 2026, 2:30 PM"; seconds and offset are left out."""
    return _write_datetime(_clock_time(value, timezone), style, _locale.get())


# Babel takes 5 to 15 µs for each; prices, days and opening hours repeat.
_format_currency = lru_cache(maxsize=4096)(numbers.format_currency)
_format_decimal = lru_cache(maxsize=4096)(numbers.format_decimal)
_format_percent = lru_cache(maxsize=1024)(numbers.format_percent)
_format_time = lru_cache(maxsize=4096)(dates.format_time)


@lru_cache(maxsize=4096)
def _write_date(value: Date, style: str, locale: Locale) -> str:
    if style not in STYLES:
        raise ValueRefused(f"a date has no style {style!r}; use one of {', '.join(STYLES)}")
    if style == "day":
        return dates.format_skeleton("MMMEd", value, locale=locale)
    return dates.format_date(value, style, locale=locale)


@lru_cache(maxsize=4096)
def _write_datetime(value: DateTime, style: str, locale: Locale) -> str:
    day = _write_date(value.date(), style, locale)
    # CLDR's own long date and time has seconds and a zone, which nobody wants to read in a message.
    frame = str(locale.datetime_formats["medium" if style == "day" else style]).replace("'", "")
    return frame.format(_format_time(value, "short", locale=locale), day)


def _clock_time(value: Any, timezone: str | None) -> DateTime:
    """Local time without an offset. Aware times of one instant are equal whatever their offsets, so they must not
    be keys of a cache."""
    moment = read_datetime(value)
    return (moment.astimezone(_zone(timezone)) if timezone else moment).replace(tzinfo=None)


def _zone(name: str) -> ZoneInfo:
    try:
        return zone_of(name)
    except ValueError:
        raise ValueRefused(f"there is no time zone {name!r}; use a name as Europe/Paris") from None


ALLOWED: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {**BUILT_IN} | {own.__name__: own for own in (money, number, percent, date, datetime, time)}
)
