"""Actions on recurring notifications, for operators and for producers over the HTTP API.

A plan says which message goes to a list of recipients, and when. `recurring_runs` sends it. Each action leaves an
operator record, which is committed before anything is done.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from itertools import islice
from typing import Annotated
from uuid import UUID

from cronsim import CronSim, CronSimError
from pydantic import BaseModel, ConfigDict, Field, JsonValue

from notifier.domain.errors import Fault, InvalidMessage, NotFound, TemplateInvalid, WrongSelection, few
from notifier.domain.local_days import zone_of
from notifier.domain.message import Locale, Message
from notifier.domain.recipient_identity import recipient_identity
from notifier.operations.recurring_runs import message_of
from notifier.rendering import Renderer
from notifier.store.operator_actions import ActionCounts, OperatorActions
from notifier.store.recurring import ListedRecipient, PastRun, RecurringPlan, RecurringRepository, RecurringView

#: How many of a plan's next times are shown.
SHOWN_TIMES = 5
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}\Z")
#: Fields of a line; a message's other fields come from the plan.
_OF_LINE = ("to", "context", "locale")
#: Faults of an address that no list can hold. An address with another fault is kept, and refused in each run.
_UNKEEPABLE = ("nul_character", "bad_utf8", "too_short", "too_long")


class RecipientLine(BaseModel):
    """One recipient of a list, as given."""

    model_config = ConfigDict(extra="forbid")

    to: Annotated[str, Field(description="E-mail address, display name allowed, or E.164 number.")]
    context: Annotated[
        dict[str, JsonValue], Field(description="Its own variables; they win over the shared ones.")
    ] = Field(default_factory=dict)
    locale: Annotated[Locale | None, Field(description="Its language, instead of the shared one.")] = None

    def listed(self, position: int) -> ListedRecipient:
        return ListedRecipient(position, self.to, self.context, self.locale)


@dataclass(frozen=True, slots=True)
class RefusedLine:
    """A line whose message would be refused today."""

    line: int
    faults: tuple[Fault, ...]


@dataclass(frozen=True, slots=True)
class ListedRecipients:
    """A list that was accepted."""

    id: UUID
    #: The id of the operator record.
    record_id: UUID
    recipients: int
    #: Lines that are kept and tried in each run, although their messages would be refused today.
    refused: tuple[RefusedLine, ...]


@dataclass(frozen=True, slots=True)
class RecurringStory:
    """One recurring notification, when it is due next, and its runs."""

    recurring: RecurringView
    #: The next times of its plan, in UTC.
    times: list[datetime]
    #: Runs that have ended, latest first; about 100 are kept.
    runs: list[PastRun]


class RecurringNotifications:
    """Actions on recurring notifications. Thread-safe. Every method raises `ServiceUnavailable`; those with an id
    also raise `NotFound`.

    `check` returns why the intake would refuse a message; nothing: it would accept it.
    """

    def __init__(
        self,
        repository: RecurringRepository,
        operator_actions: OperatorActions,
        renderer: Renderer,
        check: Callable[[Message], Sequence[Fault]],
    ) -> None:
        self._repository = repository
        self._operator_actions = operator_actions
        self._renderer = renderer
        self._check = check

    def add(
        self,
        plan: RecurringPlan,
        recipients: Sequence[ListedRecipient],
        *,
        operator: str,
        reason: str | None = None,
    ) -> ListedRecipients:
        """Add a plan with its list.

        Raises:
            InvalidMessage: something is wrong with the plan, with a line of the list, or with every message.
            WrongSelection: the producer already has a recurring notification of this name.
        """
        faults = list(_plan_faults(plan))
        if faults:
            raise InvalidMessage(faults)
        next_at = plan.recurrence.next(self._repository.now())
        if next_at is None:
            raise InvalidMessage([Fault("until", "never_due", "is before the first time", "Give a later time")])
        refused = self._checked(plan, recipients)
        selection = {"name": plan.name, "producer": plan.producer, "recipients": len(recipients)}
        begun = self._operator_actions.begin(operator, "recurring_add", selection, reason)
        id_ = self._repository.add(plan, recipients, next_at)
        self._operator_actions.note(begun.id, ActionCounts(len(recipients), len(recipients)), is_finished=True)
        return ListedRecipients(id_, begun.id, len(recipients), refused)

    def replace_list(
        self, id_: UUID, recipients: Sequence[ListedRecipient], *, operator: str, reason: str | None = None
    ) -> ListedRecipients:
        """Replace the list. Raises `InvalidMessage` as `add` does."""
        return self._list(id_, recipients, "recurring_replace_list", self._repository.replace, operator, reason)

    def add_to_list(
        self, id_: UUID, recipients: Sequence[ListedRecipient], *, operator: str, reason: str | None = None
    ) -> ListedRecipients:
        """Add recipients. Those already on the list get the new context. Raises `InvalidMessage` as `add` does."""
        return self._list(id_, recipients, "recurring_add_to_list", self._repository.put, operator, reason)

    def take_off_list(
        self, id_: UUID, addresses: Sequence[str], *, operator: str, reason: str | None = None
    ) -> int:
        """Remove recipients from the list. Returns how many of them were on it."""
        return self._act(
            "recurring_take_off_list",
            self._repository.view(id_),
            lambda: self._repository.drop_recipients(addresses, id_),
            operator,
            reason,
        )[1]

    def forget(self, address: str, *, operator: str, reason: str | None = None) -> int:
        """Remove somebody from every list. Returns how many lists had them."""
        whose = [form.hex() for form in self._repository.hashes([address])]
        begun = self._operator_actions.begin(operator, "recurring_forget", {"address_hash": whose}, reason)
        count = self._repository.drop_recipients([address])
        self._operator_actions.note(begun.id, ActionCounts(count, count), is_finished=True)
        return count

    def lists_of(self, address: str) -> list[RecurringView]:
        """Recurring notifications whose lists have this recipient."""
        return self._repository.lists_of(address)

    def views(self, producer: str | None = None) -> list[RecurringView]:
        """All recurring notifications by name. `producer`: only this producer's."""
        return self._repository.views(producer)

    def view(self, id_: UUID) -> RecurringView:
        return self._repository.view(id_)

    def find(self, name: str, producer: str | None = None) -> RecurringView:
        """The recurring notification of this name.

        Raises:
            NotFound: there is none.
            WrongSelection: several producers have one.
        """
        found = self._repository.views(producer, name=name)
        if not found:
            raise NotFound(f"there is no recurring notification named {name}: notifier recurring list")
        if len(found) > 1:
            whose = ", ".join(f"{one.producer}{' (test)' if one.is_test else ''}" for one in found)
            raise WrongSelection(f"several have the name {name}, of {whose}: give the producer, or the id")
        return found[0]

    def times(self, view: RecurringView) -> list[datetime]:
        """The next times of its plan, in UTC."""
        if view.next_at is None:
            return []
        return list(islice(view.recurrence.moments(self._repository.now()), SHOWN_TIMES))

    def story(self, view: RecurringView) -> RecurringStory:
        return RecurringStory(view, self.times(view), self._repository.past_runs(view.id))

    def pause(self, id_: UUID, *, operator: str, reason: str | None = None) -> UUID:
        """Send nothing until it is resumed. Returns the id of the operator record."""
        view = self._repository.view(id_)
        return self._act("recurring_pause", view, lambda: self._repository.pause(id_), operator, reason)[0]

    def resume(self, id_: UUID, *, operator: str, reason: str | None = None) -> UUID:
        """Continue with its next time; what was due in between is not sent. Returns the id of the operator
        record."""
        view = self._repository.view(id_)
        next_at = view.recurrence.next(self._repository.now())
        return self._act(
            "recurring_resume", view, lambda: self._repository.resume(id_, next_at), operator, reason
        )[0]

    def remove(self, id_: UUID, *, operator: str, reason: str | None = None) -> UUID:
        """Delete it and its list. Notifications that it has sent stay. Returns the id of the operator record."""
        view = self._repository.view(id_)
        return self._act("recurring_remove", view, lambda: self._repository.remove(id_), operator, reason)[0]

    def run(self, id_: UUID, *, operator: str, reason: str | None = None) -> UUID:
        """Send it once, now, in addition to its plan: the next tick begins. Returns the id of the operator record.

        Raises:
            WrongSelection: it is paused, or a run is in progress.
        """
        view = self._repository.view(id_)
        record, begins = self._act(
            "recurring_run", view, lambda: self._repository.ask_for_run(id_), operator, reason
        )
        if not begins:
            state = self._repository.view(id_).state
            why = (
                "it is paused: resume it first" if state == "paused" else "a run is under way: wait until it ends"
            )
            raise WrongSelection(why)
        return record

    def _list(
        self,
        id_: UUID,
        recipients: Sequence[ListedRecipient],
        action: str,
        write: Callable[[UUID, RecurringPlan, Sequence[ListedRecipient]], None],
        operator: str,
        reason: str | None,
    ) -> ListedRecipients:
        view, plan = self._repository.view(id_), self._repository.plan(id_)
        refused = self._checked(plan, recipients)

        def act() -> int:
            write(id_, plan, recipients)
            return len(recipients)

        record, count = self._act(action, view, act, operator, reason)
        return ListedRecipients(id_, record, count, refused)

    def _act(
        self, action: str, view: RecurringView, act: Callable[[], int], operator: str, reason: str | None
    ) -> tuple[UUID, int]:
        """The id of the operator record, and what `act` returned: how many it changed."""
        selection = {"id": str(view.id), "name": view.name, "producer": view.producer}
        begun = self._operator_actions.begin(operator, action, selection, reason)
        count = int(act())
        self._operator_actions.note(begun.id, ActionCounts(max(1, count), count), is_finished=True)
        return begun.id, count

    def _checked(self, plan: RecurringPlan, recipients: Sequence[ListedRecipient]) -> tuple[RefusedLine, ...]:
        """Lines whose messages would be refused today.

        Raises:
            InvalidMessage: a line cannot be kept, a recipient occurs twice, or no line would be accepted.
        """
        if not recipients:
            raise InvalidMessage([Fault("recipients", "missing", "is empty", "Give at least one recipient")])
        lines = (*_twice(recipients), *self._line_faults(plan, recipients), *self._secret_faults(plan, recipients))
        faults = few(dict.fromkeys(lines))
        if faults:
            raise InvalidMessage(faults)
        now = self._repository.now()
        refused = []
        for one in recipients:
            entry = message_of(plan, one, "check", now)
            if found := entry.faults if entry.message is None else self._check(entry.message):
                refused.append(RefusedLine(one.position, tuple(found)))
        if len(refused) == len(recipients):
            raise InvalidMessage(few(dict.fromkeys(fault for one in refused for fault in one.faults)))
        return tuple(refused)

    def _secret_faults(self, plan: RecurringPlan, recipients: Sequence[ListedRecipient]) -> Iterator[Fault]:
        """Faults for secret variables: a secret is wiped once it was sent, but a list is kept."""
        try:
            secret = self._renderer.template(plan.channel, plan.template).secret_names
        except (NotFound, TemplateInvalid):
            return  # the check reports it
        given = {*plan.context, *(name for one in recipients for name in one.context)}
        for name in sorted(given.intersection(secret)):
            fix = "Use a template without secret variables"
            yield Fault(f"context.{name}", "secret_variable", "is secret, and a list is kept", fix)

    def _line_faults(self, plan: RecurringPlan, recipients: Sequence[ListedRecipient]) -> Iterator[Fault]:
        now = self._repository.now()
        # The context that all lines share is stored even if every line has its own.
        shared = message_of(plan, replace(recipients[0], context={}), "check", now).faults
        yield from (fault for fault in shared if fault.field.partition(".")[0] == "context")
        for index, one in enumerate(recipients):
            for fault in message_of(plan, one, "check", now).faults:
                if fault.field == "to" and fault.code not in _UNKEEPABLE:
                    continue
                is_of_line = fault.field.partition(".")[0] in _OF_LINE
                yield replace(fault, field=f"recipients.{index}.{fault.field}") if is_of_line else fault


def _plan_faults(plan: RecurringPlan) -> Iterator[Fault]:
    if not _NAME.match(plan.name):
        fix = "Use 1 to 100 letters, digits, '.', '_' or '-', the first a letter or digit"
        yield Fault("name", "bad_format", "is not a name", fix)
    yield from recurrence_faults(plan.recurrence.cron, plan.recurrence.zone)


def _twice(recipients: Sequence[ListedRecipient]) -> Iterator[Fault]:
    first: dict[str, int] = {}
    for index, one in enumerate(recipients):
        line = first.setdefault(recipient_identity(one.to), one.position)
        if line != one.position:
            fix = "Give each recipient one line"
            yield Fault(f"recipients.{index}.to", "twice", f"is also the recipient of line {line}", fix)


def recurrence_faults(cron: str, zone: str) -> list[Fault]:
    """What is wrong with the schedule of a plan."""
    faults = []
    try:
        if len(cron.split()) != 5:
            raise CronSimError("Wrong number of fields")
        # Raises if there is no such day.
        next(CronSim(cron, datetime(2026, 1, 1, tzinfo=UTC)))
    except (CronSimError, StopIteration) as error:
        words = f"is not a cron expression that is ever due: {str(error).lower() or 'there is no such day'}"
        fix = "Write minute, hour, day of the month, month and day of the week, such as 30 9 * * 1-5"
        faults.append(Fault("cron", "bad_cron", words, fix))
    try:
        zone_of(zone)
    except ValueError:
        fix = "Use a name of the IANA database, such as Europe/Berlin"
        faults.append(Fault("zone", "unknown_zone", "is not a time zone", fix))
    return faults
