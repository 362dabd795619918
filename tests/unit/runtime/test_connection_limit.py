"""Who gets a place, and who gives one up."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from notifier.runtime.connection_limit import (
    MAX_LINGERING,
    ConnectionLimit,
    connections_within,
    peer_of,
    raise_file_limit,
)


@dataclass(eq=False)
class Peer:
    """A connection that waits for so long; None: we work for it."""

    peer: str
    waits: float | None = None
    evicted: list[float | None] = field(default_factory=list)

    def eviction_rank(self) -> float | None:
        return self.waits

    def evict(self) -> None:
        self.evicted.append(self.waits)


def test_the_one_that_waited_longest_gives_up_its_place() -> None:
    limit: ConnectionLimit[Peer] = ConnectionLimit(3, 3)
    old, older, busy = Peer("a", 1), Peer("a", 2), Peer("a")
    assert all(limit.enter(one) for one in (old, older, busy))
    assert limit.enter(Peer("b"))
    assert (old.evicted, older.evicted, busy.evicted, len(limit)) == ([], [2], [], 3)


def test_a_peer_at_its_limit_takes_no_place_of_others() -> None:
    limit: ConnectionLimit[Peer] = ConnectionLimit(10, 2)
    other, own = Peer("b", 100), Peer("a", 1)
    assert all(limit.enter(one) for one in (other, own, Peer("a")))
    assert limit.enter(Peer("a"))
    assert (other.evicted, own.evicted) == ([], [1])
    assert not limit.enter(Peer("a"))
    assert limit.enter(Peer("b"))


def test_in_a_full_house_whoever_has_most_gives_first() -> None:
    limit: ConnectionLimit[Peer] = ConnectionLimit(3, 3)
    single, many = Peer("a", 100), [Peer("b", 1), Peer("b", 2)]
    assert all(limit.enter(one) for one in (single, *many))
    assert limit.enter(Peer("c"))
    assert single.evicted == []
    assert many[1].evicted == [2]


def test_a_house_full_of_work_takes_nobody_until_one_leaves() -> None:
    limit: ConnectionLimit[Peer] = ConnectionLimit(2, 2)
    first, second = Peer("a"), Peer("b")
    assert limit.enter(first)
    assert limit.enter(second)
    assert not limit.enter(Peer("c"))
    for _ in range(2):
        limit.leave(first)
    assert len(limit) == 1
    assert limit.enter(Peer("c"))


def test_only_some_of_the_refused_stay_to_read_it() -> None:
    limit: ConnectionLimit[Peer] = ConnectionLimit(1, 1)
    refused = [Peer("a") for _ in range(MAX_LINGERING + 1)]
    assert [limit.may_linger(one) for one in refused] == [True] * MAX_LINGERING + [False]
    limit.leave(refused[0])
    assert limit.may_linger(refused[-1])


@pytest.mark.parametrize(
    ("address", "peer"),
    [
        (("192.0.2.7", 1), "192.0.2.7"),
        (("2001:db8::7", 1, 0, 0), "2001:0db8:0000:0000"),
        (("2001:db8::ffff:8", 1, 0, 0), "2001:0db8:0000:0000"),
        (("2001:db8:0:1::7", 1, 0, 0), "2001:0db8:0000:0001"),
        (("fe80::1%eth0", 1, 0, 2), "fe80:0000:0000:0000"),
        (("::ffff:192.0.2.7", 1, 0, 0), "192.0.2.7"),
        ("", ""),
        (None, ""),
    ],
)
def test_a_peer_is_an_address_or_a_network_of_one_host(address: object, peer: str) -> None:
    assert peer_of(address) == peer


def test_there_are_no_more_connections_than_descriptors() -> None:
    assert raise_file_limit() == raise_file_limit() > 256
    assert connections_within(1000, 65_536) == 1000
    assert connections_within(1000, 1024) == 824
    assert connections_within(1000, 100) == 1
