"""A pooler in front of PostgreSQL, restarted under load: a real pgbouncer."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path

from chaos.world import Setup, Surroundings, World
from tests.support.pgbouncer import find_or_install_pgbouncer, pgbouncer

_LACKS = "needs pgbouncer: run `sudo apt-get install pgbouncer` (macOS: `brew install pgbouncer`)"
#: From this version on, it can keep prepared statements in transaction mode; before, only in session mode.
_KEEPS_PREPARED = (1, 21)
_MANY = {"max_client_conn": "500", "default_pool_size": "20", "reserve_pool_size": "0"}
_IGNORING = {"ignore_startup_parameters": "extra_float_digits,options"}


def refusing_options(_program: Path) -> dict[str, str]:
    """The pooler's default settings."""
    return {"pool_mode": "transaction"}


def ignoring_options(_program: Path) -> dict[str, str]:
    """Settings that somebody makes after meeting the problem with the defaults."""
    return {"pool_mode": "transaction", **_IGNORING}


def keeping_prepared(program: Path) -> dict[str, str]:
    """Prepared statements outlive transactions."""
    said = subprocess.run([program, "--version"], capture_output=True, text=True, check=True, timeout=20).stdout
    version = re.search(r"(\d+)\.(\d+)", said)
    if version and (int(version[1]), int(version[2])) >= _KEEPS_PREPARED:
        return {"pool_mode": "transaction", "max_prepared_statements": "200", **_IGNORING}
    # Each of our connections has a session of its own.
    return {"pool_mode": "session", "default_pool_size": "110", **_IGNORING}


def before_postgres(name: str, settings: Callable[[Path], dict[str, str]]) -> Setup:
    """Programs and producers reach PostgreSQL through a pooler with these settings."""

    def begin(world: World, stack: ExitStack) -> Surroundings:
        program = find_or_install_pgbouncer()
        assert program is not None
        given = {**_MANY, **settings(program)}
        world.pooler = stack.enter_context(pgbouncer(program, world.postgres.url, given))
        stack.callback(_no_pooler, world)
        return Surroundings()

    return Setup(name, begin=begin, lacks=lambda: "" if find_or_install_pgbouncer() else _LACKS)


def _no_pooler(world: World) -> None:
    world.pooler = None


def restart(times: int) -> Callable[[World], None]:
    """The pooler is killed, or ended at once, and comes back; the sessions behind it are terminated as well."""

    def fault(world: World) -> None:
        pooler = world.pooler
        assert pooler is not None
        for _ in range(times):
            world.pause(1.5)
            world.rng.choice([pooler.kill, pooler.stop])()
            world.strike()
            world.pause(1.5)
            pooler.start()
            world.pause(1.5)
            world.strike(world.postgres.terminate_backends())
        told = set(world.running_fleet.have_said(b"database.pooled"))
        silent = [name for name in world.running_fleet.names("worker") if name not in told]
        world.notes += [f"{name} has not seen a pooler, so this shows nothing" for name in silent]

    return fault
