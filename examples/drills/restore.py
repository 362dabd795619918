"""Loads a backup while the programs run. Half of it was sent after the backup; every mail is sent once.

    python examples/drills/restore.py

pg_dump makes the backup, and pg_restore loads it. Each step is one from docs/how-to/back-up-and-restore.md.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import psycopg
from psycopg import sql
from service import PROGRAMS, Counts, Drill, running_drill, say, wait

from notifier.dev.embedded.binaries import postgres_package

MESSAGES = 200
#: Programs that might send something have done so by then. Seconds.
LOOKED_AT = 8.0


def drill() -> Counts:
    with running_drill() as drill:
        drill.start("intake", "beat")
        drill.publish(MESSAGES)
        wait("all messages are in the record", lambda: drill.statuses() == {"queued": MESSAGES})
        backup = Path(drill.environment["NOTIFIER_DATA_DIR"]) / "backup.dump"
        _run("pg_dump", "--format=custom", f"--file={backup}", drill.database_url)
        say(f"backed up with {MESSAGES} messages queued")

        drill.start("worker")
        wait("half of them are sent", lambda: len(drill.arrived()) >= MESSAGES // 2)
        drill.stop("worker")
        sent = len(drill.arrived())
        _restore(drill, backup)
        drill.start(*(name for name in PROGRAMS if name not in drill.running))
        say(f"{sent} were sent since; restored under the running programs")

        time.sleep(LOOKED_AT)
        if len(drill.arrived()) != sent:
            raise SystemExit("programs sent from a restored database that nobody had looked at")
        drill.command("db", "after-restore", "--why", "drill", "--yes")
        wait("all are held", lambda: drill.statuses() == {"unknown": MESSAGES})
        say(f"nothing was sent again; {MESSAGES} are held")
        drill.decide()
        wait("all are sent", lambda: drill.statuses() == {"sent": MESSAGES})
        return drill.count()


def _restore(drill: Drill, backup: Path) -> None:
    """Load it into a new database, which then takes the name and place of the old one."""
    url = drill.database_url
    server, _, query = url.partition("?")
    server, _, name = server.rpartition("/")
    with psycopg.connect(f"{server}/postgres?{query}", autocommit=True) as admin:
        admin.execute("CREATE DATABASE restored")
        _run("pg_restore", "--exit-on-error", f"--dbname={server}/restored?{query}", str(backup))
        old = sql.Identifier(name)
        # To programs, this looks like a database that is unreachable for a moment.
        admin.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(old))
        admin.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [name])
        admin.execute(sql.SQL("ALTER DATABASE {} RENAME TO before_the_restore").format(old))
        admin.execute(sql.SQL("ALTER DATABASE restored RENAME TO {}").format(old))
        admin.execute("ALTER DATABASE before_the_restore ALLOW_CONNECTIONS true")
    drill.earlier.append(f"{server}/before_the_restore?{query}")


def _run(program: str, *arguments: str) -> None:
    """Run one of PostgreSQL's own programs, of the version that is running."""
    subprocess.run([postgres_package() / "pginstall" / "bin" / program, *arguments], check=True)


if __name__ == "__main__":
    sys.exit(not drill().is_good)
