"""Template variables: the types that a manifest declares, and how a context is checked against them.

JSON has no types for dates, times, money and links. The functions that read them are used when a message is
checked, and again when a filter writes the value.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import StrEnum
from functools import cached_property, lru_cache
from typing import Annotated, Any, NamedTuple, Self, TypeVar

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError

from notifier.domain.errors import Fault
from notifier.domain.message import MAX_NUMBER


class Type(StrEnum):
    """The type of a variable. All but the first six are JSON with a rule."""

    STRING = "string"  #: text
    INTEGER = "integer"  #: a JSON number without a fraction
    NUMBER = "number"  #: a JSON number, or digits in a string ("12.50")
    BOOLEAN = "boolean"  #: true or false
    LIST = "list"  #: `of` describes its entries
    OBJECT = "object"  #: `fields` describes its members
    DATE = "date"  #: "2026-03-05"
    DATETIME = "datetime"  #: RFC 3339 with an offset: "2026-03-05T14:30:00+01:00"
    MONEY = "money"  #: {"amount": "12.50", "currency": "EUR"}
    URL = "url"  #: an http or https link
    HTML = "html"  #: markup, written into the HTML part as it is


#: Type → the fix in the text of a fault.
_SEND: Mapping[Type, str] = {
    Type.STRING: "Send a string",
    Type.INTEGER: "Send a whole number",
    Type.NUMBER: 'Send a number, or its digits as a string ("12.50")',
    Type.BOOLEAN: "Send true or false",
    Type.LIST: "Send a list",
    Type.OBJECT: "Send an object",
    Type.DATE: "Send a date as 2026-03-05",
    Type.DATETIME: "Send RFC 3339 with an offset, such as 2026-03-05T14:30:00+01:00",
    Type.MONEY: 'Send an object as {"amount": "12.50", "currency": "EUR"}',
    Type.URL: "Send a link that begins with https:// or http://",
    Type.HTML: "Send a string of HTML",
}
_NUMBERS = (Type.INTEGER, Type.NUMBER)


def as_json(value: Any) -> Any:
    """A TOML value as JSON: dates and times become text."""
    if isinstance(value, datetime | date):
        return value.isoformat()
    if isinstance(value, dict):
        return {key: as_json(item) for key, item in value.items()}
    if isinstance(value, list):
        return [as_json(item) for item in value]
    return value


_MemberName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_]*$")]


class Shape(BaseModel):
    """The type of a variable, of a member of an object, or of the entries of a list."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Type
    #: For developers of producers.
    description: str = ""
    #: If False, a value that is missing or null is replaced by the default.
    required: bool = True
    #: Replaces a missing value. Unset: None, which `{% if %}` takes for false.
    default: Annotated[Any, BeforeValidator(as_json)] = None
    #: Type of the entries of a list.
    of: Shape | None = None
    #: Types of the members of an object; other members are tolerated.
    fields: Mapping[_MemberName, Shape] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _check_together(self) -> Self:
        if self.of and self.type is not Type.LIST:
            raise PydanticCustomError("of", "`of` is for lists; remove it or set type to list")
        if self.fields and self.type is not Type.OBJECT:
            raise PydanticCustomError("fields", "`fields` is for objects; remove it or set type to object")
        if any(inner.type is Type.HTML for inner in (*self.fields.values(), *([self.of] if self.of else ()))):
            raise PydanticCustomError("html", "html is for a variable of its own, not inside a list or an object")
        if self.default is not None and self.required:
            raise PydanticCustomError("default", "a default is for what is not required; add required = false")
        if self.default is not None and not self.fits(self.default):
            raise PydanticCustomError("default", "the default is not of the declared type")
        return self

    @cached_property
    def fits(self) -> Callable[[Any], bool]:
        """Whether `faults_of` finds nothing wrong with a value. It builds no paths and looks up only once what
        this shape requires, so it takes a fraction of the time."""
        if self.of is not None:
            entry = self.of.fits
            return lambda value: isinstance(value, list) and all(map(entry, value))
        return _members_fit(self.fields) if self.fields else _FIT[self.type]

    @cached_property
    def is_whole(self) -> bool:
        """Whether a value of this shape never needs defaults inside."""
        members_are = all(member.required and member.is_whole for member in self.fields.values())
        return members_are and (self.of is None or self.of.is_whole)


class Variable(Shape):
    #: For codes and login links: the value is masked wherever people and logs can see it.
    secret: bool = False


def check_values(variables: Mapping[str, Shape], values: Mapping[str, Any], path: str) -> Iterator[Fault]:
    """Faults of values that are missing or have the wrong type. Undeclared values are tolerated."""
    for name, shape in variables.items():
        value = values.get(name)
        if value is None:
            if shape.required:
                yield Fault(f"{path}.{name}", "missing_variable", "is missing", _SEND[shape.type])
        elif not shape.fits(value):
            yield from faults_of(shape, value, f"{path}.{name}")


def _members_fit(fields: Mapping[str, Shape]) -> Callable[[Any], bool]:
    members = [(name, member.required, member.fits) for name, member in fields.items()]

    def fit(value: Any) -> bool:
        if not isinstance(value, dict):
            return False
        for name, required, fits in members:
            inner = value.get(name)
            if required if inner is None else not fits(inner):
                return False
        return True

    return fit


def _is_out_of_range(shape: Shape, value: Any) -> bool:
    return shape.type in _NUMBERS and isinstance(value, int | float) and not abs(value) < MAX_NUMBER


def faults_of(shape: Shape, value: Any, path: str) -> Iterator[Fault]:
    if _is_out_of_range(shape, value):
        yield Fault(path, "bad_number", "is a number out of range", "Send it as a string")
    elif not _FIT[shape.type](value):
        yield Fault(path, "wrong_type", f"is not of type {shape.type}", _SEND[shape.type])
    elif shape.of is not None:
        for index, entry in enumerate(value):
            yield from faults_of(shape.of, entry, f"{path}.{index}")
    elif shape.fields:
        yield from check_values(shape.fields, value, path)


def completed(variables: Mapping[str, Shape], values: Mapping[str, Any]) -> dict[str, Any]:
    """The values, with defaults for missing optional ones, so that templates can test them."""
    full = dict(values)
    for name, shape in variables.items():
        value = full.get(name)
        if value is None:
            if not shape.required:
                full[name] = shape.default
        elif not shape.is_whole:
            full[name] = _completed_value(shape, value)
    return full


def _completed_value(shape: Shape, value: Any) -> Any:
    if shape.fields and isinstance(value, dict):
        return completed(shape.fields, value)
    if shape.of is not None and (shape.of.fields or shape.of.of) and isinstance(value, list):
        return [_completed_value(shape.of, entry) for entry in value]
    return value


_DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d(:\d\d(\.\d+)?)?([Zz]|[+-]\d\d:\d\d)", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}")
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,9})?")
_Day = TypeVar("_Day", bound=date)
_URL = re.compile(r"https?://[^\s\"'<>\\\x00-\x1f\x7f]+", re.IGNORECASE)


class ValueRefused(ValueError):
    """A value of the wrong type. The text never repeats the value, because it may be personal."""


class Money(NamedTuple):
    """An exact amount of one currency."""

    amount: Decimal
    #: ISO 4217: "EUR", "CNY".
    currency: str


def read_number(value: object) -> Decimal:
    """A JSON number below `MAX_NUMBER`, or a string of digits ("12.50"), which is exact."""
    if isinstance(value, str):
        return _read_digits(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueRefused("not a number")
    # By way of the text, because otherwise 0.1 would become 0.1000000000000000055511151231257827.
    number = Decimal(repr(value)) if abs(value) < MAX_NUMBER else Decimal("nan")
    if not number.is_finite():
        raise ValueRefused("a number out of range")
    return number


@lru_cache(maxsize=4096)
def _read_digits(text: str) -> Decimal:
    if not _NUMBER.fullmatch(text):
        raise ValueRefused("not a decimal number, such as 12.50")
    return Decimal(text)


def read_money(value: object) -> Money:
    """Read {"amount": "12.50", "currency": "EUR"}; the amount may also be a number."""
    if not isinstance(value, dict) or "amount" not in value or "currency" not in value:
        raise ValueRefused('not an amount of money, such as {"amount": "12.50", "currency": "EUR"}')
    currency = value["currency"]
    if not isinstance(currency, str) or not _CURRENCY.fullmatch(currency):
        raise ValueRefused("not an ISO 4217 currency code, such as EUR")
    return Money(read_number(value["amount"]), currency)


def read_date(value: object) -> date:
    """Read "2026-03-05", or the day of a date and time."""
    try:
        if isinstance(value, str) and _DATE.fullmatch(value):
            return _in_range(date.fromisoformat(value))
        return read_datetime(value).date()
    except ValueError:
        raise ValueRefused("not a date, such as 2026-03-05") from None


def read_datetime(value: object) -> datetime:
    """Read RFC 3339 with an offset: "2026-03-05T14:30:00+01:00"."""
    try:
        if isinstance(value, str) and _TIME.fullmatch(value):
            return _in_range(datetime.fromisoformat(value.upper().replace(" ", "T")))
    except ValueError:
        pass
    raise ValueRefused("not a date and time with an offset, such as 2026-03-05T14:30:00+01:00")


def _in_range(day: _Day) -> _Day:
    """Refuse Python's first and last year: in another time zone, the date may be in a year that Python lacks."""
    if not 1 < day.year < 9999:
        raise ValueRefused("a date out of range")
    return day


def read_url(value: object) -> str:
    """Read an http or https link; javascript: and data: are refused."""
    if not isinstance(value, str) or not _URL.fullmatch(value):
        raise ValueRefused("not a link, such as https://shop.example.com/orders/1")
    return value


_READERS: Mapping[Type, Callable[[object], object]] = {
    Type.NUMBER: read_number,
    Type.DATE: read_date,
    Type.DATETIME: read_datetime,
    Type.MONEY: read_money,
    Type.URL: read_url,
}


def _fits_reader(read: Callable[[object], object]) -> Callable[[Any], bool]:
    def fits(value: Any) -> bool:
        try:
            read(value)
        except ValueError:
            return False
        return True

    return fits


def _fits_number(value: Any) -> bool:
    # Not `read_number`: only the size of a number matters here.
    if isinstance(value, str):
        return _NUMBER.fullmatch(value) is not None
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < MAX_NUMBER


#: Type → function that says whether a value is of this type.
_FIT: Mapping[Type, Callable[[Any], bool]] = {
    **{kind: _fits_reader(read) for kind, read in _READERS.items()},
    Type.NUMBER: _fits_number,
    Type.STRING: lambda value: isinstance(value, str),
    Type.HTML: lambda value: isinstance(value, str),
    Type.INTEGER: lambda value: isinstance(value, int) and not isinstance(value, bool) and abs(value) < MAX_NUMBER,
    Type.BOOLEAN: lambda value: isinstance(value, bool),
    Type.LIST: lambda value: isinstance(value, list),
    Type.OBJECT: lambda value: isinstance(value, dict),
}
