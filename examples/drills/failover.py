"""PostgreSQL fails over to its standby under load: the primary is killed, the standby promoted, nothing restarted.

    python examples/drills/failover.py [--asynchronous]

With synchronous replication nothing is lost. With --asynchronous the standby is behind when the primary dies, and
the drill shows what that costs. Each step is one from docs/how-to/back-up-and-restore.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from cluster import NAME, STREAMS, Postgres, streaming_pair
from service import PROGRAMS, SHORT_LEASE, Counts, Drill, running_drill, say, temporary_folder, wait

#: Programs that might send something have done so by then. Seconds.
LOOKED_AT = 8.0
#: How many messages are accepted, and sent or not, while the standby is behind.
BEHIND = 20


def drill() -> Counts:
    """Fail over to a synchronous standby."""
    with _pair({"NOTIFIER_TRUST_FAILOVER": "true"}) as (drill, a, b):
        a.execute("ALTER SYSTEM SET synchronous_standby_names = 'FIRST 1 (b)'", "SELECT pg_reload_conf()")
        wait("the standby is synchronous", lambda: a.ask(STREAMS.format("sync")) == "1")
        drill.start(*PROGRAMS)
        with drill.load():
            drill.wait_for_more("the first mails arrive")
            a.kill()
            drill.record_url = b.url()
            say(f"the primary was killed with {len(drill.arrived())} mails sent")
            time.sleep(3)
            b.promote()
            begun = time.monotonic()
            drill.wait_for_more("mails arrive again")
            say(f"the standby was promoted; 20 mails more {time.monotonic() - begun:.1f} s later")
        wait("all mails are sent", lambda: drill.statuses() == {"sent": drill.published})
        return drill.count()


def drill_asynchronous() -> Counts:
    """Fail over to a standby that is behind. What is lost with it is counted, and published again."""
    with _pair({}) as (drill, a, b):
        drill.start(*PROGRAMS)
        drill.publish(BEHIND)
        wait("all are sent", lambda: drill.statuses() == {"sent": BEHIND})
        wait("the standby has them", lambda: drill.ask(_SENT, b.url()) == {"sent": BEHIND})
        b.stop()
        drill.publish(BEHIND)
        wait("all are sent", lambda: drill.statuses() == {"sent": 2 * BEHIND})
        drill.stop("worker")
        drill.publish(BEHIND)
        wait("the last are recorded", lambda: drill.statuses() == {"sent": 2 * BEHIND, "queued": BEHIND})
        a.kill()
        say(f"the primary was killed; its standby is behind by {2 * BEHIND} messages, half of them sent")
        drill.record_url = b.url()
        b.start()
        b.promote()
        drill.start("worker")
        time.sleep(LOOKED_AT)
        if len(drill.arrived()) != 2 * BEHIND:
            raise SystemExit("programs sent from a database that nobody had looked at")
        drill.command("db", "after-restore", "--why", "drill", "--yes")
        say(f"in the record {sum(drill.statuses().values())} of {drill.published}: the others are gone")
        drill.publish_again(BEHIND)
        wait("all that is recorded is sent", lambda: drill.statuses() == {"sent": drill.published})
        # The record of their first copy is lost.
        return drill.count(shown=BEHIND)


_SENT = "SELECT status, count(*) FROM notifications GROUP BY status"


@contextmanager
def _pair(environment: dict[str, str]) -> Iterator[tuple[Drill, Postgres, Postgres]]:
    """A service on a primary `a` with a standby `b`, whose programs know both."""
    with temporary_folder() as folder, streaming_pair(folder) as (a, b):
        url = f"postgresql://{NAME}@{a.host},{b.host}/{NAME}?target_session_attrs=read-write"
        variables = {"NOTIFIER_DATABASE_URL": url, **SHORT_LEASE, **environment}
        with running_drill(folder=folder, environment=variables) as drill:
            yield drill, a, b


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A failover of PostgreSQL under load, counted.")
    parser.add_argument("--asynchronous", action="store_true", help="to a standby that is behind")
    sys.exit(not (drill_asynchronous if parser.parse_args().asynchronous else drill)().is_good)
