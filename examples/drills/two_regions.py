"""The first region is lost; the second continues with a standby that has everything and a broker of its own.

    python examples/drills/two_regions.py

What waited in the first region's broker is accepted when that is back. Both regions are on this machine; each step
is one from docs/how-to/back-up-and-restore.md.
"""

from __future__ import annotations

import sys

from cluster import Postgres, streaming_pair
from service import PROGRAMS, Counts, Drill, running_drill, say, temporary_folder, wait

from notifier.dev.embedded import EmbeddedValkey

#: Messages of each kind: waiting in the lost broker, queued in the record, new in the second region.
MESSAGES = 20


def drill() -> Counts:
    with (
        temporary_folder() as folder,
        streaming_pair(folder) as (first, second),
        running_drill(folder=folder, environment={"NOTIFIER_DATABASE_URL": first.url()}) as drill,
    ):
        drill.start("intake")
        drill.publish(MESSAGES)
        wait("they are in the record", lambda: drill.statuses() == {"queued": MESSAGES})
        drill.stop("intake")
        drill.publish(MESSAGES)
        wait("the standby has the record", lambda: _has_all(second, first))
        first.kill()
        say(f"the first region is lost with {MESSAGES} messages queued, and {MESSAGES} in its broker")
        second.promote()
        other = EmbeddedValkey(folder / "second")
        try:
            _go_on(drill, second.url(), other.start())
            return drill.count()
        finally:
            drill.kill_all()
            other.stop()


def _go_on(drill: Drill, database_url: str, broker_url: str) -> None:
    """Continue in the second region, with only the record of the first; then the first one's broker comes back."""
    lost_broker = drill.environment["NOTIFIER_BROKER_URL"]
    drill.environment |= {"NOTIFIER_DATABASE_URL": database_url, "NOTIFIER_BROKER_URL": broker_url}
    drill.start(*PROGRAMS)
    drill.command("db", "after-restore", "--why", "drill", "--yes")
    drill.publish(MESSAGES)
    wait("what is new is sent", lambda: drill.statuses().get("sent") == MESSAGES)
    drill.decide()
    wait("what was queued is sent", lambda: drill.statuses() == {"sent": 2 * MESSAGES})
    say("the second region sent what was queued, and what is new")
    # Programs of the second region go on, because retries are theirs.
    drill.running |= {f"{name} of the second region": drill.running.pop(name) for name in ("intake", "worker")}
    drill.environment["NOTIFIER_BROKER_URL"] = lost_broker
    # The worker also gets tasks for messages that were sent long ago, and finds nothing to claim.
    drill.start("intake", "worker")
    wait("what waited is sent", lambda: drill.statuses() == {"sent": 3 * MESSAGES})
    say("the lost broker is back; an intake and a worker of the second region read it empty")


_LAST = "SELECT pg_current_wal_lsn()"
_REPLAYED = "SELECT pg_last_wal_replay_lsn() >= '{}'"


def _has_all(standby: Postgres, primary: Postgres) -> bool:
    return standby.ask(_REPLAYED.format(primary.ask(_LAST))) == "True"


if __name__ == "__main__":
    sys.exit(not drill().is_good)
