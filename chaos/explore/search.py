"""Decides which schedules are run: first the default, then those with one fault or interruption, with two, and so
on; beyond that at random, by a seed.

Orders that differ only in steps that commute are run once: sleep sets (Godefroid 1996). A schedule is abandoned if
it begins with a step with which a sibling was already explored, and nothing since then depends on that step.
"""

from __future__ import annotations

import heapq
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count

from chaos.explore.schedule import Chooser, Decision, Outcome, Play, Redundant, Scenario
from chaos.explore.steps import JUMPS, Choice, Option, Step
from chaos.explore.world import World

Sleeping = frozenset[str]


@dataclass(order=True, slots=True)
class _Prefix:
    cost: int
    place: int
    choices: tuple[Choice, ...] = field(compare=False)
    #: Actors that need not be tried right after it.
    sleeping: Sleeping = field(compare=False, default=frozenset())


@dataclass(frozen=True, slots=True)
class Fault:
    """A promise that a schedule breaks."""

    promise: str
    detail: str
    token: str
    #: Its steps, in words.
    lines: tuple[str, ...]


@dataclass(slots=True)
class Tally:
    """What was explored of a scenario."""

    scenario: str
    systematic: int = 0
    at_random: int = 0
    distinct: int = 0
    pruned: int = 0
    #: Went differently than before with the same choices; they do not count.
    diverged: int = 0
    #: All schedules up to this cost were run.
    complete_to: int = -1
    seconds: float = 0.0
    #: Number of schedules that break a promise, and one short schedule for each promise.
    failing: int = 0
    faults: list[Fault] = field(default_factory=list)

    @property
    def schedules(self) -> int:
        """Number of schedules that were run to their end."""
        return self.systematic + self.at_random


class Search:
    def __init__(self, world: World, scenario: Scenario, seed: int, *, most_cost: int = 3) -> None:
        self._world = world
        self._scenario = scenario
        self._random = random.Random(f"{scenario.name} {seed}")
        self._most_cost = most_cost
        self._places = count()
        self._frontier = [_Prefix(0, next(self._places), ())]
        self._seen: set[str] = set()
        self.tally = Tally(scenario.name)

    def run(self, seconds: float, *, most: int | None = None) -> Iterator[Outcome]:
        """Run schedule after schedule until the time is over."""
        begun = time.monotonic()
        ends = begun + seconds
        while time.monotonic() < ends and (most is None or len(self._seen) < most):
            outcome = self._at_random() if self._wants_random() else self._next(heapq.heappop(self._frontier))
            if outcome is None:
                continue
            self.tally.seconds = time.monotonic() - begun
            yield outcome
        self.tally.seconds = time.monotonic() - begun
        if self._frontier:
            self.tally.complete_to = self._frontier[0].cost - 1

    def _wants_random(self) -> bool:
        """Whether to run a random schedule: every third one, after the cheap ones are done and the next cost is
        too much to be completed."""
        if not self._frontier:
            return True
        return self._frontier[0].cost > 1 and self.tally.at_random * 3 < self.tally.schedules

    def _next(self, prefix: _Prefix) -> Outcome | None:
        self.tally.complete_to = max(self.tally.complete_to, prefix.cost - 1)
        follower = _Follower(prefix.choices, prefix.sleeping)
        outcome = Play(self._world, self._scenario, follower.choose).run()
        if outcome.is_redundant:
            self.tally.diverged += outcome.has_diverged
            self.tally.pruned += not outcome.has_diverged
            return None
        self._branch(prefix, outcome, follower)
        self.tally.systematic += 1
        self._note(outcome)
        return outcome

    def _branch(self, prefix: _Prefix, outcome: Outcome, follower: _Follower) -> None:
        """Note what could have gone differently, from the end of the prefix on."""
        cost = prefix.cost
        for place in range(len(prefix.choices), len(outcome.decisions)):
            decision = outcome.decisions[place]
            before = tuple(each.chosen for each in outcome.decisions[:place])
            sleeping = follower.asleep[place]
            explored = [decision.chosen.actor]
            for choice in decision.options:
                more = decision.cost(choice)
                if choice == decision.chosen or cost + more > self._most_cost:
                    continue
                if choice.option is Option.DONE and choice.actor not in JUMPS:
                    if choice.actor in sleeping:
                        self.tally.pruned += 1
                        continue
                    # The siblings before it need not come right after it, if that makes no difference.
                    asleep = _still(sleeping | set(explored), decision, choice.actor)
                    explored.append(choice.actor)
                else:
                    asleep = frozenset()
                prefix_ = _Prefix(cost + more, next(self._places), (*before, choice), asleep)
                heapq.heappush(self._frontier, prefix_)

    def _at_random(self) -> Outcome | None:
        outcome = Play(self._world, self._scenario, _Gambler(self._random).choose).run()
        self.tally.at_random += 1
        self._note(outcome)
        return outcome

    def _note(self, outcome: Outcome) -> None:
        token = outcome.token
        if token not in self._seen:
            self._seen.add(token)
            self.tally.distinct += 1
        self.tally.failing += bool(outcome.broken)


def _still(sleeping: Sleeping | set[str], decision: Decision, moved: str) -> Sleeping:
    """Actors that stay asleep after a step of `moved`: those whose own next step does not depend on it."""
    step = decision.standing[moved]
    return frozenset(
        name
        for name in sleeping
        if name != moved and name in decision.standing and decision.standing[name].commutes_with(step)
    )


class _Follower:
    """Follows the choices of a prefix, then the default."""

    def __init__(self, choices: tuple[Choice, ...], sleeping: Sleeping) -> None:
        self._choices = choices
        self._sleeping = sleeping
        #: Which actors slept at each decision.
        self.asleep: list[Sleeping] = []

    def choose(
        self, decisions: list[Decision], plain: Choice, standing: dict[str, Step], options: tuple[Choice, ...]
    ) -> Choice:
        place = len(decisions)
        if place < len(self._choices):
            self.asleep.append(frozenset())
            return self._choices[place]
        if place > len(self._choices) and decisions:
            last = decisions[-1].chosen
            if last.actor in JUMPS or last.option is not Option.DONE:
                self._sleeping = frozenset()
            else:
                self._sleeping = _still(self._sleeping, decisions[-1], last.actor)
        self.asleep.append(self._sleeping)
        if plain.actor not in self._sleeping:
            return plain
        awake = [name for name in standing if name not in self._sleeping]
        if not awake:
            raise Redundant
        return Choice(awake[0])


class _Gambler:
    """Chooses at random: sometimes interrupts, and sometimes lets something go wrong."""

    def __init__(self, chance: random.Random) -> None:
        self._random = chance
        self._interrupts = chance.choice((0.1, 0.3, 0.6))
        self._fails = chance.choice((0.0, 0.05, 0.1, 0.2))

    def choose(
        self, _decisions: list[Decision], plain: Choice, standing: dict[str, Step], options: tuple[Choice, ...]
    ) -> Choice:
        draw = self._random.random()
        if draw < self._fails:
            faults = [each for each in options if each.actor in JUMPS or each.option is not Option.DONE]
            if faults:
                return self._random.choice(faults)
        if self._random.random() < self._interrupts:
            return Choice(self._random.choice(list(standing)))
        return plain


def replayer(token: str) -> Chooser:
    """Follows a token as far as possible. Choices that are no longer possible, because the code has other steps
    now, are left out."""
    choices = parse(token)

    def choose(
        _decisions: list[Decision], plain: Choice, _standing: dict[str, Step], options: tuple[Choice, ...]
    ) -> Choice:
        while choices:
            choice = choices.pop(0)
            if choice in options:
                return choice
        return plain

    return choose


def parse(token: str) -> list[Choice]:
    """Read a token. Raises ValueError if it is not one."""
    choices: list[Choice] = []
    for letter in token:
        if letter.isalpha():
            choices.append(Choice(letter))
        else:
            choices[-1] = Choice(choices[-1].actor, Option(letter))
    return choices


def shortest(world: World, scenario: Scenario, outcome: Outcome, promise: str) -> Outcome:
    """A schedule that breaks the same promise with fewer faults and interruptions, if one can be left out."""
    best = outcome
    place = 0
    while place < len(best.decisions):
        decision = best.decisions[place]
        if decision.chosen != decision.plain:
            before = [each.chosen for each in best.decisions[:place]]
            after = [each.chosen for each in best.decisions[place + 1 :]]
            token = "".join(map(str, [*before, decision.plain, *after]))
            tried = Play(world, scenario, replayer(token)).run()
            cost = sum(each.cost(each.chosen) for each in tried.decisions)
            if cost < _cost(best) and promise in {broken.promise for broken in tried.broken}:
                best, place = tried, 0
                continue
        place += 1
    return best


def _cost(outcome: Outcome) -> int:
    return sum(each.cost(each.chosen) for each in outcome.decisions)
