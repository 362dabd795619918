"""Problems with templates on disk, which `notifier templates check` prints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

#: Maximum length of a problem's text. Characters.
_MAX_LENGTH = 1000


class Severity(StrEnum):
    ERROR = "error"  #: the template cannot be used, or will fail for messages that keep its contract
    WARNING = "warning"  #: it renders, but probably not as meant


@dataclass(frozen=True, slots=True)
class TemplateProblem:
    #: File or folder, relative to the templates folder, with forward slashes.
    path: str
    #: Line in that file, from 1; None: it is not about a line.
    line: int | None
    #: What is wrong, and the fix. Never contains a value from a context, because it may be personal.
    text: str
    severity: Severity = Severity.ERROR

    def __post_init__(self) -> None:
        for name in ("path", "text"):
            object.__setattr__(self, name, readable(getattr(self, name)))

    def __str__(self) -> str:
        where = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{where}: {self.severity}: {self.text}"


def readable(text: str) -> str:
    """A text that quotes a file or its name, on one line, of readable length, and without characters that a
    terminal or a database would not take."""
    if len(text) > _MAX_LENGTH:
        # The fix is at the end.
        text = f"{text[: _MAX_LENGTH - 300]} … {text[-300:]}"
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def errors_of(problems: Iterable[TemplateProblem]) -> tuple[TemplateProblem, ...]:
    return tuple(problem for problem in problems if problem.severity is Severity.ERROR)
