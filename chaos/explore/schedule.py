"""Runs one schedule: a scene is set up, its actors move as chosen, everything comes to rest, and the promises are
checked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from chaos.explore import promises
from chaos.explore.promises import Broken
from chaos.explore.steps import DATABASE_JUMP, JUMP, JUMPS, Actor, Choice, Kind, Option, Step, faults_of
from chaos.explore.world import JUMP_SECONDS, Task, World
from notifier.domain.errors import NotifierError
from notifier.domain.statuses import Channel

#: The actor that brings everything to rest: one worker and one Beat that take turns.
RESTER = "z"
#: If there is no rest after this many sweeps, there never is.
_ROUNDS = 30
#: Errors with which a task may end; then it comes again.
_PASSING = (NotifierError, ConnectionError)
#: A schedule with more steps runs in a circle.
_STEPS = 600


@dataclass(frozen=True, slots=True)
class Role:
    name: str
    title: str
    work: Callable[[World], object]
    #: Whether it may begin: a provider does not report on a message that it has not received.
    ready: Callable[[World], bool] = lambda _: True
    #: If it dies or fails, it is done again: the broker delivers again, a provider repeats its report.
    comes_again: bool = True


@dataclass(frozen=True, slots=True)
class Scenario:
    """Which actors act on what, and which faults may happen."""

    name: str
    roles: tuple[Role, ...]
    set_up: Callable[[World], object]
    channel: Channel = Channel.EMAIL
    providers: int = 1
    #: What may happen at a step instead of its being done.
    faults: frozenset[Option] = frozenset(Option)
    jumps: tuple[str, ...] = JUMPS
    #: Maximum faults and jumps in one schedule.
    most_faults: int = 3


@dataclass(frozen=True, slots=True)
class Decision:
    """A moment at which more than one thing could have happened."""

    chosen: Choice
    #: What happens by default: the actor at work goes on.
    plain: Choice
    #: No actor at work could go on, so none is interrupted.
    is_open: bool
    #: The step before which each actor that may be next was waiting.
    standing: dict[str, Step]
    #: The other things that could have happened.
    options: tuple[Choice, ...]

    def cost(self, choice: Choice) -> int:
        """Distance from the default: a fault counts one, and so does an interruption."""
        is_switch = not self.is_open and choice.actor != self.plain.actor and choice.actor not in JUMPS
        return int(choice.actor in JUMPS) + int(choice.option is not Option.DONE) + int(is_switch)


@dataclass(slots=True)
class Outcome:
    """The result of a schedule."""

    decisions: list[Decision] = field(default_factory=list)
    #: What was done, in words.
    lines: list[str] = field(default_factory=list)
    broken: list[Broken] = field(default_factory=list)
    #: It was abandoned because it equals another schedule.
    is_redundant: bool = False
    #: It was abandoned because it went differently than the last time with the same choices.
    has_diverged: bool = False

    @property
    def token(self) -> str:
        return "".join(str(decision.chosen) for decision in self.decisions)


class Redundant(Exception):
    """Raised by a chooser: this schedule has already been run in another order that makes no difference."""


class Diverged(Exception):
    """A choice is impossible now but was possible the last time: something besides the choices decides."""


#: Called with the decisions so far, the default, the steps before which actors wait, and the other options.
Chooser = Callable[[list[Decision], Choice, dict[str, Step], tuple[Choice, ...]], Choice]


class Play:
    def __init__(self, world: World, scenario: Scenario, choose: Chooser) -> None:
        self._world = world
        self._stage = world.stage
        self._scenario = scenario
        self._choose = choose
        self._faults = 0
        self._last: str | None = None
        self.outcome = Outcome()

    def run(self) -> Outcome:
        """Run the schedule, from setting the scene to checking the promises."""
        scenario, world = self._scenario, self._world
        world.begin(scenario.channel, providers=scenario.providers)
        scenario.set_up(world)
        try:
            self._act()
            self._rest()
        except (Redundant, Diverged) as end:
            self.outcome.is_redundant = True
            self.outcome.has_diverged = isinstance(end, Diverged)
            self._clear()
            world.database.park(world.scene.ids)
            return self.outcome
        self.outcome.broken += promises.check(world)
        if self.outcome.broken:
            world.database.park(world.scene.ids)
        return self.outcome

    def _act(self) -> None:
        waiting = list(self._scenario.roles)
        playing: list[tuple[Role, Actor]] = []
        while True:
            for role in [role for role in waiting if role.ready(self._world)]:
                waiting.remove(role)
                actor = Actor(role.name, role.title, lambda work=role.work: work(self._world))  # type: ignore[misc]
                playing.append((role, actor))
                self._stage.enter(actor)
            if not self._move(self._scenario.jumps):
                break
        for role, actor in playing:
            if role.comes_again and (actor.is_dead or actor.error is not None):
                self._world.scene.tasks.append(Task(role.title, work=role.work))
            self._note_error(actor)

    def _rest(self) -> None:
        scene = self._world.scene
        scene.is_resting = True
        for _ in range(_ROUNDS):
            actor = Actor(RESTER, "rest", lambda: rest(self._world))
            self._stage.enter(actor)
            while self._move(()):
                pass
            self._note_error(actor)
            if not actor.is_dead:
                return
            if scene.in_hand is not None:
                scene.tasks.insert(0, scene.in_hand)
                scene.in_hand = None
        scene.is_restless = True

    def _move(self, jumps: tuple[str, ...]) -> bool:
        """Do one actor's step; False: no actor is left."""
        standing = {actor.name: actor for actor in self._stage.standing()}
        if not standing:
            return self._stage.wait_for_deadlock()
        steps = {name: actor.step for name, actor in standing.items() if actor.step is not None}
        plain = Choice(self._last if self._last in standing else next(iter(standing)))
        choice = self._decide(plain, steps, jumps)
        if len(self.outcome.lines) > _STEPS:
            raise AssertionError(f"a circle: {self._scenario.name}:{self.outcome.token}")
        if choice.actor in JUMPS:
            self._world.scene.jumps += 1
            self._world.clock.jump(JUMP_SECONDS, only_database=choice.actor == DATABASE_JUMP)
            whose = "all clocks jump" if choice.actor == JUMP else "the database's clock jumps"
            self.outcome.lines.append(f"   {whose} by {JUMP_SECONDS:g} s")
            return True
        if choice.actor not in standing:
            raise Diverged(f"{self._scenario.name}:{self.outcome.token}")
        actor = standing[choice.actor]
        self._tell(actor, choice.option)
        self._last = choice.actor
        self._world.scene.deaths += choice.option.is_death
        self._stage.go(actor, choice.option)
        return True

    def _decide(self, plain: Choice, steps: dict[str, Step], jumps: tuple[str, ...]) -> Choice:
        options = [Choice(name) for name in steps]
        if self._faults < self._scenario.most_faults:
            for name, step in steps.items():
                options += [Choice(name, each) for each in faults_of(step) if each in self._scenario.faults]
            options += [Choice(jump) for jump in jumps]
        decisions = self.outcome.decisions
        chosen = self._choose(decisions, plain, steps, tuple(options))
        decisions.append(Decision(chosen, plain, self._last not in steps, steps, tuple(options)))
        self._faults += chosen.actor in JUMPS or chosen.option is not Option.DONE
        return chosen

    def _tell(self, actor: Actor, option: Option) -> None:
        words = {
            Option.DONE: "",
            Option.NOT_DONE: " -- not done, the connection breaks",
            Option.LOST: " -- done, the answer is lost",
            Option.DIES: " -- the process dies before it",
            Option.DIES_AFTER: " -- done, the process dies",
            Option.UNAVAILABLE: " -- unavailable",
            Option.REJECTED: " -- rejected",
            Option.UNKNOWN: " -- no answer, not taken",
            Option.TAKEN: " -- no answer, taken",
        }[option]
        assert actor.step is not None
        what = {Kind.PUBLISH: "", Kind.CALL: ""}.get(actor.step.kind, "")
        self.outcome.lines.append(f"{actor.name}  {actor.title}: {what}{actor.step.label}{words}")

    def _note_error(self, actor: Actor) -> None:
        error = actor.error
        if error is not None and not isinstance(error, _PASSING):
            self.outcome.broken.append(Broken("code failed", f"{actor.title}: {error!r}"))
            raise error

    def _clear(self) -> None:
        """Every actor dies where it waits."""
        while standing := self._stage.standing():
            for actor in standing:
                self._stage.go(actor, Option.DIES)


def rest(world: World) -> None:
    """Do what workers and Beats do until nothing is left; time moves to whatever is due next."""
    scene = world.scene
    for _ in range(_ROUNDS):
        while scene.tasks:
            scene.in_hand = scene.tasks.pop(0)
            try:
                world.run(scene.in_hand)
            except _PASSING:
                if scene.in_hand.work is not None:
                    scene.tasks.append(scene.in_hand)
            scene.in_hand = None
        due = world.database.next_due(scene.ids)
        if due is None:
            return
        world.clock.jump(max(due, 0.0) + 0.01)
        try:
            world.dispatcher().dispatch_due()
        except _PASSING:
            pass
    scene.is_restless = True
