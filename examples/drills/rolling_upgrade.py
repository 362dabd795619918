"""A rolling upgrade under load: first the tables, then one program after the other, while messages keep coming.

    python examples/drills/rolling_upgrade.py [--old /opt/notifier-old/bin/python]

With --old, the programs of that environment are replaced by those of this one; without it, by themselves.
"""

from __future__ import annotations

import argparse
import sys

from service import PROGRAMS, Counts, running_drill, say, wait


def drill(old: str = sys.executable) -> Counts:
    """`old`: Python of the version from which to upgrade."""
    with running_drill(old) as drill:
        drill.start(*PROGRAMS)
        with drill.load():
            drill.wait_for_more("the first mails arrive")
            drill.python = sys.executable
            say(drill.command("db", "upgrade").splitlines()[0])
            for name in PROGRAMS:
                drill.stop(name)
                drill.start(name)
                drill.wait_for_more(f"mails arrive with the new {name}")
                so_far = len(drill.arrived())
                say(f"{name}: stopped with what it had in hand, started anew, {so_far} mails so far")
        wait("all mails are sent", lambda: drill.statuses() == {"sent": drill.published})
        return drill.count()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="A rolling upgrade under load, counted.")
    parser.add_argument("--old", default=sys.executable, help="Python of the version to upgrade from")
    sys.exit(not drill(parser.parse_args().old).is_good)
