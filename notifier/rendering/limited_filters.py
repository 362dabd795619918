"""Jinja's filters within the limits of a rendering. What they produce is counted; if a small value could make a
huge result or take minutes, it is refused beforehand."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import wraps
from types import MappingProxyType
from typing import Any

from jinja2 import pass_environment, pass_eval_context
from jinja2.environment import Environment
from jinja2.exceptions import FilterArgumentError
from jinja2.filters import FILTERS
from jinja2.nodes import EvalContext
from markupsafe import escape

from notifier.rendering.render_limits import check_room, check_text, count_turns, count_value

_Filter = Callable[..., Any]

#: Jinja's harmless ones. Left out: `safe` and `tojson` (switch escaping off), `attr` (reaches into Python),
#: `format`, `center`, `indent`, `batch`, `slice` (a small number makes a huge text), `random` (a retry must render
#: the same mail), `pprint`, `urlize`, `xmlattr`, `filesizeformat` (no use in a notification).
# fmt: off
_AS_THEY_ARE = (
    "abs", "count", "d", "default", "first", "float", "last", "length",
)
#: These go through a list, or through whatever they get.
_OVER_LISTS = ("items", "map", "max", "min", "reject", "rejectattr", "select", "selectattr", "unique")
#: These make lists.
_OF_LISTS = ("dictsort", "groupby", "list", "reverse", "sort")
#: These make texts of whatever they get.
_OF_TEXTS = (
    "capitalize", "e", "escape", "forceescape", "join", "lower", "replace", "string", "striptags", "title", "trim",
    "truncate", "upper", "urlencode", "wordcount", "wordwrap",
)
# fmt: on
#: Maximum digits of a number: floats have fewer, and Python takes minutes for a power with millions of digits.
_MAX_DIGITS = 300
#: Maximum length of a text from which tags are removed, or that is wrapped: longer ones may take seconds.
_MAX_SLOW_TEXT = 250_000
#: Maximum number of characters that `trim` looks for.
_MAX_TRIMMED = 100


def _place(function: _Filter) -> int:
    """Position of the value in the arguments: Jinja passes its environment before it to some filters."""
    return 1 if hasattr(function, "jinja_pass_arg") else 0


def _counted(function: _Filter) -> _Filter:
    place = _place(function)

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        count_turns(args[place])
        return count_value(function(*args, **kwargs))

    return run


def _checked(function: _Filter) -> _Filter:
    """Like the function beside it, but the text's parts are checked first."""
    values = slice(_place(function), None)

    @wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        check_text(*args[values], *kwargs.values())
        return count_value(function(*args, **kwargs))

    return run


_TEXTS: Mapping[str, _Filter] = {name: _checked(FILTERS[name]) for name in _OF_TEXTS}


@pass_eval_context
def _join(context: EvalContext, value: Any, d: Any = "", attribute: Any = None) -> Any:
    values = list(value)
    check_text(values, d)
    check_room(len(values) * len(str(escape(d))))
    return _TEXTS["join"](context, values, d, attribute)


@pass_eval_context
def _replace(context: EvalContext, s: Any, old: Any, new: Any, count: int | None = None) -> Any:
    check_text(s, old, new)
    # In HTML, Jinja escapes some of the three arguments; this is the maximum count.
    times = max(str(text).count(str(old)) for text in (s, escape(s)))
    if count is not None and count >= 0:
        times = min(times, count)
    check_room(times * len(escape(new)))
    return _TEXTS["replace"](context, s, old, new, count)


def _trim(value: Any, chars: str | None = None) -> Any:
    if chars is not None and len(chars) > _MAX_TRIMMED:
        raise FilterArgumentError(f"trim looks for at most {_MAX_TRIMMED} characters: name fewer")
    return _TEXTS["trim"](value, chars)


def _striptags(value: Any) -> Any:
    _check_slow("striptags", value)
    return _TEXTS["striptags"](value)


@pass_environment
def _wordwrap(
    environment: Environment,
    s: Any,
    width: int = 79,
    break_long_words: bool = True,
    wrapstring: str | None = None,
    break_on_hyphens: bool = True,
) -> Any:
    _check_slow("wordwrap", s)
    check_room(len(str(s)) * len(wrapstring or ""))
    return _TEXTS["wordwrap"](environment, s, width, break_long_words, wrapstring, break_on_hyphens)


def _int(value: Any, default: int = 0, base: int = 10) -> Any:
    """Like Jinja's, but a text that is not a number of usual length counts as no number."""
    is_long = isinstance(value, str) and len(value) > _MAX_DIGITS
    return default if is_long else FILTERS["int"](value, default, base)


def _round(value: Any, precision: int = 0, method: Any = "common") -> Any:
    if abs(precision) > _MAX_DIGITS:
        raise FilterArgumentError(f"a number has at most {_MAX_DIGITS} digits: round to fewer")
    return FILTERS["round"](value, precision, method)


@pass_environment
def _sum(environment: Environment, iterable: Any, attribute: Any = None, start: Any = 0) -> Any:
    if not isinstance(start, int | float):
        raise FilterArgumentError("sum is for numbers; join texts, and loop over lists")
    count_turns(iterable)
    return FILTERS["sum"](environment, iterable, attribute, start)


def _check_slow(name: str, value: Any) -> None:
    check_text(value)
    if len(str(value)) > _MAX_SLOW_TEXT:
        raise FilterArgumentError(f"{name} takes at most {_MAX_SLOW_TEXT:,} characters: send less data")


BUILT_IN: Mapping[str, _Filter] = MappingProxyType(
    {name: FILTERS[name] for name in _AS_THEY_ARE}
    | {name: _counted(FILTERS[name]) for name in (*_OVER_LISTS, *_OF_LISTS)}
    | dict(_TEXTS)
    | {"int": _int, "join": _join, "replace": _replace, "round": _round, "striptags": _striptags}
    | {"sum": _sum, "trim": _trim, "wordwrap": _wordwrap}
)
