"""What forms of several pages have: fields left empty, a reason, a dry run."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


#: Of a field: left empty, it is None.
Empty = BeforeValidator(_none_if_empty)


class ActForm(BaseModel):
    """An act: why, and whether to count only what it would do."""

    model_config = ConfigDict(extra="ignore")

    reason: Annotated[str, Field(max_length=500)] = ""
    dry_run: bool = False

    @property
    def why(self) -> str | None:
        """For the operator record; None: no reason was given."""
        return self.reason.strip() or None
