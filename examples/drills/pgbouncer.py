"""The whole service through pgbouncer in transaction mode, which is killed and restarted under load.

    python examples/drills/pgbouncer.py

Needs pgbouncer: `apt-get install pgbouncer`. Its settings are those in docs/how-to/run-in-production.md.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from urllib.request import urlopen

from service import PROGRAMS, SHORT_LEASE, Counts, running_drill, say, wait

from notifier.dev.embedded.binaries import find_pgbouncer
from notifier.dev.embedded.pgbouncer import Pgbouncer
from notifier.dev.machine import free_port

LACKS = "needs pgbouncer: `apt-get install pgbouncer`, `brew install pgbouncer`"
_SETTINGS = {
    "pool_mode": "transaction",
    "default_pool_size": "40",
    "max_client_conn": "500",
    "ignore_startup_parameters": "options",
}


def is_there() -> bool:
    return find_pgbouncer() is not None


def drill() -> Counts:
    program = find_pgbouncer()
    if program is None:
        raise SystemExit(LACKS)
    port = free_port()
    with running_drill(environment={"NOTIFIER_API_PORT": str(port), **SHORT_LEASE}) as drill:
        folder = Path(drill.environment["NOTIFIER_DATA_DIR"])
        pooler = Pgbouncer(program, drill.database_url, folder / "pgbouncer", _SETTINGS)
        drill.record_url = drill.database_url
        drill.environment["NOTIFIER_DATABASE_URL"] = pooler.url
        try:
            pooler.start()
            drill.start(*PROGRAMS, "api")
            wait("the API is ready", lambda: _is_ready(port))
            with drill.load():
                drill.wait_for_more("the first mails arrive")
                seen = [name for name in drill.running if "database.pooled" in drill.log(name)]
                say(f"pgbouncer was noticed by {', '.join(seen)}")
                for name, end in (("SIGKILL", pooler.kill), ("SIGTERM", pooler.stop)):
                    end()
                    say(f"pgbouncer got {name} with {len(drill.arrived())} mails sent")
                    time.sleep(2)
                    pooler.start()
                    drill.wait_for_more("mails arrive again")
                    wait("the API is ready again", lambda: _is_ready(port))
                drill.command("db", "retention", "--now")
            wait("all mails are sent", lambda: drill.statuses() == {"sent": drill.published})
            drill.stop(*PROGRAMS, "api")
            return drill.count()
        finally:
            pooler.stop()


def _is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(not drill().is_good)
