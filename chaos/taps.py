"""Marked points: where in a call or a commit a fault strikes. They are recognised on the wire, so the programs
know nothing of them.

| point          | sign on the wire                          | what is known then                              |
|----------------|-------------------------------------------|-------------------------------------------------|
| `BEFORE_CALL`  | MAIL FROM, POST; not passed on            | attempt's row committed, provider never asked   |
| `DURING_CALL`  | RCPT TO, POST; passed on                  | a mail is surely not taken, an SMS perhaps      |
| `AFTER_DATA`   | final dot, body of the POST; passed on    | the provider takes it, nobody hears its answer  |
| `AFTER_ANSWER` | 250 queued, 201; passed on                | accepted and answered, result not committed yet |
| (commit)       | COMMIT to Postgres; passed on, no answer  | committed, but the program cannot know          |
| (relay)        | COMMIT of a relay; not passed on          | published and confirmed, still in the outbox    |
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from enum import StrEnum
from random import Random
from threading import Lock

from chaos.proxy import Link, Proxy, Strike, Tap


class Point(StrEnum):
    BEFORE_CALL = "before the call"
    DURING_CALL = "during the call"
    AFTER_DATA = "after the data, before the answer"
    AFTER_ANSWER = "after the answer, before the commit"


#: Point → whether the sign comes from the program, the sign in mail, the sign in SMS, and whether it is passed on.
_SIGNS: dict[Point, tuple[bool, re.Pattern[bytes], re.Pattern[bytes], bool]] = {
    Point.BEFORE_CALL: (True, re.compile(rb"\AMAIL FROM", re.I), re.compile(rb"\APOST "), False),
    Point.DURING_CALL: (True, re.compile(rb"\ARCPT TO", re.I), re.compile(rb"\APOST "), True),
    # The next mail's envelope may follow it.
    Point.AFTER_DATA: (True, re.compile(rb"\r\n\.\r\n(?:\Z|MAIL FROM)"), re.compile(rb"\bBody="), True),
    Point.AFTER_ANSWER: (False, re.compile(rb"\A250 .*queued as"), re.compile(rb"\AHTTP/1\.1 201"), True),
}


def is_at(point: Point, from_client: bool, data: bytes) -> bool:
    """Whether these bytes are the sign of that point."""
    from_program, mail, sms, _ = _SIGNS[point]
    return from_client is from_program and bool(mail.search(data) or sms.search(data))


def is_passed_on(point: Point) -> bool:
    """Whether the bytes that are the sign still reach the other side."""
    return _SIGNS[point][3]


class Budget:
    """A maximum number of strikes, each with a chance, and never two within `gap_seconds`."""

    def __init__(self, strikes: int, chance: float, gap_seconds: float, rng: Random) -> None:
        self.struck = 0
        #: How many strikes are done, which on a busy machine is a moment later.
        self.done = 0
        self._strikes = strikes
        self._chance = chance
        self._gap_seconds = gap_seconds
        self._rng = rng
        self._next = 0.0
        # Mail and SMS pass on two threads.
        self._lock = Lock()

    @property
    def is_spent(self) -> bool:
        return self.struck >= self._strikes

    @property
    def is_done(self) -> bool:
        """Whether no strike is left, and none is in progress."""
        return self.done >= self._strikes

    def doing(self, act: Callable[[int], None], port: int) -> None:
        """Strike the program at this local port of a connection."""
        act(port)
        with self._lock:
            self.done += 1

    def take(self) -> bool:
        now = time.monotonic()
        with self._lock:
            if self.is_spent or now < self._next or self._rng.random() > self._chance:
                return False
            self.struck += 1
            self._next = now + self._gap_seconds
        return True


def kill_at(point: Point, budget: Budget, kill: Callable[[int], None]) -> Tap:
    """A tap for the links to providers: calls `kill(port of the program's end)` at that point of some calls."""

    def tap(link: Link, from_client: bool, data: bytes) -> Strike | None:
        if not is_at(point, from_client, data) or not budget.take():
            return None
        return Strike(lambda: budget.doing(kill, link.client_port), pass_on=is_passed_on(point))

    return tap


def kill_before_commit(budget: Budget, kill: Callable[[int], None]) -> Tap:
    """A tap for the relays' link: calls `kill(port of the relay's end)` when a relay is about to commit the
    deletion of rows.

    A relay commits only after the broker has confirmed what it published.
    """

    def tap(link: Link, from_client: bool, data: bytes) -> Strike | None:
        if not from_client or b"COMMIT\0" not in data or not budget.take():
            return None
        return Strike(lambda: budget.doing(kill, link.client_port), pass_on=False)

    return tap


def lose_commits(proxy: Proxy, budget: Budget) -> Tap:
    """A tap for the link to Postgres: some transactions commit, but the connection breaks before the answer."""

    def tap(link: Link, from_client: bool, data: bytes) -> Strike | None:
        if not from_client or b"COMMIT\0" not in data or not budget.take():
            return None
        return Strike(lambda: proxy.lose_answer(link))

    return tap


#: Words that only certain statements contain. A new notification is claimed together with its first attempt.
CLAIM = b"\n    claim_token = "
START = b"INSERT INTO attempts (notification_id, number, provider, "
RESULT = b"provider_message_id text, id_space text, proof text"

#: A named Parse message, and the beginning of a later Bind: no portal, and that name.
_PREPARED = re.compile(rb"P....(_pg3_\d+)\0([^\0]+)\0", re.DOTALL)
_BOUND = re.compile(rb"B....\0(_pg3_\d+)\0", re.DOTALL)


class Statements:
    """Finds one statement, prepared or not, on the links to PostgreSQL, and the end of its transaction."""

    def __init__(self, words: bytes) -> None:
        self._words = words
        #: Link → names under which the statement was prepared there.
        self._names: dict[Link, set[bytes]] = {}
        #: Links in a transaction → whether the transaction contains the statement.
        self._inside: dict[Link, bool] = {}

    def is_done(self, link: Link, data: bytes) -> bool:
        """Whether these bytes, from the program, make it final: the statement itself, or its commit."""
        for name, statement in _PREPARED.findall(data):
            if self._words in statement:
                self._names.setdefault(link, set()).add(name)
        bound = self._names.get(link, set()).intersection(_BOUND.findall(data))
        is_it = bool(bound) or self._words in data
        if b"BEGIN\0" in data:
            self._inside[link] = False
        if link not in self._inside:
            return is_it
        self._inside[link] |= is_it
        if b"COMMIT\0" in data:
            return self._inside.pop(link)
        if b"ROLLBACK\0" in data:
            del self._inside[link]
        return False


def lose_in_a_row(proxy: Proxy, words: bytes, budget: Budget, times: int) -> Tap:
    """A tap for the link to PostgreSQL: such statements are executed, but the answers to `times` of them in a row
    are lost, repetitions included."""
    statements = Statements(words)
    left = 0

    def tap(link: Link, from_client: bool, data: bytes) -> Strike | None:
        nonlocal left
        if not from_client or not statements.is_done(link, data):
            return None
        if not left and budget.take():
            left = times
        if not left:
            return None
        left -= 1
        return Strike(lambda: proxy.lose_answer(link))

    return tap
