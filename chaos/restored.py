"""Replaces the database by an older copy of itself while programs run, as when a backup is restored."""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from uuid import UUID

import psycopg
from psycopg import sql

from chaos.provider_faults import refusing_for_now
from chaos.world import World
from notifier.dev.embedded.postgres import DATABASE
from tests.provisioning.databases import with_database

_BACKUP = f"{DATABASE}_backup"
#: The database before the restore: its attempts belong to the books.
_FIRST = f"{DATABASE}_first"
_ROOT = Path(__file__).parents[1]
#: Calls that were in progress have ended by then.
_CALMS_DOWN_SECONDS = 8.0
_HELD = "status = 'unknown' AND reason = 'restored'"


def restored_backup(world: World) -> None:
    """Messages are on their way when the backup is made, all of them are sent after it, and then it is restored.

    Nobody stops the programs. They must send nothing that was in the backup until an operator releases it.
    """
    load = world.running_load
    world.pause(3)
    refusing_for_now(1.5)(world)
    for link in (world.mail_link, world.sms_link):
        link.hold()
    world.pause(0.7)
    load.is_held = True
    if not _wait(world, lambda: _are_in_record(world)):
        world.notes.append("the messages were not in the record within a minute, so this shows little")
    _copy(world)
    for link in (world.mail_link, world.sms_link):
        link.heal()
    if not _wait(world, lambda: not _count(world, "status IN ('queued', 'sending', 'retrying')")):
        world.notes.append("the first life did not send within a minute what was on its way")
    _replace(world)
    world.strike()
    load.is_held = False
    world.pause(_CALMS_DOWN_SECONDS)
    calls = world.providers.calls()
    world.pause(6)
    if world.providers.calls() != calls:
        world.notes.append("programs sent from a restored database that nobody had looked at")
    _command(world, "db", "after-restore", "--why", "the disk died", "--yes")
    held = _held(world)
    if not held:
        world.notes.append("nothing was held, so this shows nothing")
    world.pause(6)
    later = world.providers.calls()
    again = sum(later[to] - calls[to] for to in held.values())
    if again or len(_held(world)) != len(held):
        world.notes.append(f"{again} calls for what is held, of which {len(_held(world))} of {len(held)} are left")
    if later == calls:
        world.notes.append("nothing new was sent after the database had been accepted")
    _decide(world, held)


def _decide(world: World, held: dict[UUID, str]) -> None:
    """Decide as an operator with the providers' logs would: what they have is sent, the rest is released."""
    taken = world.providers.accepted()
    sent = [str(id_) for id_, to in held.items() if taken[to]]
    others = [str(id_) for id_, to in held.items() if not taken[to]]
    for page in _pages(sent):
        _command(world, "resolve", *page, "--sent", "--why", "in the provider's log")
    for page in _pages(others):
        _command(world, "db", "after-restore", "--release", *page, "--why", "not in the provider's log")
    _command(world, "callbacks", "replay", "--failure", "restored", "--why", "restored", "--yes")


def _pages(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[start : start + 500] for start in range(0, len(ids), 500)]


def _command(world: World, *arguments: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "notifier", *arguments],
        cwd=_ROOT,
        env=world.program_environment(),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    if done.returncode:
        words = f"{done.stdout}{done.stderr}".strip().splitlines()
        world.notes.append(f"notifier {' '.join(arguments[:2])} failed: {words[-1:]}")


def _copy(world: World) -> None:
    """Make a backup. PostgreSQL only copies a database without connections, which programs see as an outage."""
    with _nobody_in(world, DATABASE) as admin:
        admin.execute(f"CREATE DATABASE {_BACKUP} TEMPLATE {DATABASE}")


def _replace(world: World) -> None:
    with _nobody_in(world, DATABASE) as admin:
        admin.execute(f"ALTER DATABASE {DATABASE} RENAME TO {_FIRST}")
        admin.execute(f"ALTER DATABASE {_BACKUP} RENAME TO {DATABASE}")
    world.books.first_life = with_database(world.postgres.url, _FIRST)


@contextlib.contextmanager
def _nobody_in(world: World, database: str) -> Iterator[psycopg.Connection]:
    """End the sessions in that database, and allow no new ones."""
    with psycopg.connect(with_database(world.postgres.url, "postgres"), autocommit=True) as admin:
        admin.execute(f"ALTER DATABASE {database} ALLOW_CONNECTIONS false")
        try:
            admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [database]
            )
            yield admin
        finally:
            names = admin.execute("SELECT datname FROM pg_database WHERE NOT datallowconn AND NOT datistemplate")
            for (name,) in names.fetchall():
                admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(sql.Identifier(name)))


def _are_in_record(world: World) -> bool:
    wanted = [message.id for message in world.running_load.messages if message.confirmed]
    with psycopg.connect(world.postgres.url, connect_timeout=5) as connection:
        row = connection.execute("SELECT count(*) FROM notifications WHERE id = ANY(%s)", [wanted]).fetchone()
    return row == (len(wanted),) and not world.outbox_rows()


def _count(world: World, condition: str) -> int:
    with psycopg.connect(world.postgres.url, connect_timeout=5) as connection:
        row = connection.execute(f"SELECT count(*) FROM notifications WHERE {condition}").fetchone()
    return int(row[0]) if row else 0


def _held(world: World) -> dict[UUID, str]:
    with psycopg.connect(world.postgres.url, connect_timeout=5) as connection:
        return dict(connection.execute(f"SELECT id, recipient FROM notifications WHERE {_HELD}").fetchall())


def _wait(world: World, done: Callable[[], bool]) -> bool:
    ends_at = time.monotonic() + 60
    while time.monotonic() < ends_at:
        if done():
            return True
        world.pause(0.3)
    return False
