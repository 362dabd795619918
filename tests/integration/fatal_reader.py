"""A reader as the program `notifier intake` runs it, whose process one body ends at once: for tests of kills.

    python -m tests.integration.fatal_reader BROKER_URL DATABASE_URL TEMPLATES

Whenever it ends, it is started again, as by a supervisor: a fresh process, forked from one that has loaded all.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from threading import Event

import redis

from notifier.config.logs import configure
from notifier.config.structure import Structure
from notifier.intake import Intake, Received, make_reader
from notifier.rendering import Renderer
from notifier.store.engine import make_engine
from notifier.store.ledger import Ledger

#: A body with this in it ends the process, as a fault in a library does, before anything is recorded.
FATAL = b"FATAL"


def main(broker_url: str, database_url: str, templates: str) -> None:
    """Supervise until SIGTERM; writes a line for each end."""
    make_reader(broker_url)
    while True:
        child = os.fork()
        if child == 0:
            _read(broker_url, database_url, Path(templates))
        signal.signal(signal.SIGTERM, lambda *_, child=child: (os.kill(child, signal.SIGKILL), os._exit(0)))
        status = os.waitpid(child, 0)[1]
        if broker_url.startswith("redis"):
            # The next one need not wait for half a minute to know that it is dead.
            with redis.Redis.from_url(broker_url) as client:
                for key in client.scan_iter(match="notifier:reader:*"):
                    client.delete(key)
        print(os.waitstatus_to_exitcode(status), flush=True)


def _read(broker_url: str, database_url: str, templates: Path) -> None:
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    configure("info", "json")
    intake = Intake(Ledger(make_engine(database_url)), Renderer(templates), Structure(), lambda *_: None)

    def handle(batch: Sequence[Received]) -> None:
        if any(FATAL in received.body and not received.faults for received in batch):
            os.kill(os.getpid(), signal.SIGKILL)
        intake.process(batch)

    make_reader(broker_url).run(handle, Event())


if __name__ == "__main__":
    main(*sys.argv[1:])
