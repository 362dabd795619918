"""The result of one check of `notifier doctor`, and how a check that raises becomes a failed one.

Every check takes what it needs and yields results. `safely` keeps a check that raises from stopping the others.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

from notifier.cli.output import first_line
from notifier.domain.errors import NotifierError, ServiceUnavailable


@dataclass(frozen=True, slots=True)
class Check:
    """The result of one check. If it is ok and has a fix, it is a warning."""

    name: str
    ok: bool
    detail: str
    fix: str = ""


def safely(name: str, look: Callable[[], Iterable[Check]]) -> Iterator[Check]:
    """The results of `look`; if it raises, one failed result with this name."""
    try:
        yield from look()
    except ServiceUnavailable as error:
        yield Check(name, False, str(error), _fix_of(error, name))
    except NotifierError as error:
        yield Check(name, False, *split_error(str(error)))
    except Exception as error:
        fix = "run it with NOTIFIER_LOG_LEVEL=debug, and report it"
        yield Check(name, False, f"looking failed: {type(error).__name__}: {first_line(error)}", fix)


def _fix_of(error: ServiceUnavailable, name: str) -> str:
    from notifier.store.database_errors import NO_RIGHT, sqlstate_of

    if sqlstate_of(error) == NO_RIGHT:
        return "as the owner of the tables, run the GRANT that the check `rights` names"
    if name in ("database", "broker"):
        return f"check NOTIFIER_{name.upper()}_URL, and that the {name} runs"
    return "check NOTIFIER_DATABASE_URL and NOTIFIER_BROKER_URL, and that both run"


def split_error(text: str) -> tuple[str, str]:
    """Split an error's text: ours say "what: fix" or "what; fix", so the last part is what to do."""
    for separator in ("; ", ": "):
        what, found, fix = text.rpartition(separator)
        if found:
            return what, fix
    return text, ""
