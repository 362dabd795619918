"""The JSON of the HTTP API's answers, as far as a client reads it. An answer of another form is not from a
notifier of this version, but from a proxy or another service."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self, TypeVar
from uuid import UUID

from pydantic import BaseModel, Field, ValidationError, model_validator

from notifier.domain.errors import Fault

_Model = TypeVar("_Model", bound=BaseModel)


class ReplyError(BaseModel):
    """One thing that is wrong with the message that was sent."""

    pointer: str | None = None
    parameter: str | None = None
    code: str
    problem: str
    fix: str

    def fault(self, prefix: str | None, first: int) -> Fault:
        """As a `Fault`. `prefix` is the entry's position; None: the position is in the pointer, counted from
        `first`."""
        names = (self.pointer or self.parameter or "").lstrip("/").split("/")
        if prefix is None and names[0] == "batch" and len(names) > 1 and names[1].isdecimal():
            names = [str(first + int(names[1])), *names[2:]]
        elif prefix:
            names = [prefix, *names]
        field = ".".join(name.replace("~1", "/").replace("~0", "~") for name in names if name)
        return Fault(field, self.code, self.problem, self.fix)


class ReplyProblem(BaseModel):
    """Why a request was refused (RFC 9457)."""

    detail: str
    errors: list[ReplyError]


class AcceptedReply(BaseModel):
    id: UUID


class EntryReply(BaseModel):
    """The result for one entry of a batch: its id, or why it is refused."""

    id: UUID | None = None
    errors: list[ReplyError] = []

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Self:
        if (self.id is None) != bool(self.errors):
            raise ValueError("neither accepted nor refused")
        return self

    def outcome(self, position: int) -> UUID | list[Fault]:
        return self.id or faults_of(self.errors, str(position))


class BatchReply(BaseModel):
    entries: list[EntryReply]


class FileReply(BaseModel):
    id: str = Field(min_length=1)


class PageReply(BaseModel):
    items: list[dict[str, Any]]
    next: str | None


def read(model: type[_Model], body: bytes) -> _Model | None:
    """Parse the body; None: it is something else."""
    try:
        return model.model_validate_json(body)
    except ValidationError:
        return None


def faults_of(errors: Sequence[ReplyError], prefix: str | None, first: int = 0) -> list[Fault]:
    return [error.fault(prefix, first) for error in errors]
