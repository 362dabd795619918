"""Turns what people type into contexts, maps and times. Mistakes are usage errors."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterable
from contextlib import nullcontext
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar
from uuid import UUID

import typer

from notifier.domain.id_range import IdRange, read_id_range
from notifier.domain.local_days import check_day

Choice = TypeVar("Choice", bound=StrEnum)

_SPAN = re.compile(r"([0-9]{1,6})([smhdw])")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


@dataclass(frozen=True, slots=True)
class GivenContext:
    """A context that was given on the command line."""

    values: dict[str, Any] = field(default_factory=dict)
    #: Names of variables given as plain text; the other values already have their types.
    texts: frozenset[str] = frozenset()


def read_context(given: Iterable[str], option: str = "--context") -> GivenContext:
    """Read `{"a": 1}`, `@file.json`, `@-` (standard input), `name=text` or `name:=JSON`. Later values replace
    earlier ones."""
    context: dict[str, Any] = {}
    texts: set[str] = set()
    for text in given:
        found, is_text = _values(text, option)
        context |= found
        texts = texts | found.keys() if is_text else texts - found.keys()
    return GivenContext(context, frozenset(texts))


def read_metadata(given: Iterable[str]) -> dict[str, str]:
    """Read any number of `name=text`."""
    pairs = (text.partition("=") for text in given)
    metadata = {}
    for name, equals, value in pairs:
        if not name or not equals:
            raise typer.BadParameter(f"write name=value, not {name!r}", param_hint="--metadata")
        metadata[name] = value
    return metadata


def split_commas(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def read_choices(kind: type[Choice], text: str, option: str) -> list[Choice]:
    """Read words of a closed list, each at most once, such as `sms,email`."""
    try:
        return list(dict.fromkeys(map(kind, split_commas(text))))
    except ValueError:
        raise typer.BadParameter(f"takes {', '.join(kind)}, separated by commas", param_hint=option) from None


def read_id(text: str) -> UUID:
    try:
        return UUID(text.strip())
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not an ID; copy all 36 characters of it") from None


def read_id_start(text: str) -> IdRange:
    """The ids that begin with this text; with all 36 characters, a single id."""
    found = read_id_range(text)
    if found is None:
        raise typer.BadParameter(
            f"{text!r} is not an ID; copy all 36 characters of it, or as many as `notifier search` shows"
        )
    return found


def read_past(text: str) -> datetime:
    """Read a time in the past: `2h`, `3d` (ago), `2026-11-22` (midnight, UTC), or RFC 3339."""
    return read_moment(text, now=datetime.now(UTC), direction=-1)


def read_future(text: str) -> datetime:
    """Read a time in the future: `2h`, `3d` (from now), `2026-11-22` (midnight, UTC), or RFC 3339."""
    return read_moment(text, now=datetime.now(UTC), direction=+1)


def read_moment_exactly(text: str) -> datetime:
    """Read `2026-11-22` (midnight, UTC) or RFC 3339: always the same moment, whenever it is read."""
    if _SPAN.fullmatch(text):
        raise typer.BadParameter(f"{text!r} means a different time in each run; write 2026-11-22T09:30:00Z")
    return read_moment(text, now=datetime.now(UTC), direction=+1)


def read_day(text: str) -> date | timedelta:
    """Read `2026-11-22`, or `7d`, `2w`: this long before today in the service's time zone."""
    span = _SPAN.fullmatch(text.strip())
    if span and span[2] in "dw":
        return timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        return check_day(date.fromisoformat(text.strip() if _DAY.fullmatch(text.strip()) else ""))
    except ValueError:
        raise typer.BadParameter(f"{text!r} is not a day; write 2026-11-22, 7d or 2w") from None


def read_moment(text: str, *, now: datetime, direction: int) -> datetime:
    """The moment that `text` means. A span is counted from `now`; backwards if `direction` is negative."""
    span = _SPAN.fullmatch(text)
    try:
        if span:
            return now + direction * timedelta(**{_UNITS[span[2]]: int(span[1])})
        found = datetime.fromisoformat(text.strip().upper().replace(" ", "T"))
    except (ValueError, OverflowError):
        raise typer.BadParameter(
            f"{text!r} is not a time; write 2h, 3d, 2026-11-22 or 2026-11-22T09:30:00Z"
        ) from None
    if _DAY.fullmatch(text.strip()):
        return found.replace(tzinfo=UTC)
    if found.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no offset; add one: {text.strip()}Z for UTC")
    return found.astimezone(UTC)


def _values(text: str, option: str) -> tuple[dict[str, Any], bool]:
    """The values in one option, and whether they are plain text."""
    if text.startswith("@"):
        return _object(_read_file(text[1:], option), option, f"{text[1:]} does not hold"), False
    if text.lstrip().startswith("{"):
        return _object(text, option, "this is not"), False
    return _pair(text, option)


def _read_file(name: str, option: str) -> str:
    # Imported here because most commands do not need the contract.
    from notifier.domain.message import MAX_BODY_BYTES

    try:
        with nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb") as file:
            content = file.read(MAX_BODY_BYTES + 1)
        if len(content) > MAX_BODY_BYTES:
            raise typer.BadParameter(
                f"{name} is larger than {MAX_BODY_BYTES} bytes, the limit of a message; give a smaller one",
                param_hint=option,
            )
        return content.decode("utf-8")
    except OSError as error:
        raise typer.BadParameter(f"{name} cannot be read: {error.strerror}", param_hint=option) from None
    except UnicodeDecodeError:
        raise typer.BadParameter(f"{name} is not UTF-8", param_hint=option) from None


def _object(text: str, option: str, what: str) -> dict[str, Any]:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise typer.BadParameter(f"{what} JSON: {error}", param_hint=option) from None
    if not isinstance(value, dict):
        raise typer.BadParameter(f'{what} a JSON object, such as {{"name": "Ann"}}', param_hint=option)
    return value


def _pair(text: str, option: str) -> tuple[dict[str, Any], bool]:
    name, equals, value = text.partition("=")
    if not equals or not name.rstrip(":"):
        fix = 'write {"name": "Ann"}, @file.json, name=Ann, or name:=JSON'
        raise typer.BadParameter(f"{text!r} is not a context: {fix}", param_hint=option)
    if not name.endswith(":"):
        return {name: value}, True
    try:
        return {name[:-1]: json.loads(value)}, False
    except (ValueError, RecursionError):
        raise typer.BadParameter(
            f"after {name}= comes JSON; for text write {name[:-1]}=…", param_hint=option
        ) from None
