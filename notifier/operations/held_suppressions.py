"""Actions on many suppressions at once: apply or discard those that a mass alarm held, or lift mistaken ones.

Each action leaves an operator record. If a run dies it can be repeated, because what it has done no longer
matches.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import Any
from uuid import UUID

from notifier.domain.errors import WrongSelection
from notifier.operations.results import ActionResult, Progress, Stuck, result, run_pages
from notifier.store.held_suppressions import HeldFilter, HeldSuppressionRepository, HeldView
from notifier.store.mass_alarm import Alarm, AlarmRepository
from notifier.store.operator_actions import ActionCounts, OperatorActions
from notifier.store.suppressions import SuppressionFilter


@dataclass(frozen=True, slots=True)
class Holding:
    """Suppressions that wait for an operator because of mass alarms."""

    #: "bounces_held".
    cause: str
    alarms: tuple[Alarm, ...]
    #: Number of suppressions.
    held: int


class HeldSuppressions:
    """Actions on held suppressions. Thread-safe. Every method raises `ServiceUnavailable`; pages completed before
    that stay done."""

    def __init__(
        self, repository: HeldSuppressionRepository, alarms: AlarmRepository, operator_actions: OperatorActions
    ) -> None:
        self._repository = repository
        self._alarms = alarms
        self._operator_actions = operator_actions

    def holding(self) -> Holding | None:
        alarms, held = tuple(self._alarms.active()), self._repository.count(HeldFilter())
        return Holding("bounces_held", alarms, held) if alarms or held else None

    def stuck(self) -> Stuck[Holding] | None:
        found = self.holding()
        return None if found is None else Stuck(found, *in_words(found))

    def page(self, wanted: HeldFilter, *, limit: int, before: UUID | None = None) -> Sequence[HeldView]:
        """Held suppressions, newest first."""
        return self._repository.page(wanted, limit=limit, before=before)

    def end(
        self,
        wanted: HeldFilter,
        *,
        apply: bool,
        operator: str,
        reason: str | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> ActionResult:
        """Apply held suppressions if the bounces were right, or discard them if the bounces were our fault. The
        bounces stay in the stories of their messages.

        Raises:
            WrongSelection: no reason is given, or somebody else is deciding right now.
        """
        if dry_run:
            return _preview(self._repository.count(wanted))
        if not reason:
            raise WrongSelection("say why: --why TEXT; it stays in the operator record")
        action = "apply_held" if apply else "discard_held"
        with self._repository.deciding() as go_on:
            record = self._operator_actions.begin(operator, action, _selection(wanted), reason).id

            def page(tally: ActionCounts) -> ActionCounts | None:
                go_on()
                return self._repository.end_page(wanted, record, tally, apply=apply)

            return self._run(record, page, progress)

    def lift(
        self,
        wanted: SuppressionFilter,
        *,
        operator: str,
        reason: str | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> ActionResult:
        """End all current suppressions that the filter finds. They stay in the record.

        Raises:
            WrongSelection: the filter finds every suppression, or no reason is given.
        """
        if wanted.source is None or wanted.since is None:
            raise WrongSelection("say whose, and since when: --source bounce --since 3h")
        if dry_run:
            return _preview(self._repository.count_liftable(wanted))
        if not reason:
            raise WrongSelection("say why: --why TEXT; it stays with each of them")
        record = self._operator_actions.begin(operator, "lift_suppressions", _selection(wanted), reason).id
        page = partial(self._repository.lift_page, wanted, record, by=f"operator:{operator}", detail=reason)
        return self._run(record, page, progress)

    def _run(
        self, record: UUID, page: Callable[[ActionCounts], ActionCounts | None], progress: Progress | None
    ) -> ActionResult:
        tally = run_pages(page, progress)
        self._operator_actions.note(record, tally, is_finished=True)
        return result(record, tally, ())


def in_words(found: Holding) -> tuple[str, str]:
    """Why suppressions are held, and what to do."""
    count = f"{found.held} suppression{'' if found.held == 1 else 's'}"
    fix = (
        "find out whether we are at fault (notifier suppressions held), then: notifier suppressions apply-held, "
        "or held --discard"
    )
    if not found.alarms:
        return f"{count} that a mass alarm held wait{'s' if found.held == 1 else ''} for an operator", fix
    told = ", ".join(f"{one.scope} ({one.bounced} of {one.sent} messages)" for one in found.alarms)
    return f"too many hard bounces in an hour, by {told}: bounces suppress nobody now, {count} held", fix


def _preview(count: int) -> ActionResult:
    return ActionResult(None, count, count, 0)


def _selection(wanted: HeldFilter | SuppressionFilter) -> Mapping[str, Any]:
    given = {name: value for name, value in asdict(wanted).items() if value not in (None, False)}
    return {"filter": {name: _plain(value) for name, value in given.items()}}


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value
