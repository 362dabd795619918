"""Actors are threads that wait before their next step until it is their turn.

One runs at a time. An actor whose statement waits in PostgreSQL for another actor's lock counts as blocked until
that actor has moved on; then both run to their next steps.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from queue import Empty, SimpleQueue
from typing import Protocol

#: A statement that has not ended after this is searched for among those that wait for a lock. Seconds.
_LOOK_SECONDS = 0.002
#: Nothing takes this long, so the explorer itself is at fault. Seconds.
_STUCK_SECONDS = 30.0


class Option(StrEnum):
    """What happens at a step. The value is how it is written in a schedule's name."""

    DONE = ""  #: it is done and answered
    NOT_DONE = "1"  #: the connection breaks before it: it is not done
    LOST = "2"  #: it is done, and the connection breaks before the answer
    DIES = "3"  #: the process dies before it
    DIES_AFTER = "4"  #: the process dies after it
    UNAVAILABLE = "5"  #: of a call: the provider certainly did not accept it
    REJECTED = "6"  #: of a call: permanently refused
    UNKNOWN = "7"  #: of a call: no answer, and the provider did not accept it
    TAKEN = "8"  #: of a call: no answer, and the provider accepted it

    @property
    def is_death(self) -> bool:
        """Whether the process ends here."""
        return self in (Option.DIES, Option.DIES_AFTER)


class Kind(StrEnum):
    """The kind of a step."""

    STATEMENT = "statement"  #: a statement that commits by itself
    PART = "part"  #: a statement in a longer transaction
    COMMIT = "commit"
    CALL = "call"  #: a provider call
    PUBLISH = "publish"  #: a task published to the broker
    SLEEP = "sleep"


@dataclass(frozen=True, slots=True)
class Step:
    kind: Kind
    #: For readers, for example the name of the statement.
    label: str
    reads: frozenset[str] = frozenset()
    writes: frozenset[str] = frozenset()

    def commutes_with(self, other: Step) -> bool:
        """Whether the order of the two steps makes no difference."""
        return not (self.writes & (other.reads | other.writes) or other.writes & self.reads)


@dataclass(frozen=True, slots=True)
class Choice:
    """Which actor goes on, and how. `actor` may be a clock: see `JUMPS`."""

    actor: str
    option: Option = Option.DONE

    def __str__(self) -> str:
        return self.actor + self.option


#: The clocks of all machines jump; only the database's clock jumps.
JUMP, DATABASE_JUMP = "t", "d"
JUMPS = (JUMP, DATABASE_JUMP)


class Died(SystemExit):
    """This actor's process has died. No `except Exception` catches this, and an event loop lets it through."""


class _State(StrEnum):
    RUNS = "runs"
    STANDS = "stands"
    BLOCKED = "blocked"
    ENDED = "ended"


class Actor:
    """One process of the service, or somebody who uses it."""

    def __init__(self, name: str, title: str, work: Callable[[], object]) -> None:
        self.name = name
        self.title = title
        self.work = work
        self.state = _State.RUNS
        #: The step before which it waits.
        self.step: Step | None = None
        #: PostgreSQL's process for it.
        self.backend: int | None = None
        self.is_dead = False
        #: The number of its last step, and of the last one that wrote attempts.
        self.moved = self.decided = 0
        self.result: object = None
        self.error: BaseException | None = None
        #: It may make others wait, because it is in a transaction.
        self.holds_locks = False
        self.inbox: SimpleQueue[Option] = SimpleQueue()

    @property
    def stands(self) -> bool:
        """Whether it waits for its turn."""
        return self.state is _State.STANDS

    @property
    def has_ended(self) -> bool:
        """Whether it has finished or died."""
        return self.state is _State.ENDED


class Waits(Protocol):
    """Tells which of PostgreSQL's processes wait for a lock."""

    def waiting(self, backends: Collection[int]) -> set[int]:
        """The processes in `backends` that wait."""
        ...


_current = threading.local()


def current() -> Actor | None:
    """The actor of this thread; None: it is the explorer's own thread."""
    return getattr(_current, "actor", None)


class Stage:
    """Runs the actors. One for each process of the explorer; its threads are reused."""

    def __init__(self, waits: Waits) -> None:
        self._waits = waits
        #: Actors' reports on themselves. Only the explorer's thread writes their states.
        self._said: SimpleQueue[tuple[Actor, _State]] = SimpleQueue()
        self._idle: list[SimpleQueue[Actor]] = []
        self.actors: list[Actor] = []
        #: Number of steps so far.
        self.moves = 0

    def begin(self) -> None:
        self.actors = []
        self.moves = 0

    def enter(self, actor: Actor) -> None:
        """Let the actor run to its first step."""
        self.actors.append(actor)
        self._thread().put(actor)
        self.settle()

    def go(self, actor: Actor, option: Option) -> None:
        """Let the actor do its step in this way, and run to the next one."""
        self.moves += 1
        actor.moved = self.moves
        actor.state = _State.RUNS
        actor.inbox.put(option)
        self.settle()

    def standing(self) -> list[Actor]:
        """Actors that may be next."""
        return [actor for actor in self.actors if actor.stands]

    def step(self, step: Step) -> Option:
        """Called by an actor: wait here for its turn. Returns what happens.

        Raises:
            Died: the actor is already dead.
        """
        actor = current()
        assert actor is not None
        if actor.is_dead:
            raise Died
        actor.step = step
        self._said.put((actor, _State.STANDS))
        option = actor.inbox.get()
        if option.is_death:
            actor.is_dead = True
        return option

    def settle(self) -> None:
        """Wait until no actor runs."""
        look = _LOOK_SECONDS
        while True:
            running = [actor for actor in self.actors if actor.state is _State.RUNS]
            if not running:
                if not self._has_freed():
                    return
                continue
            may_wait = len(running) > 1 or any(a.holds_locks for a in self.actors if a is not running[0])
            try:
                actor, state = self._said.get(timeout=look if may_wait else _STUCK_SECONDS)
                actor.state = state
            except Empty:
                assert may_wait, f"stuck: {[actor.title for actor in running]}"
                # On a busy machine it is only slow.
                look = min(2 * look, _STUCK_SECONDS)
                waiting = self._waits.waiting([actor.backend for actor in running if actor.backend])
                for actor in running:
                    if actor.backend in waiting:
                        actor.state = _State.BLOCKED

    def wait_for_deadlock(self) -> bool:
        """If no actor waits for its turn: whether some are blocked by each other, and PostgreSQL has ended
        that."""
        if all(actor.has_ended for actor in self.actors):
            return False
        actor, state = self._said.get(timeout=_STUCK_SECONDS)
        actor.state = state
        self.settle()
        return True

    def _has_freed(self) -> bool:
        """Whether an actor that was blocked runs again."""
        blocked = [actor for actor in self.actors if actor.state is _State.BLOCKED]
        if not blocked:
            return False
        waiting = self._waits.waiting([actor.backend for actor in blocked if actor.backend])
        freed = [actor for actor in blocked if actor.backend not in waiting]
        for actor in freed:
            actor.state = _State.RUNS
        return bool(freed)

    def _thread(self) -> SimpleQueue[Actor]:
        if self._idle:
            return self._idle.pop()
        jobs: SimpleQueue[Actor] = SimpleQueue()
        threading.Thread(target=self._play, args=(jobs,), daemon=True).start()
        return jobs

    def _play(self, jobs: SimpleQueue[Actor]) -> None:
        while True:
            actor = jobs.get()
            _current.actor = actor
            try:
                actor.result = actor.work()
            except Died:
                actor.is_dead = True
            except BaseException as error:
                actor.error = error
            _current.actor = None
            actor.holds_locks = False
            self._idle.append(jobs)
            self._said.put((actor, _State.ENDED))


def alone(options: Iterable[Option], allowed: Collection[Option]) -> Iterator[Option]:
    """The options that are allowed, the default first."""
    yield Option.DONE
    yield from (option for option in options if option in allowed)


_FAULTS: dict[Kind, tuple[Option, ...]] = {
    Kind.STATEMENT: (Option.NOT_DONE, Option.LOST, Option.DIES, Option.DIES_AFTER),
    Kind.PART: (Option.NOT_DONE, Option.DIES),
    Kind.COMMIT: (Option.NOT_DONE, Option.LOST, Option.DIES, Option.DIES_AFTER),
    Kind.CALL: (
        Option.UNAVAILABLE,
        Option.REJECTED,
        Option.UNKNOWN,
        Option.TAKEN,
        Option.DIES,
        Option.DIES_AFTER,
    ),
    Kind.PUBLISH: (Option.NOT_DONE, Option.LOST, Option.DIES, Option.DIES_AFTER),
    Kind.SLEEP: (Option.DIES,),
}


def faults_of(step: Step) -> tuple[Option, ...]:
    """What may go wrong at this step."""
    if step.kind is Kind.STATEMENT and not step.writes:
        # Nobody can tell whether a step that only reads was done.
        return (Option.NOT_DONE, Option.DIES)
    return _FAULTS[step.kind]
