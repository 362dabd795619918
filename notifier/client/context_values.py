"""Python values of a context as the JSON that templates read.

| Python | JSON | for a variable of type |
|---|---|---|
| `date` | "2026-03-05" | date |
| `datetime` with a time zone | "2026-03-05T14:30:00+01:00" | datetime |
| `Decimal` | its digits, "12.50" | number, `amount` of money |
| `UUID` | "01a2…", as `str` writes it | string |
| an `Enum` | its value, by these rules | that of its value |

Everything else stays what it is.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import date, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

from notifier.domain.errors import Fault
from notifier.domain.message import write_time

_PLAIN = frozenset({str, int, float, bool, type(None)})


def as_json(context: Mapping[str, Any]) -> tuple[dict[str, Any], list[Fault]]:
    """The context, and what has no form in JSON; such values are None."""
    faults: list[Fault] = []
    return _members(context, "context", faults), faults


def _members(values: Mapping[str, Any], path: str, faults: list[Fault]) -> dict[str, Any]:
    return {
        # By type, not `isinstance`: of the many values of a batch each is looked at.
        name: value if type(value) in _PLAIN else _written(value, f"{path}.{name}", faults)
        for name, value in values.items()
    }


def _entries(values: Iterable[Any], path: str, faults: list[Fault]) -> list[Any]:
    return [
        value if type(value) in _PLAIN else _written(value, f"{path}.{index}", faults)
        for index, value in enumerate(values)
    ]


def _written(value: Any, path: str, faults: list[Fault]) -> Any:
    if isinstance(value, dict):
        return _members(value, path, faults)
    if isinstance(value, list):
        return _entries(value, path, faults)
    if isinstance(value, Enum):
        return _written(value.value, path, faults)
    if isinstance(value, Mapping):
        return _members(value, path, faults)
    if isinstance(value, datetime):
        if value.utcoffset() is not None:
            return write_time(value)
        fix = "Give it one, as datetime.now(UTC)"
        faults.append(Fault(path, "bad_time", "a date and time without a time zone", fix))
        return None
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, Decimal):
        if value.is_finite():
            return format(value, "f")
        faults.append(Fault(path, "bad_number", "is not a finite number", "Send digits"))
        return None
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, str | int | float) or value is None:
        return value
    fix = "Send text, a number, true or false, a list or an object"
    faults.append(Fault(path, "wrong_type", f"is a {type(value).__name__}, which JSON has no form for", fix))
    return None
