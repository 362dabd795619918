"""How many connections: a server is asked for more of them while it works on more mails at once."""

from __future__ import annotations

from collections.abc import Callable

from notifier.providers.smtp.adaptive_limit import LONG_REST_SECONDS, REST_SECONDS, START, ConnectionLimit

#: Connections → how long the server takes for a mail while so many are at work. Seconds.
Server = Callable[[int], float]


def run(limit: ConnectionLimit, server: Server, *, mails: int, begin: float = 0.0, wanted: bool = True) -> float:
    """Send so many mails through it; returns when the last one ended."""
    now = begin
    for _ in range(mails):
        seconds = server(limit.now)
        now += seconds / limit.now
        limit.took(seconds, at=now, is_wanted=wanted)
    return now


def takes_100_ms(_connections: int) -> float:
    return 0.1


def takes_1000_a_second(connections: int) -> float:
    """It works on all of them together: the more connections, the longer each mail."""
    return connections / 1000


def test_a_server_that_only_takes_time_gets_as_many_as_allowed() -> None:
    limit = ConnectionLimit(100)
    assert limit.now == START
    ended = run(limit, takes_100_ms, mails=3000)
    assert limit.now == 100
    # Each step is twice round all connections, not minutes.
    assert ended < 3.5


def test_one_whose_capacity_is_used_up_gets_no_more() -> None:
    limit = ConnectionLimit(100)
    seen: list[int] = []

    def server(connections: int) -> float:
        if seen[-1:] != [connections]:
            seen.append(connections)
        return takes_1000_a_second(connections)

    ended = run(limit, server, mails=int(1000 * REST_SECONDS * 5))
    # Twice as many, and then a quarter more from time to time.
    assert seen[:4] == [START, 2 * START, START, START + START // 4]
    assert set(seen) == {START, 2 * START, START + START // 4}
    assert ended > 4 * REST_SECONDS


def test_it_finds_where_more_is_of_no_use() -> None:
    limit = ConnectionLimit(1000)
    run(limit, lambda connections: max(0.1, connections / 600), mails=30_000)
    # 600 a second, 0.1 s each: sixty are of use.
    assert 50 <= limit.now <= 90


def test_nothing_is_tried_while_nobody_waits() -> None:
    limit = ConnectionLimit(100)
    run(limit, takes_100_ms, mails=1000, wanted=False)
    assert limit.now == START


def test_no_more_than_allowed_however_few() -> None:
    for most in (1, 2, 7):
        limit = ConnectionLimit(most)
        run(limit, takes_100_ms, mails=1000)
        assert limit.now == most


def test_one_that_has_too_much_to_do_is_relieved() -> None:
    limit = ConnectionLimit(100)
    now = run(limit, takes_100_ms, mails=3000)
    run(limit, lambda connections: connections / 100, mails=500, begin=now)
    assert limit.now == START


def test_a_refusal_is_believed_for_a_while() -> None:
    limit = ConnectionLimit(100)
    now = run(limit, takes_100_ms, mails=300)
    assert limit.refused(at=now, at_work=12)
    assert limit.now == 12
    assert not limit.refused(at=now + 1, at_work=12)
    now = run(limit, takes_100_ms, mails=500, begin=now)
    assert limit.now == 12
    run(limit, takes_100_ms, mails=200, begin=now + 1 + LONG_REST_SECONDS)
    assert limit.now > 12


def test_a_server_that_takes_nobody_says_nothing_about_how_many() -> None:
    limit = ConnectionLimit(100)
    for at_work in reversed(range(START)):
        limit.refused(at=0.0, at_work=at_work)
        assert limit.now == (at_work or START)
