"""Problems with templates on disk, which `notifier templates check` prints."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum


class Severity(StrEnum):
    ERROR = "error"  #: the template cannot be used, or will fail for messages that keep to its contract
    WARNING = "warning"  #: it renders, but probably not as meant


@dataclass(frozen=True, slots=True)
class TemplateProblem:
    #: File or folder, relative to the folder of templates, with forward slashes.
    path: str
    #: Line in that file, from 1; None where it is not about a line.
    line: int | None
    #: What is wrong and the fix. Never holds a value of a context: it may be personal.
    text: str
    severity: Severity = Severity.ERROR

    def __str__(self) -> str:
        where = self.path if self.line is None else f"{self.path}:{self.line}"
        return f"{where}: {self.severity}: {self.text}"


def errors_of(problems: Iterable[TemplateProblem]) -> tuple[TemplateProblem, ...]:
    return tuple(problem for problem in problems if problem.severity is Severity.ERROR)
