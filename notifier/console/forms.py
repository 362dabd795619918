"""Parts that forms of several pages share: fields left empty, a reason, a dry run."""

from __future__ import annotations

from datetime import date, timedelta
from enum import StrEnum
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field

from notifier.api.schemas import Words
from notifier.domain.local_days import check_day


def _none_if_empty(value: object) -> object:
    return None if value == "" else value


#: A field that was left empty is None.
Empty = BeforeValidator(_none_if_empty)


#: A day in the service's time zone; None: none was given.
Day = Annotated[Annotated[date, AfterValidator(check_day)] | None, Empty]
#: A text to search for; None: no condition.
Condition = Annotated[Words | None, Empty]


def _said(reason: str) -> str:
    if not reason.strip():
        raise ValueError("say why: it stays in the operator record")
    return reason.strip()


#: The reason for an act that requires one: fields that the pages mark as `required`.
GivenReason = Annotated[str, Field(max_length=500, validate_default=True), AfterValidator(_said)]


class TimeSpan(StrEnum):
    """How far back a page looks."""

    HOUR = "1h"
    DAY = "24h"
    WEEK = "7d"

    @property
    def length(self) -> timedelta:
        return _LENGTHS[self]


_LENGTHS = {TimeSpan.HOUR: timedelta(hours=1), TimeSpan.DAY: timedelta(days=1), TimeSpan.WEEK: timedelta(days=7)}


class ActForm(BaseModel):
    """An act: its reason, and whether only to count what it would do."""

    model_config = ConfigDict(extra="ignore")

    reason: Annotated[str, Field(max_length=500)] = ""
    dry_run: bool = False

    @property
    def why(self) -> str | None:
        """For the operator record; None: no reason was given."""
        return self.reason.strip() or None


class ReasonedForm(ActForm):
    """An act for which a reason is required."""

    reason: GivenReason = ""
