"""A name server that answers nothing for one producer's endpoints, and then nothing at all."""

from __future__ import annotations

import time
from contextlib import ExitStack

import psycopg

from chaos.endpoint import SECRET
from chaos.fleet import PROGRAMS
from chaos.world import Setup, Surroundings, World
from notifier.client.client import Client
from tests.support.name_server import NEVER, name_server
from tests.waiting import slowness

_HOST = "hooks.example.com"
_SLOW = "slow"
_COUNT = 100
#: On an idle machine, half of the others' callbacks are delivered within this. A look-up without an answer takes
#: longer.
_SOON_SECONDS = 2.5

_CALLERS = {f"callbacks-{n}": ("callbacks", "run", "--name", f"callbacks-{n}@%h") for n in (1, 2)}
_WORKERS = {name: (*command, "--no-callbacks") for name, command in PROGRAMS.items() if command[0] == "worker"}


def _begin(world: World, stack: ExitStack) -> Surroundings:
    world.names = stack.enter_context(name_server({_HOST: ("127.0.0.1",)}, {"never": NEVER}))
    # The next fleet has another name server.
    stack.callback(_park, world)
    url = world.endpoint.url.replace("127.0.0.1", _HOST)
    file = world.configuration(url, f'[callbacks.{_SLOW}]\nsecrets = ["{SECRET}"]\nstatuses = ["sent"]\n')
    return Surroundings(
        {
            "NOTIFIER_CONFIG": str(file),
            "NOTIFIER_CALLBACK_NAME_SERVERS": world.names.address,
            "NOTIFIER_CALLBACK_ALLOW_HOSTS": _HOST,
        }
    )


OWN_CALLERS = Setup("with programs that only call back", {**PROGRAMS, **_WORKERS, **_CALLERS}, _begin)


def slow_names(world: World) -> None:
    """A hundred names without an answer, while other producers are notified; then no answers at all, and callback
    programs that die."""
    names = world.names
    assert names is not None
    assert world.broker is not None
    with Client(world.broker_url(world.broker), producer=_SLOW, timeout_seconds=10) as client:
        for number in range(_COUNT):
            client.send(
                "notice",
                f"slow{number}@names.example.com",
                context={"number": number},
                channel="email",
                lane="urgent",
                callback_url=f"https://never{number}.example.com/",
            )
    _wait_until_asked(world)
    asked = time.time()
    world.pause(8)
    _judge_speed(world, asked)
    names.late = {"": NEVER}
    world.strike()
    world.pause(5)
    names.late = {"never": NEVER}
    for name in _CALLERS:
        world.running_fleet.kill(name)
        world.pause(1.5)


def _wait_until_asked(world: World) -> None:
    assert world.names is not None
    ends_at = time.monotonic() + 60
    while not any(name.startswith("never") for name in world.names.asked):
        if time.monotonic() > ends_at:
            world.notes.append("nobody asked for the slow names, so this shows nothing")
            return
        world.pause(0.1)
    world.strike()


def _judge_speed(world: World, since: float) -> None:
    query = """SELECT count(*), percentile_cont(0.5) WITHIN GROUP (
        ORDER BY extract(epoch FROM coalesce(settled_at, now()) - begun_at))
      FROM callbacks WHERE producer <> %s AND begun_at > to_timestamp(%s)"""
    with psycopg.connect(world.postgres.url, connect_timeout=5) as connection:
        count, median = connection.execute(query, [_SLOW, since]).fetchone() or (0, None)
    if not count or median > _SOON_SECONDS * slowness():
        world.notes.append(f"half of {count} callbacks of others took longer than {median or 0:.1f} s")


def _park(world: World) -> None:
    query = """UPDATE callbacks SET state = 'parked', failure = 'timeout', due_at = NULL, settled_at = now()
      WHERE producer = %s AND due_at IS NOT NULL"""
    if not world.postgres.is_running:
        return
    with psycopg.connect(world.postgres.url, connect_timeout=5) as connection:
        connection.execute(query, [_SLOW])


def check(world: World) -> list[str]:
    """Every mail of the slow producer is sent, and each of its callbacks exists and waits."""
    wrong = []
    sent = "SELECT count(*) FROM notifications WHERE producer = %s AND status = 'sent'"
    waiting = """SELECT count(DISTINCT notification_id) FROM callbacks
      WHERE producer = %s AND status = 'sent' AND state <> 'delivered'"""
    with psycopg.connect(world.postgres.url, connect_timeout=5) as connection:
        for what, query in (("mails were sent", sent), ("callbacks wait", waiting)):
            row = connection.execute(query, [_SLOW]).fetchone()
            if row != (_COUNT,):
                wrong.append(f"{row[0] if row else 0} of {_COUNT} {what} of the producer with the slow names")
    return wrong
