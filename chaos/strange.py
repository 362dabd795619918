"""Strange messages on every queue: nothing that is published is lost, and no program ends.

    python -m chaos.strange [--count 10000] [--seed N] [--broker rabbitmq|redis]

The programs run as in production, on RabbitMQ and then on a Redis-protocol broker. Messages with randomly mutated
properties, headers, bodies, envelopes and keys, mixed with good ones, are published to the queues of producers, of
tasks and of remote control (`tests.support.strange`). In the end every message in the producers' queues must be
accepted, rejected or a duplicate, an ordinary message must still arrive on every lane, and the process ids must be
the same as at the beginning.
"""

from __future__ import annotations

import argparse
import json
import logging
import secrets
import shutil
import sys
from typing import Any

from notifier.dev.machine import make_temporary_folder
from tests.provisioning.commands import run_in_order, say
from tests.provisioning.databases import Databases
from tests.provisioning.services import Services
from tests.support.strange.attacking import attack, is_right

BROKERS = ("rabbitmq", "redis")
COUNT = 10_000


def attack_both(count: int, seed: int, brokers: tuple[str, ...] = BROKERS) -> list[dict[str, Any]]:
    """Attack one broker after the other. Returns the results."""
    services, found = Services(say), []
    folder = make_temporary_folder()
    try:
        databases = Databases(services.postgres_url())
        for broker in brokers:
            is_redis = broker == "redis"
            url = services.redis_server().make_database() if is_redis else services.amqp_server().make_vhost()
            database_url = databases.make()
            figures = attack(database_url, url, folder / broker, count=count, seed=seed)
            found.append({"broker": broker, **figures})
        databases.close()
    finally:
        services.stop()
        shutil.rmtree(folder, ignore_errors=True)
    return found


def tell(found: list[dict[str, Any]]) -> bool:
    """Print the results. Returns whether they are as they should be."""
    for figures in found:
        mark = "✓" if is_right(figures) else "✗"
        say(f"{mark} strange messages on {figures['broker']}: {json.dumps(figures)}")
    return all(is_right(figures) for figures in found)


def main() -> int:
    """Returns 0 only if nothing is missing and no program has ended."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos.strange", description="Strange messages on every queue; nothing may be lost or end."
    )
    parser.add_argument("--count", type=int, default=COUNT, help="messages on each broker")
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000), help="repeats a run's choices")
    parser.add_argument("--broker", choices=BROKERS, help="only this one")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    brokers = (options.broker,) if options.broker else BROKERS
    say(f"seed {options.seed}: repeat these choices with --seed {options.seed}")
    return run_in_order(lambda: 0 if tell(attack_both(options.count, options.seed, brokers)) else 1)


if __name__ == "__main__":
    sys.exit(main())
