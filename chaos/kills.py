"""A thousand kills at random points: with the policy `hold`, no message reaches its provider twice.

    python -m chaos.kills [--kills 1000] [--seed N]

Each round, a fresh worker process delivers a few SMS and is killed with SIGKILL after a random time, anywhere
between its start and its end. Then time passes (leases end, the sweep runs), and the next one continues with what
is left. The processes are forked from one that has everything imported, so that a thousand of them take minutes.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from uuid import UUID

from sqlalchemy import Engine, text

from notifier.config import bundled
from notifier.dev.twilio_server import ACCOUNT_SID, AUTH_TOKEN, TwilioServer, running_twilio_server
from notifier.message import Message
from notifier.parsing import check
from notifier.status import Channel, Lane, OnUnknown
from notifier.store.engine import make_engine, transaction
from notifier.store.ledger import Ledger
from notifier.store.values import NewNotification
from tests.databases import Databases
from tests.services import Services

#: New messages of each round.
NEW = 3


def nursery() -> None:
    """The process that forks the workers: seconds and ids come in, "killed" or "ended" goes out."""
    from notifier.bootstrap import DeliveryLoop
    from notifier.bootstrap import Services as Parts
    from notifier.config import load_settings
    from notifier.providers import twilio  # noqa: F401 - what takes longest to import

    settings = load_settings()
    for line in sys.stdin:
        seconds, *ids = line.split()
        pid = os.fork()
        if pid == 0:
            delivery = DeliveryLoop(Parts(settings, pool_size=2))
            delivery.deliverer.deliver([UUID(value) for value in ids])
            os._exit(0)
        time.sleep(float(seconds))
        # Nobody else has this pid before we have waited for it, even if it has ended.
        os.kill(pid, signal.SIGKILL)
        _, status = os.waitpid(pid, 0)
        print("killed" if os.WIFSIGNALED(status) else "ended", flush=True)


def accept(ledger: Ledger, numbers: list[str]) -> None:
    """New messages, each to a number of its own."""
    batch = []
    for position, number in enumerate(numbers):
        fields = {"code": "042137", "valid_minutes": 10}
        message = Message(
            idempotency_key=number, producer="chaos", to=number, template="login_code", context=fields
        )
        checked = check(message, Channel.SMS, Lane.URGENT)
        batch.append(NewNotification(checked, Channel.SMS, Lane.URGENT, "1", OnUnknown.HOLD, position))
    ledger.accept(batch)


def queued(engine: Engine, ledger: Ledger) -> list[str]:
    """Let time pass: leases end, pauses are over, the sweep runs. Returns what waits for a worker."""
    due = "UPDATE notifications SET due_at = now() WHERE due_at IS NOT NULL AND status <> 'queued'"
    with transaction(engine) as connection:
        connection.execute(text(due))
        connection.execute(text("UPDATE provider_states SET open_until = NULL"))
    for _ in range(2):
        ledger.take_due(limit=1000, unknown_after_seconds=30)
    with transaction(engine) as connection:
        found = connection.execute(text("SELECT id FROM notifications WHERE status = 'queued' LIMIT 50")).scalars()
        return [str(value) for value in found]


def run(kills: int, seed: int, database_url: str, twilio: TwilioServer) -> dict[str, object]:
    """The rounds, and what they came to."""
    chance = random.Random(seed)
    engine = make_engine(database_url)
    ledger = Ledger(engine)
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("NOTIFIER_")},
        "NOTIFIER_DATABASE_URL": database_url,
        "NOTIFIER_CONFIG": str(bundled("notifier.toml")),
        "NOTIFIER_TWILIO_ACCOUNT_SID": ACCOUNT_SID,
        "NOTIFIER_TWILIO_AUTH_TOKEN": AUTH_TOKEN,
        "NOTIFIER_TWILIO_API_BASE": twilio.url,
    }
    process = subprocess.Popen(
        [sys.executable, "-m", "chaos.kills", "--nursery"],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment,
    )  # fmt: skip
    assert process.stdin is not None
    assert process.stdout is not None
    killed = rounds = 0
    longest = 0.3
    begun = time.monotonic()
    while killed < kills:
        rounds += 1
        accept(ledger, [f"+1555{rounds:06d}{n}" for n in range(NEW)])
        seconds = chance.uniform(0, longest)
        process.stdin.write(f"{seconds} {' '.join(queued(engine, ledger))}\n")
        process.stdin.flush()
        was_killed = process.stdout.readline().strip() == "killed"
        killed += was_killed
        # Kills spread over the whole life of a worker, whatever this machine's speed.
        longest = longest * 1.02 if was_killed else longest * 0.97
        if rounds % 50 == 0:
            print(f"{killed} of {kills} kills, {twilio.received} calls", file=sys.stderr)
    process.stdin.close()
    process.wait(timeout=30)
    queued(engine, ledger)
    with transaction(engine) as connection:
        rows = connection.execute(text("SELECT recipient, status, attempt_count FROM notifications")).all()
    engine.dispose()
    # What the server took, whether anybody lived to read its answer or not.
    calls = Counter(message.to for message in twilio.messages)
    return {
        "kills": killed,
        "rounds": rounds,
        "seed": seed,
        "messages": len(rows),
        "statuses": dict(Counter(row.status for row in rows)),
        "provider_calls": sum(calls.values()),
        "most_calls_of_one_message": max(calls.values(), default=0),
        "called_without_attempt": sum(1 for row in rows if calls[row.recipient] > row.attempt_count),
        "sent_without_call": sum(1 for row in rows if row.status == "sent" and not calls[row.recipient]),
        "seconds": round(time.monotonic() - begun),
    }


def main() -> int:
    """0 only if no message was called for twice and every call has its attempt."""
    parser = argparse.ArgumentParser(
        description="Kill workers at random points; no held message may go out twice."
    )
    parser.add_argument("--kills", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000))
    parser.add_argument("--nursery", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.nursery:
        nursery()
        return 0
    services = Services(lambda line: print(line, file=sys.stderr))
    try:
        databases = Databases(services.postgres_url())
        with running_twilio_server() as twilio:
            result = run(arguments.kills, arguments.seed, databases.make(), twilio)
        databases.close()
    finally:
        services.stop()
    Path(__file__).with_name("kills.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))
    wrong = ("called_without_attempt", "sent_without_call")
    return int(result["most_calls_of_one_message"] != 1 or any(result[name] for name in wrong))


if __name__ == "__main__":
    sys.exit(main())
