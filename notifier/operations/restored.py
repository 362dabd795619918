"""After a database was restored from a backup: hold what was on its way in it, and release what was not sent.

After the backup was taken, the service went on: what was queued then was sent, and nothing in the restored
database says so. So programs notice by themselves that the database is another one, and do nothing
(`store.identity`) until an operator has its notifications held.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from uuid import UUID

from notifier.domain.errors import ConfigurationError, ServiceUnavailable, WrongSelection
from notifier.domain.statuses import Reason, Status
from notifier.operations.results import Progress, by_id, event_text, run_pages
from notifier.store.identity import IdentityCheck
from notifier.store.operator_actions import ActionCounts, Begun, OperatorActions
from notifier.store.restored import HeldGroup, RestoredRepository
from notifier.store.search import Filter
from notifier.store.selection import Selection


@dataclass(frozen=True, slots=True)
class HoldResult:
    """What is held now, or would be."""

    #: None for a dry run.
    record_id: UUID | None
    #: Held notifications.
    held: int
    #: Waiting callbacks.
    callbacks: int
    #: How the database differs from the earlier one, as far as can be seen.
    differences: tuple[str, ...]
    #: Only for a dry run.
    groups: tuple[HeldGroup, ...] = ()
    #: Recurring notifications that were paused.
    recurring: int = 0


@dataclass(frozen=True, slots=True)
class ReleaseResult:
    """What is released now, or would be."""

    #: None for a dry run.
    record_id: UUID | None
    released: int
    #: Notifications that became `expired`, because their `expires_at` has passed.
    expired: int
    #: Notifications that were left alone: their secrets or recipients were wiped, or they were named by id and are
    #: not held.
    skipped: int
    #: Only for a dry run.
    groups: tuple[HeldGroup, ...] = ()


class Restored:
    """Actions after a restore. Thread-safe. Every method raises `ServiceUnavailable`; pages completed before that
    stay done."""

    def __init__(self, repository: RestoredRepository, operator_actions: OperatorActions) -> None:
        self._repository = repository
        self._operator_actions = operator_actions

    def hold(
        self, *, operator: str, reason: str | None = None, dry_run: bool = False, progress: Progress | None = None
    ) -> HoldResult:
        """Hold every notification that is on its way and every callback, pause recurring notifications and stop
        jobs. Then the programs continue."""
        verdict = self._verdict()
        if dry_run:
            groups, callbacks = self._repository.under_way()
            held = sum(group.count for group in groups)
            planned = self._repository.planned()
            return HoldResult(None, held, callbacks, verdict.differences, tuple(groups), planned)
        begun = self._begin("after_restore", verdict, operator, reason)
        # Before anything is held, because that makes callbacks.
        self._repository.skip_callback_numbers()
        detail = event_text("held after the database was restored", operator, reason, begun.id)
        tally = run_pages(by_id(partial(self._repository.hold_page, begun, detail)), progress)
        callbacks = self._repository.hold_callbacks(begun)
        recurring = self._repository.pause_recurring()
        self._repository.stop_jobs()
        # Last: nobody works until everything is held.
        self._repository.accept(verdict)
        self._operator_actions.note(begun.id, tally, is_finished=True)
        return HoldResult(begun.id, tally.changed, callbacks, verdict.differences, recurring=recurring)

    def accept(self, *, operator: str, reason: str) -> HoldResult:
        """Let the programs continue without holding anything, because nothing was lost, as after `pg_upgrade` or a
        failover to a synchronous standby."""
        verdict = self._verdict()
        begun = self._begin("accept_database", verdict, operator, reason)
        self._repository.accept(verdict)
        self._operator_actions.note(begun.id, ActionCounts(), is_finished=True)
        return HoldResult(begun.id, 0, 0, verdict.differences)

    def release(
        self,
        wanted: Filter,
        ids: Sequence[UUID] = (),
        *,
        everything: bool = False,
        operator: str,
        reason: str | None = None,
        dry_run: bool = False,
        progress: Progress | None = None,
    ) -> ReleaseResult:
        """Send held notifications: those with these ids, all that the filter finds, or everything. Each is sent at
        its time if that has not passed. Calls without an answer are looked up first. Notifications past their
        `expires_at` become `expired`.

        Raises:
            WrongSelection: nothing is selected, or it is selected in two ways at once.
            ConfigurationError: nothing is held yet.
        """
        self._check_release(wanted, ids, everything=everything)
        if dry_run:
            groups = self._repository.held(wanted, ids)
            expired = sum(group.expired for group in groups)
            return ReleaseResult(None, sum(group.count for group in groups) - expired, expired, 0, tuple(groups))
        chosen = replace(wanted, status=Status.UNKNOWN, reason=Reason.RESTORED)
        selection = Selection(tuple(ids)) if ids else Selection(filter=chosen)
        recorded = selection.as_dict(self._operator_actions.hash_key)
        begun = self._operator_actions.begin(operator, "release_restored", recorded, reason)
        detail = event_text("released", operator, reason, begun.id)
        page = partial(self._repository.release_page, begun, wanted, ids, detail)
        tally = run_pages(by_id(page), progress)
        self._operator_actions.note(begun.id, tally, is_finished=True)
        not_held = len(set(ids)) - tally.matched if ids else 0
        return ReleaseResult(begun.id, tally.changed, tally.expired, tally.skipped + not_held)

    def _check_release(self, wanted: Filter, ids: Sequence[UUID], *, everything: bool) -> None:
        if sum((wanted != Filter(), bool(ids), everything)) != 1:
            raise WrongSelection("say what to release: ids, conditions, or everything; one of the three")
        if self._verdict().differences:
            raise ConfigurationError(
                "nothing is held yet, and programs do nothing: run `notifier db after-restore` without --release "
                "first"
            )

    def _verdict(self) -> IdentityCheck:
        verdict = self._repository.verdict()
        if verdict is None:
            raise ServiceUnavailable(
                "the database does not have the tables of this version: run `notifier db upgrade`"
            )
        return verdict

    def _begin(self, action: str, verdict: IdentityCheck, operator: str, reason: str | None) -> Begun:
        return self._operator_actions.begin(operator, action, {"differences": list(verdict.differences)}, reason)
