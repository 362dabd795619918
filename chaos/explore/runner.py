"""The explorer's processes: one for each core, each with a database of its own on one PostgreSQL in memory."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

from chaos.explore.clock import Clock
from chaos.explore.database import Database, prepare
from chaos.explore.mutations import named
from chaos.explore.scenarios import SCENARIOS
from chaos.explore.schedule import Outcome, Play, Scenario
from chaos.explore.search import Fault, Search, Tally, replayer, shortest
from chaos.explore.world import World
from notifier.telemetry import configure
from tests.databases import Databases
from tests.services import Services

Say = Callable[[str], None]

#: Schedules between two clean-ups of the tables.
_EMPTY_AFTER = 1500
#: Faults of one scenario whose steps are looked for and shown.
_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Job:
    """One scenario for one process."""

    scenario: str
    seconds: float
    seed: int
    mutation: str | None = None


def explore_all(jobs: Sequence[Job], processes: int, say: Say) -> list[Tally]:
    """Do all jobs; their tallies in the same order."""
    with _server(say) as databases:
        urls = [databases.make_empty() for _ in range(processes)]
        context = get_context("spawn")
        waiting = context.SimpleQueue()
        for url in urls:
            waiting.put(url)
        with ProcessPoolExecutor(processes, context, _begin, (waiting,)) as pool:
            futures = {pool.submit(_explore_here, job): job for job in jobs}
            found = {}
            for future in as_completed(futures):
                tally = future.result()
                found[tally.scenario] = tally
                broken = f": NOT KEPT {', '.join(fault.promise for fault in tally.faults)}" if tally.faults else ""
                say(f"{tally.scenario}: {tally.schedules} schedules{broken}")
    return [found[job.scenario] for job in jobs]


def replay(token: str, mutation: str | None, say: Say) -> Outcome:
    """Run one schedule, `scenario:choices`."""
    name, _, choices = token.partition(":")
    with _server(say) as databases, world_on(databases.make_empty()) as world:
        if mutation:
            named(mutation).apply(world)
        return Play(world, scenario_of(name), replayer(choices)).run()


def scenario_of(name: str) -> Scenario:
    """Raises KeyError."""
    return {scenario.name: scenario for scenario in SCENARIOS}[name]


@contextlib.contextmanager
def world_on(url: str) -> Iterator[World]:
    """A world on an empty database, which it makes its own."""
    prepare(url)
    database = Database(url, Clock())
    try:
        yield World(database, database.clock)
    finally:
        database.close()


def explore(world: World, job: Job, *, most: int | None = None) -> Tally:
    """Explore one scenario; of what it finds, the shortest way there."""
    scenario = scenario_of(job.scenario)
    search = Search(world, scenario, job.seed)
    seen: dict[str, Outcome] = {}
    for number, outcome in enumerate(search.run(job.seconds, most=most)):
        for broken in outcome.broken:
            if broken.promise not in seen and len(seen) < _SHOWN:
                seen[broken.promise] = outcome
        if number % _EMPTY_AFTER == _EMPTY_AFTER - 1:
            world.database.empty()
    tally = search.tally
    for promise, outcome in seen.items():
        short = shortest(world, scenario, outcome, promise)
        detail = next(str(broken) for broken in short.broken if broken.promise == promise)
        tally.faults.append(Fault(promise, detail, short.token, tuple(short.lines)))
    return tally


@contextlib.contextmanager
def _server(say: Say) -> Iterator[Databases]:
    services = Services(say)
    try:
        databases = Databases(services.postgres_url())
        yield databases
    finally:
        services.stop()


_world: World | None = None


def _begin(urls: object) -> None:
    """In each process, once."""
    global _world
    quiet()
    url = urls.get()  # type: ignore[attr-defined]
    prepare(url)
    database = Database(url, Clock())
    _world = World(database, database.clock)


def quiet() -> None:
    """Nothing of the product's is logged: thousands of its workers die here."""
    configure("error", "json")
    logging.disable(logging.CRITICAL)
    # Of those that died in a call.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)


def _explore_here(job: Job) -> Tally:
    assert _world is not None
    if job.mutation:
        named(job.mutation).apply(_world)
    return explore(_world, job)
