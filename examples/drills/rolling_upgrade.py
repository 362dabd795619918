"""A rolling upgrade under load: tables first, then one program after the other, while messages keep coming.

    python examples/drills/rolling_upgrade.py [--old /opt/notifier-old/bin/python]

With --old the programs of that environment are replaced by those of this one; without it, by themselves.
"""

from __future__ import annotations

import argparse
import sys
from threading import Event, Thread

from service import PROGRAMS, Drill, running_drill, wait


def main() -> int:
    parser = argparse.ArgumentParser(description="A rolling upgrade under load, counted.")
    parser.add_argument("--old", default=sys.executable, help="Python of the version to upgrade from")
    with running_drill(parser.parse_args().old) as drill:
        drill.start(*PROGRAMS)
        wait("the first mails arrive", lambda: _grows(drill, 20))
        stop = Event()
        load = Thread(target=_publish, args=(drill, stop))
        load.start()
        try:
            drill.python = sys.executable
            print(drill.command("db", "upgrade").splitlines()[0])
            for name in PROGRAMS:
                _replace(drill, name)
        finally:
            stop.set()
            load.join()
        wait("all mails are sent", lambda: drill.statuses() == {"sent": drill.published})
        return drill.report()


def _replace(drill: Drill, name: str) -> None:
    drill.stop(name)
    drill.start(name)
    before = len(drill.arrived())
    wait(f"mails arrive with the new {name}", lambda: len(drill.arrived()) > before + 20)
    print(f"{name}: stopped with what it had in hand, started anew, {len(drill.arrived())} mails so far")


def _grows(drill: Drill, least: int) -> bool:
    if not drill.published:
        drill.publish(least)
    return len(drill.arrived()) >= least


def _publish(drill: Drill, stop: Event) -> None:
    while not stop.wait(0.2):
        drill.publish(5)


if __name__ == "__main__":
    sys.exit(main())
