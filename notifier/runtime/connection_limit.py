"""Limits the connections of a server, in total and from one peer, and chooses which one makes room for a new one.

If only the newest were refused, a thousand silent connections would close the server to everybody. So a new one is
let in as long as some connection waits for its peer: the one that has waited longest is closed.
"""

from __future__ import annotations

from collections import defaultdict
from ipaddress import IPv6Address, ip_address
from typing import Generic, Protocol, TypeVar

from notifier.config.rare_warnings import RareWarning

#: Number of file descriptors that programs ask for, if the hard limit allows it. Never fewer than they have.
WANTED_FILES = 65_536
#: Maximum number of refused connections that stay open until their peer has read why. Others are closed at once.
MAX_LINGERING = 100
#: File descriptors reserved for everything but peers: database, broker, logs, templates.
RESERVED_FILES = 100

_warn_turned_away = RareWarning("connections.turned_away")


class LimitedConnection(Protocol):
    @property
    def peer(self) -> str:
        """See `peer_of`."""

    def eviction_rank(self) -> float | None:
        """The connection with the largest rank is closed first. None: never close it, because we work for it."""

    def evict(self) -> None:
        """Close the connection now, to make room."""


C = TypeVar("C", bound=LimitedConnection)


class ConnectionLimit(Generic[C]):
    """The open connections of one event loop. Not thread-safe."""

    def __init__(self, most: int, most_of_peer: int) -> None:
        self.most = most
        self.most_of_peer = min(most, most_of_peer)
        self._open: defaultdict[str, set[C]] = defaultdict(set)
        self._count = 0
        self._lingering: set[C] = set()

    def __len__(self) -> int:
        return self._count

    def enter(self, new: C) -> bool:
        """Let a connection in, in place of another if need be. False: there is no place and none can be made."""
        if len(self._open.get(new.peer, ())) >= self.most_of_peer:
            has_place = self._make_place(new.peer)
        elif self._count >= self.most:
            # The peer with the most connections gives up one of its own; if it cannot, the next peer does.
            peers = sorted(self._open, key=lambda peer: len(self._open[peer]), reverse=True)
            has_place = any(map(self._make_place, peers))
        else:
            has_place = True
        if has_place:
            self._open[new.peer].add(new)
            self._count += 1
        else:
            _warn_turned_away()
        return has_place

    def may_linger(self, refused: C) -> bool:
        """Whether a refused connection may stay open until its peer has read why."""
        if len(self._lingering) >= MAX_LINGERING:
            return False
        self._lingering.add(refused)
        return True

    def leave(self, one: C) -> None:
        """The connection is closed. Does nothing for a connection that was not let in."""
        self._lingering.discard(one)
        of_peer = self._open.get(one.peer, set())
        if one in of_peer:
            of_peer.remove(one)
            self._count -= 1
            if not of_peer:
                del self._open[one.peer]

    def _make_place(self, peer: str) -> bool:
        candidates = [(rank, one) for one in self._open[peer] if (rank := one.eviction_rank()) is not None]
        if not candidates:
            return False
        _, victim = max(candidates, key=lambda candidate: candidate[0])
        self.leave(victim)
        victim.evict()
        return True


def peer_of(address: object) -> str:
    """The peer of an address from a socket's `peername`: an IPv4 address, or the /64 network of an IPv6 address,
    because one host has all addresses of it. "" for a socket without addresses."""
    text = str(address[0]) if isinstance(address, tuple) and address else ""
    try:
        found = ip_address(text.partition("%")[0])
    except ValueError:
        return ""
    if isinstance(found, IPv6Address):
        if found.ipv4_mapped is not None:
            return str(found.ipv4_mapped)
        return found.exploded[:19]
    return str(found)


def raise_file_limit() -> int:
    """Raise the limit on file descriptors of this process. Returns the limit."""
    try:
        import resource
    except ImportError:
        return WANTED_FILES  # Windows has no such limit
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = WANTED_FILES if hard == resource.RLIM_INFINITY else min(WANTED_FILES, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        return WANTED_FILES if soft == resource.RLIM_INFINITY else soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    except (ValueError, OSError):
        return soft  # macOS allows fewer than it reports
    return wanted


def connections_within(wanted: int, files: int) -> int:
    """`wanted`, or as many as the file descriptors of this process allow."""
    return max(1, min(wanted, files - RESERVED_FILES - MAX_LINGERING))
