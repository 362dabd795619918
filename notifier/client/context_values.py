"""Turns Python values in a context into the JSON that templates read.

| Python | JSON | for a variable of type |
|---|---|---|
| `date` | "2026-03-05" | date |
| `datetime` with a time zone | "2026-03-05T14:30:00+01:00" | datetime |
| `Decimal` | its digits, "12.50" | number, `amount` of money |
| `UUID` | "01a2…", as `str` writes it | string |
| an `Enum` | its value, by these rules | that of its value |

Other values are left as they are. Names must be text, or an `Enum` of text: `json.dumps` would turn other keys
into "1", "null" or "true", which templates do not ask for.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from notifier.domain.errors import Fault
from notifier.domain.times import write_time

#: Maximum nesting of lists and objects in a context. The service reads about 200 levels, and a batch uses a few of
#: them.
MAX_DEPTH = 100
#: Maximum digits of a `Decimal`, before and after its point: a large exponent stands for any number of digits.
MAX_DIGITS = 100

_PLAIN = frozenset({str, int, float, bool, type(None)})
_NAMES = frozenset({str})


class _TooDeep(Exception):
    """Ends the whole walk: an object that contains itself twice would otherwise be walked through an endless
    number of times."""


def as_json(context: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """Return the context as JSON values, and a fault for each value that has no JSON form; that value becomes
    None."""
    faults: list[Fault] = []
    try:
        return _members(context, "context", MAX_DEPTH, faults), faults
    except _TooDeep as error:
        member = ".".join(str(error).split(".")[:2])
        problem = f"has more than {MAX_DEPTH} levels, or contains itself"
        return {}, [Fault(member, "too_deep", problem, "Nest lists and objects less deeply")]


def _members(values: Mapping[str, Any], path: str, levels: int, faults: list[Fault]) -> dict[str, Any]:
    _check_depth(path, levels)
    named = values.items() if _NAMES.issuperset(map(type, values)) else _named(values, path, faults)
    return {
        # Compares the type instead of calling `isinstance`, because this runs for every value of a batch.
        name: value if type(value) in _PLAIN else _written(value, f"{path}.{name}", levels, faults)
        for name, value in named
    }


def _entries(values: Iterable[Any], path: str, levels: int, faults: list[Fault]) -> list[Any]:
    _check_depth(path, levels)
    return [
        value if type(value) in _PLAIN else _written(value, f"{path}.{index}", levels, faults)
        for index, value in enumerate(values)
    ]


def _check_depth(path: str, levels: int) -> None:
    if levels <= 0:
        raise _TooDeep(path)


def _named(values: Mapping[Any, Any], path: str, faults: list[Fault]) -> Iterator[tuple[str, Any]]:
    """The members whose names are text."""
    for name, value in values.items():
        text = name.value if isinstance(name, Enum) else name
        if isinstance(text, str):
            yield text, value
            continue
        problem = f"has a name of type {type(name).__name__}, which is not text"
        faults.append(Fault(path, "wrong_type", problem, "Use text for names, as str(key)"))


def _written(value: Any, path: str, levels: int, faults: list[Fault]) -> Any:
    if isinstance(value, dict):
        return _members(value, path, levels - 1, faults)
    if isinstance(value, list):
        return _entries(value, path, levels - 1, faults)
    if isinstance(value, Enum):
        return _written(value.value, path, levels, faults)
    if isinstance(value, Mapping):
        return _members(value, path, levels - 1, faults)
    if isinstance(value, datetime):
        if value.utcoffset() is not None:
            return write_time(value)
        fix = "Give it one, as datetime.now(UTC)"
        faults.append(Fault(path, "bad_time", "a date and time without a time zone", fix))
        return None
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        return _digits(value, path, faults)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, str | int | float) or value is None:
        return value
    fix = "Send text, a number, true or false, a list or an object"
    faults.append(Fault(path, "wrong_type", f"is of type {type(value).__name__}, which has no form in JSON", fix))
    return None


def _digits(value: Decimal, path: str, faults: list[Fault]) -> str | None:
    if not value.is_finite():
        faults.append(Fault(path, "bad_number", "is not a finite number", "Send digits"))
        return None
    exponent = value.as_tuple().exponent
    if value.adjusted() >= MAX_DIGITS or (isinstance(exponent, int) and exponent < -MAX_DIGITS):
        problem = f"has more than {MAX_DIGITS} digits before or after its point"
        faults.append(Fault(path, "bad_number", problem, "Round it, or send text"))
        return None
    return format(value, "f")
