"""Undoes a wrong DELETE: goes back to the moment before it, with a base backup and the archived log.

    python examples/drills/point_in_time.py

Each step is one from docs/how-to/back-up-and-restore.md.
"""

from __future__ import annotations

import sys
import time

from cluster import Postgres, stopped_at_end
from service import PROGRAMS, Counts, Drill, running_drill, say, temporary_folder, wait

from notifier.dev.machine import give, server_account

MESSAGES = 100
#: Programs that might send something have done so by then. Seconds.
LOOKED_AT = 8.0


def drill() -> Counts:
    with temporary_folder() as folder:
        give(folder / "archive", server_account())
        archive = f"archive_command=test ! -f {folder}/archive/%f && cp %p {folder}/archive/%f"
        old = Postgres(folder, "old", "archive_mode=on", archive)
        new = Postgres(folder, "new", f"restore_command=cp {folder}/archive/%f %p")
        with stopped_at_end(old, new):
            old.make()
            with running_drill(folder=folder, environment={"NOTIFIER_DATABASE_URL": old.url()}) as drill:
                new.copy(old)
                say("a base backup was made")
                return _go_back(drill, old, new)


def _go_back(drill: Drill, old: Postgres, new: Postgres) -> Counts:
    drill.start("intake", "beat")
    drill.publish(MESSAGES)
    wait("all messages are in the record", lambda: drill.statuses() == {"queued": MESSAGES})
    moment = old.ask("SELECT clock_timestamp()")
    drill.start("worker")
    wait("half of them are sent", lambda: len(drill.arrived()) >= MESSAGES // 2)
    drill.stop("worker")
    sent = len(drill.arrived())
    old.execute("DELETE FROM events", "SELECT pg_switch_wal()")
    say(f"{sent} of {MESSAGES} were sent after {moment}; then somebody deleted every event")
    _restore(drill, old, new, moment)
    drill.start(*(name for name in PROGRAMS if name not in drill.running))
    time.sleep(LOOKED_AT)
    if len(drill.arrived()) != sent:
        raise SystemExit("programs sent from a restored database that nobody had looked at")
    say(drill.command("db", "after-restore", "--dry-run").splitlines()[0])
    drill.command("db", "after-restore", "--why", "drill", "--yes")
    wait("all are held", lambda: drill.statuses() == {"unknown": MESSAGES})
    events = new.ask("SELECT count(*) FROM events")
    say(f"nothing was sent again; {MESSAGES} are held; events that are back: {events}")
    drill.decide()
    wait("all are sent", lambda: drill.statuses() == {"sent": MESSAGES})
    return drill.count()


def _restore(drill: Drill, old: Postgres, new: Postgres, moment: str) -> None:
    """Restore the base backup, replay the archived log up to the moment, and take the place of the old server."""
    old.stop()
    old.socket, new.socket = new.socket, old.socket
    new.settings += (f"recovery_target_time={moment}", "recovery_target_action=promote")
    new.touch("recovery.signal")
    new.start()
    wait("the recovery ends", lambda: new.ask("SELECT pg_is_in_recovery()") == "False")
    # What it sent is recorded only in the old server.
    old.start()
    drill.earlier.append(old.url())


if __name__ == "__main__":
    sys.exit(not drill().is_good)
