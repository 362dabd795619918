"""The explorer's processes: one for each core, each with its own database on one PostgreSQL in memory."""

from __future__ import annotations

import contextlib
import gc
import logging
import re
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context

from chaos.explore.clock import Clock
from chaos.explore.database import Database, make_clock_movable
from chaos.explore.kept import KEPT
from chaos.explore.mutations import MUTATIONS, named
from chaos.explore.scenarios import SCENARIOS
from chaos.explore.schedule import Outcome, Play, Scenario
from chaos.explore.search import Fault, Search, Tally, replayer, shortest
from chaos.explore.world import World
from notifier.config.logs import configure
from tests.provisioning.databases import Databases
from tests.provisioning.services import Services

Say = Callable[[str], None]

#: Schedules between two clean-ups of the tables.
_EMPTY_AFTER = 1500
#: Maximum faults of one scenario whose steps are searched for and shown.
_SHOWN = 6


@dataclass(frozen=True, slots=True)
class Job:
    scenario: str
    seconds: float
    seed: int
    mutation: str | None = None


def explore_all(jobs: Sequence[Job], processes: int, say: Say) -> tuple[list[Tally], dict[str, Outcome]]:
    """Run the kept schedules again, then all jobs. Returns the jobs' tallies in the same order, and the outcomes
    of the kept schedules."""
    with _server(say) as databases, _pool(databases, processes) as pool:
        kept = dict(zip(KEPT, pool.map(_play_here, KEPT), strict=True))
        futures = {pool.submit(_explore_here, job): job for job in jobs}
        found = {}
        for future in as_completed(futures):
            tally = future.result()
            found[tally.scenario] = tally
            broken = f": NOT KEPT {', '.join(fault.promise for fault in tally.faults)}" if tally.faults else ""
            say(f"{tally.scenario}: {tally.schedules} schedules{broken}")
    return [found[job.scenario] for job in jobs], kept


def prove(pattern: str, seconds: float, processes: int, say: Say) -> bool:
    """Put back each fault whose name matches, in a separate process, and search for it. Returns whether all were
    found."""
    mutations = [mutation for mutation in MUTATIONS if re.search(pattern, mutation.name)]
    names = [mutation.name for mutation in mutations]
    found: list[Fault | None] = []
    with _server(say) as databases:
        while len(found) < len(names):
            with contextlib.ExitStack() as stack:
                batch = names[len(found) : len(found) + processes]
                pools = [stack.enter_context(_pool(databases, 1)) for _ in batch]
                futures = [pool.submit(_find_here, name, seconds) for pool, name in zip(pools, batch, strict=True)]
                found += [future.result() for future in futures]
    for mutation, fault in zip(mutations, found, strict=True):
        if fault is None:
            say(f"NOT FOUND  {mutation.name}: {mutation.what}")
        else:
            say(f"found  {mutation.name}: {mutation.what}")
            say("\n".join(f"  {line}" for line in (*fault.lines, fault.detail)))
    return None not in found


def replay(token: str, mutation: str | None, say: Say) -> Outcome:
    """Run one schedule, `scenario:choices`."""
    quiet()
    with _server(say) as databases, world_on(databases.make()) as world:
        if mutation:
            named(mutation).apply(world)
        return play(world, token)


def play(world: World, token: str) -> Outcome:
    name, _, choices = token.partition(":")
    return Play(world, scenario_of(name), replayer(choices)).run()


def scenario_of(name: str) -> Scenario:
    """The scenario of this name. Raises KeyError."""
    return {scenario.name: scenario for scenario in SCENARIOS}[name]


@contextlib.contextmanager
def world_on(url: str) -> Iterator[World]:
    """A world on a migrated database, which it takes over."""
    make_clock_movable(url)
    database = Database(url, Clock())
    try:
        yield World(database, database.clock)
    finally:
        database.close()


def explore(world: World, job: Job, *, until: str | None = None) -> Tally:
    """Explore one scenario, keeping the shortest schedule for each fault found. Stops early when the promise
    `until` is broken."""
    scenario = scenario_of(job.scenario)
    search = Search(world, scenario, job.seed)
    seen: dict[str, Outcome] = {}
    for number, outcome in enumerate(search.run(job.seconds)):
        for broken in outcome.broken:
            if broken.promise not in seen and len(seen) < _SHOWN:
                seen[broken.promise] = outcome
        if until in seen:
            break
        if number % _EMPTY_AFTER == _EMPTY_AFTER - 1:
            world.database.empty()
    tally = search.tally
    for promise, outcome in seen.items():
        short = shortest(world, scenario, outcome, promise)
        detail = next(str(broken) for broken in short.broken if broken.promise == promise)
        tally.faults.append(Fault(promise, detail, short.token, tuple(short.lines)))
    return tally


@contextlib.contextmanager
def _pool(databases: Databases, processes: int) -> Iterator[ProcessPoolExecutor]:
    """Processes that each have a world."""
    # With fork, all modules are already loaded, and no extra resource-tracker process is started.
    context = get_context("fork")
    urls = context.SimpleQueue()
    for _ in range(processes):
        urls.put(databases.make())
    with ProcessPoolExecutor(processes, context, _begin, (urls,)) as pool:
        yield pool


@contextlib.contextmanager
def _server(say: Say) -> Iterator[Databases]:
    services = Services(say)
    try:
        databases = Databases(services.postgres_url())
        yield databases
        databases.close()
    finally:
        services.stop()


_world: World | None = None


def _begin(urls: object) -> None:
    """Runs once in each process."""
    global _world
    quiet()
    url = urls.get()  # type: ignore[attr-defined]
    make_clock_movable(url)
    database = Database(url, Clock())
    _world = World(database, database.clock)
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000, 10, 10)


def quiet() -> None:
    """Log nothing of the product, because thousands of its workers die here."""
    configure("error", "json")
    logging.disable(logging.CRITICAL)
    # Coroutines of workers that died in a call.
    warnings.filterwarnings("ignore", "coroutine .* was never awaited", RuntimeWarning)


def _explore_here(job: Job) -> Tally:
    assert _world is not None
    if job.mutation:
        named(job.mutation).apply(_world)
    return explore(_world, job)


def _play_here(token: str) -> Outcome:
    assert _world is not None
    return play(_world, token)


def _find_here(name: str, seconds: float) -> Fault | None:
    assert _world is not None
    mutation = named(name)
    mutation.apply(_world)
    tally = explore(_world, Job(mutation.scenario, seconds, 1), until=mutation.promise)
    return next((fault for fault in tally.faults if fault.promise == mutation.promise), None)
