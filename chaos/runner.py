"""Runs scenarios: load, fault, healing, waiting for rest, reconciling."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from uuid import UUID

import psycopg

from chaos.load import Load, Mix
from chaos.reconcile import reconcile
from chaos.report import Outcome
from chaos.scenarios import Scenario
from chaos.world import World
from tests.waiting import Deadline

#: Everything must be at rest within this, counted from the end of the fault on an idle machine. Seconds.
SETTLE_SECONDS = 240.0
#: The load continues for a moment after the fault, so that new messages meet what it left. Seconds.
_TAIL_SECONDS = 1.5
#: The client promises to end within its time-out (5 s); a busy machine may need this in addition. Seconds.
_PUBLISH_SECONDS = 5.0 + 2.5


@dataclass(slots=True)
class _Run:
    scenario: Scenario
    label: str
    load: Load
    outcome: Outcome
    healed_at: float
    deadline: Deadline
    is_settled: bool = False

    @property
    def confirmed(self) -> list[UUID]:
        return [message.id for message in self.load.messages if message.confirmed]


class Runner:
    def __init__(self, world: World, seed: int, say: Callable[[str], None], *, overlap: bool) -> None:
        self._world = world
        self._seed = seed
        self._say = say
        #: Do not wait for rest between scenarios, only at the end of all of them.
        self._overlap = overlap
        self._runs: list[_Run] = []
        self._crashes_told = 0

    def run(self, scenarios: Sequence[Scenario]) -> list[Outcome]:
        for number, scenario in enumerate(scenarios, 1):
            if (self._world.broker, self._world.setup) != (scenario.broker, scenario.setup):
                self._settle(self._runs)
                self._begin(scenario)
            self._say(f"{number} of {len(scenarios)}: {scenario.name}")
            run = self._play(scenario, f"{self._seed}-{number}")
            self._runs.append(run)
            if not self._overlap:
                self._settle([run])
                self._judge(run)
                self._tell(run)
        self._settle(self._runs)
        self._world.stop_fleet()
        # Once more when nothing runs, because a late copy would show here.
        for run in self._runs:
            self._judge(run)
        self._judge_programs(self._runs[-1].outcome)
        return [run.outcome for run in self._runs]

    def _begin(self, scenario: Scenario) -> None:
        """Start programs on that broker, and send a few messages that show that everything works."""
        how = f", {scenario.setup.name}" if scenario.setup.name else ""
        self._say(f"starting {scenario.broker} fleet{how}: {', '.join(scenario.setup.programs)}")
        self._world.use(scenario.broker, scenario.setup)
        run = self._play(
            Scenario("start", lambda world: world.pause(0.5), Mix(rate=20), seconds=1, has_fault=False), "start"
        )
        self._settle([run])
        if not run.is_settled:
            raise RuntimeError("the service does not deliver even without a fault")

    def _play(self, scenario: Scenario, label: str) -> _Run:
        world = self._world
        fleet = world.running_fleet
        fleet.wait_until_ready()
        world.notes = []
        kills_before, strikes_before = dict(fleet.kills), world.strikes
        load = world.make_load(label, scenario.mix, self._seed)
        load.start()
        begun = time.monotonic()
        try:
            scenario.fault(world)
            world.pause(max(_TAIL_SECONDS, scenario.seconds - (time.monotonic() - begun)))
        finally:
            load.stop()
            world.heal()
            load.join()
        outcome = Outcome(scenario.name)
        outcome.repeated_publishes = load.failures
        outcome.slowest_publish_seconds = load.slowest_seconds
        outcome.by_outbox = sum(message.by_outbox for message in load.messages)
        outcome.kills = dict(Counter(fleet.kills) - Counter(kills_before))
        outcome.strikes = world.strikes - strikes_before
        outcome.problems += dict.fromkeys(world.notes)
        if not outcome.strikes and scenario.has_fault:
            outcome.problems.append("the fault met nothing, so this shows nothing")
        rate = len(load.messages) / (time.monotonic() - begun)
        strikes = f"{outcome.strikes} strikes" + (f", killed {outcome.kills}" if outcome.kills else "")
        self._say(f"   {len(load.messages)} messages, {rate:.0f} a second; {strikes}")
        return _Run(scenario, label, load, outcome, time.monotonic(), Deadline(SETTLE_SECONDS))

    def _settle(self, runs: Sequence[_Run]) -> None:
        """Wait until each of these is at rest, or its time is over."""
        waiting = [run for run in runs if not run.is_settled]
        begun = told_at = time.monotonic()
        while waiting:
            left = {run.label: self._look(run) for run in waiting}
            now = time.monotonic()
            waiting = [run for run in waiting if not run.is_settled and not run.deadline.is_over()]
            if now - told_at > 10 and waiting:
                told_at = now
                self._say(f"   waiting for {sum(left.values())} messages to come to rest")
            # Each look costs two processes of PostgreSQL. Most are at rest at once, and some take a minute.
            self._world.pause(min(1.0, 0.25 + (now - begun) / 20) if waiting else 0)

    def _look(self, run: _Run) -> int:
        try:
            gone = run.scenario.loses_broker
            left = self._world.books.unsettled(run.label, run.confirmed, may_be_gone=gone)
            # Only a relay could lose these.
            left = left or self._world.outbox_rows()
        except psycopg.OperationalError:
            return -1
        run.outcome.recovery_seconds = time.monotonic() - run.healed_at
        run.is_settled = left == 0
        return left

    def _judge(self, run: _Run) -> None:
        world, outcome = self._world, run.outcome
        # Calls are read first: a call that is still on its way here must not look like one without an attempt (a
        # broker that was emptied hides that there is one).
        calls, accepted = world.providers.calls(), world.providers.accepted()
        outcome.findings = reconcile(
            run.load.messages,
            world.books.rows(run.label),
            world.books.rejected(),
            calls,
            accepted,
            world.endpoint.told(),
            may_be_gone=run.scenario.loses_broker,
        )
        slow = outcome.slowest_publish_seconds
        if slow > _PUBLISH_SECONDS:
            _complain(outcome, f"a publish took {slow:.1f} s, and its time-out is 5 s")
        if not run.is_settled:
            _complain(outcome, f"not all had come to rest after {run.deadline}")
        failed = outcome.findings.statuses.get("failed", 0)
        if run.scenario.harms_nobody and failed:
            _complain(outcome, f"{failed} failed, and nothing was wrong with them")
        within = run.scenario.rests_within
        if within and outcome.recovery_seconds > within:
            _complain(outcome, f"at rest after {outcome.recovery_seconds:.1f} s, later than {within:g} s")
        if outcome.findings.open_attempts:
            _complain(outcome, f"{outcome.findings.open_attempts} have an attempt that nobody will end")
        if run.scenario.check and run.is_settled:
            for problem in run.scenario.check(world):
                _complain(outcome, problem)
        if run.scenario.repeats_publishes and not outcome.findings.repeats:
            _complain(outcome, "nothing was published twice, so this shows nothing")

    def _tell(self, run: _Run) -> None:
        found, outcome = run.outcome.findings, run.outcome
        self._judge_programs(outcome)
        mark = "✓" if outcome.is_right else "✗"
        self._say(
            f" {mark} lost {found.lost}, unrecorded duplicates {found.unrecorded_duplicates}, "
            f"untold {found.untold}, unknown {found.unknowns}, "
            f"at rest after {outcome.recovery_seconds:.1f} s; {found.statuses}"
        )
        for problem in outcome.problems:
            self._say(f"   {problem}")

    def _judge_programs(self, outcome: Outcome) -> None:
        """Programs that were not told to end must still be the same processes."""
        fleet = self._world.fleet
        crashes = [*self._world.crashes, *(fleet.crashes if fleet else ())]
        for crash in crashes[self._crashes_told :]:
            outcome.problems.append(f"{crash.name} (process {crash.pid}) ended by itself: {crash.last_words}")
        self._crashes_told = len(crashes)
        strangers = self._world.providers.strangers()
        if strangers:
            outcome.problems.append(f"{strangers} mails whose Message-ID is no notification's id")
        wrong = self._world.endpoint.wrong
        if wrong:
            outcome.problems.append(f"{wrong} callbacks with a wrong signature, or with the id of another")


def _complain(outcome: Outcome, problem: str) -> None:
    """Report a problem once, because a scenario is judged again at the end of everything."""
    if problem not in outcome.problems:
        outcome.problems.append(problem)
