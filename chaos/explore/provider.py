"""Providers as pure values: a list of what they accepted; how they answer is chosen at the step of the call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Self
from uuid import UUID

from chaos.explore.steps import Died, Kind, Option, Stage, Step, current
from notifier.domain.errors import OutcomeUnknown, Rejected, Unavailable
from notifier.domain.statuses import Channel, Reason
from notifier.providers.base import Outgoing, Receipt, Sought


@dataclass(frozen=True, slots=True)
class Made:
    """A message that a provider made of a call."""

    provider: str
    id: str
    notification: UUID
    attempt: int
    to: str
    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """A call that reached a provider."""

    notification: UUID
    attempt: int
    provider: str
    #: The number of the step that made its attempt's row. The caller knew everything that was committed before it.
    decided: int


@dataclass(slots=True)
class Books:
    """What the providers know: the truth with which the record is compared."""

    #: Every call that reached a provider.
    calls: list[Called] = field(default_factory=list)
    made: list[Made] = field(default_factory=list)


class Mailer:
    """A provider that cannot be asked afterwards, like a mail relay."""

    id_space: str | None = None

    def __init__(self, name: str, channel: Channel, stage: Stage, books: Books, script: list[Option]) -> None:
        self.name = name
        self.channel = channel
        self._stage = stage
        self._books = books
        #: Answers to calls made while a scene is being set up, without an actor.
        self._script = script

    @classmethod
    def from_options(cls, name: str, options: Mapping[str, str]) -> Self:
        raise NotImplementedError

    async def send(self, outgoing: Outgoing, *, deadline_seconds: float) -> Receipt:
        if current() is None:
            option = self._script.pop(0) if self._script else Option.DONE
        else:
            option = self._stage.step(Step(Kind.CALL, f"call of {self.name}", writes=frozenset({"provider"})))
        if option is Option.DIES:
            raise Died
        actor = current()
        decided = actor.decided if actor else 0
        self._books.calls.append(Called(outgoing.notification_id, outgoing.attempt, self.name, decided))
        match option:
            case Option.UNAVAILABLE:
                raise Unavailable("421 try again later")
            case Option.REJECTED:
                raise Rejected("554 no", reason=Reason.PROVIDER_REJECTED)
            case Option.UNKNOWN:
                raise OutcomeUnknown("no answer")
        made = Made(
            self.name,
            f"{self.name}-{outgoing.notification_id.hex}-{outgoing.attempt}-{len(self._books.made)}",
            outgoing.notification_id,
            outgoing.attempt,
            outgoing.to,
            outgoing.text,
        )
        self._books.made.append(made)
        if option is Option.DIES_AFTER:
            raise Died
        if option is Option.TAKEN:
            raise OutcomeUnknown("no answer")
        return Receipt(made.id, "250 ok")

    async def check(self, *, deadline_seconds: float) -> str:
        return "well"

    async def close(self) -> None:
        """Does nothing: nothing is open."""


class Texter(Mailer):
    """A provider that can be asked what it accepted, and gives each message an id."""

    id_space = "texter"

    async def find(self, sought: Sought, *, deadline_seconds: float) -> Sequence[Receipt]:
        if current() is not None:
            step = Step(Kind.CALL, f"look-up at {self.name}", reads=frozenset({"provider"}))
            if self._stage.step(step) is not Option.DONE:
                raise Unavailable("503 try again later")
        return [
            Receipt(made.id, "found")
            for made in self._books.made
            if made.provider == self.name
            and made.to == sought.to
            and made.text == sought.text
            and made.id not in sought.exclude
        ]
