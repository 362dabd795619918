"""Equal texts to one number: workers are killed while pairs are in progress, of which the provider accepts one or
two.

    python -m chaos.pairs [--kills 200] [--seed N]

Like `chaos.kills`, but every text is sent twice, as two messages with the same words to the same number; for some
pairs the provider refuses one with a 500. In the end no message of the provider may belong to two notifications,
and no number may have more texts recorded as sent than the provider accepted for it.
"""

from __future__ import annotations

import argparse
import json
import logging
import secrets
import shutil
import signal
import sys
from collections import Counter
from contextlib import ExitStack
from dataclasses import replace
from typing import Any

import psycopg

from chaos.kills import Kills
from chaos.load import Load
from notifier.dev.machine import make_temporary_folder
from notifier.dev.twilio_faults import TwilioRule
from tests.provisioning.services import MissingService

_SHARED = """SELECT count(*) FROM (
  SELECT provider_message_id FROM attempts WHERE provider_message_id IS NOT NULL
  GROUP BY provider_message_id HAVING count(DISTINCT notification_id) > 1) AS shared"""


class PairKills(Kills):
    """The same workers, with pairs."""

    mix = replace(Kills.mix, in_pairs=True, rate=30.0, repeat=0.0)

    def __init__(self, stack: ExitStack, folder: Any, seed: int) -> None:
        super().__init__(stack, folder, seed)
        # For every third number, the first call is not accepted, and nobody learns this.
        self._faults.add(TwilioRule("*[0-2]", status=500, times=1))

    def _result(self, load: Load, tally: Any) -> dict[str, Any]:
        whole = super()._result(load, tally)
        taken = Counter(sms.to for sms in self._twilio.messages)
        sent: Counter[str] = Counter()
        with psycopg.connect(self._database_url) as connection:
            found: dict[Any, Any] = dict(connection.execute("SELECT id, status FROM notifications").fetchall())
            events = connection.execute("SELECT count(*) FROM events WHERE kind = 'provider_message'").fetchone()
        for message in load.messages:
            sent[message.to] += found.get(message.id, "") in ("sent", "delivered", "undelivered")
        names = ("kills", "where", "after_a_call_began", "with_a_call_under_way", "seed", "messages", "lost")
        return {name: whole[name] for name in names} | {
            "pairs": len({message.to for message in load.messages}),
            "statuses": whole["statuses"],
            "taken": sum(taken.values()),
            "pairs_of_which_one_was_taken": sum(count == 1 for count in taken.values()),
            "on_two_notifications": self._scalar(_SHARED),
            "numbers_with_more_sent_than_taken": sum(count > taken[to] for to, count in sent.items()),
            "calls_beyond_one_each": sum(max(0, count - 2) for count in self._faults.calls.values()),
            "put_right": events[0] if events else 0,
            "unlawful": whole["unlawful"],
            "crashes": whole["crashes"],
        }


def main() -> int:
    """Returns 0 only if no message belongs to two notifications, and nothing was lost."""
    parser = argparse.ArgumentParser(
        prog="python -m chaos.pairs", description="Equal texts to one number, under kills."
    )
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=secrets.randbelow(10_000), help="repeats a run's choices")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    logging.disable(logging.WARNING)
    folder = make_temporary_folder()
    try:
        with ExitStack() as stack:
            result = PairKills(stack, folder, arguments.seed).run(arguments.kills)
    except MissingService as missing:
        print(missing, file=sys.stderr)
        return 2
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(result, indent=1))
    wrong = ("lost", "left", "on_two_notifications", "numbers_with_more_sent_than_taken", "calls_beyond_one_each")
    return int(any(result[name] for name in (*wrong, "unlawful", "crashes")))


if __name__ == "__main__":
    sys.exit(main())
