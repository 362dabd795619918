"""Looks up host names without threads: first in the hosts file, then with the system's name servers.

A thread in the system's resolver cannot be cancelled and may wait for a minute, so a producer that names many slow
hosts would use up all threads. Here any number of names is looked up at once, each with a time limit.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Sequence
from pathlib import Path

import dns.asyncresolver
import dns.exception
import dns.rdatatype
import dns.resolver
from aiohttp.abc import AbstractResolver, ResolveResult
from dns.inet import is_address
from dns.nameserver import Do53Nameserver

#: Time limit of one look-up. A question without an answer is repeated after two seconds. Seconds.
LOOK_UP_SECONDS = 4.0

_HOSTS, _SERVERS = Path("/etc/hosts"), Path("/etc/resolv.conf")


class NameServers(AbstractResolver):
    """A resolver for asyncio. `servers`: address and port of each; default: those in /etc/resolv.conf, whose
    search list always applies."""

    def __init__(
        self, servers: Sequence[tuple[str, int]] = (), *, deadline_seconds: float = LOOK_UP_SECONDS
    ) -> None:
        self._servers = servers
        self._deadline = deadline_seconds
        self._hosts: dict[str, list[str]] = {}
        self._resolver = _read_servers(_SERVERS, servers)
        #: Modification times of the two files when they were read.
        self._read: list[int] = []

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        """Look up a host. Raises `TimeoutError` if no name server answers in time, `OSError` if the host has no
        address."""
        self._read_files()
        found = self._hosts.get(host.rstrip(".").lower()) or await self._ask(host)
        results = []
        for address in found:
            kind = socket.AF_INET6 if ":" in address else socket.AF_INET
            if family in (kind, socket.AF_UNSPEC):
                flags = socket.AI_NUMERICHOST
                results.append(
                    ResolveResult(hostname=host, host=address, port=port, family=kind, proto=0, flags=flags)
                )
        if not results:
            raise OSError(None, "no address")
        return results

    async def _ask(self, host: str) -> list[str]:
        kinds = (dns.rdatatype.A, dns.rdatatype.AAAA)
        answers = await asyncio.gather(*(self._ask_for(host, kind) for kind in kinds), return_exceptions=True)
        found = [address for answer in answers if isinstance(answer, list) for address in answer]
        if found:
            return found
        for answer in answers:
            if isinstance(answer, dns.exception.Timeout):
                raise TimeoutError(str(answer))
            if isinstance(answer, OSError | dns.exception.DNSException):
                raise OSError(None, str(answer))
            if isinstance(answer, BaseException):
                raise answer
        return found

    async def _ask_for(self, host: str, kind: dns.rdatatype.RdataType) -> list[str]:
        answer = await self._resolver.resolve(
            host, kind, raise_on_no_answer=False, lifetime=self._deadline, search=True
        )
        return [record.address for record in answer.rrset or ()]

    def _read_files(self) -> None:
        """Read the files again if they have changed, as the system does."""
        changed = [_changed_at(_HOSTS), _changed_at(_SERVERS)]
        if changed == self._read:
            return
        self._hosts, self._resolver = _read_hosts(_HOSTS), _read_servers(_SERVERS, self._servers)
        self._read = changed

    async def close(self) -> None:
        """Does nothing: nothing is kept open."""


def _changed_at(path: Path) -> int:
    try:
        return path.stat().st_mtime_ns
    except OSError:
        return 0


def _read_hosts(path: Path) -> dict[str, list[str]]:
    """Name → addresses. Invalid lines are skipped, as the system does."""
    found: dict[str, list[str]] = {}
    try:
        lines = path.read_text("utf-8", "replace").splitlines()
    except OSError:
        return found
    for line in lines:
        address, *names = line.partition("#")[0].split() or [""]
        if is_address(address):
            for name in names:
                found.setdefault(name.lower(), []).append(address)
    return found


def _read_servers(path: Path, instead: Sequence[tuple[str, int]]) -> dns.asyncresolver.Resolver:
    resolver = dns.asyncresolver.Resolver(configure=False)
    # The system's default.
    resolver.nameservers = ["127.0.0.1"]
    with contextlib.suppress(dns.resolver.NoResolverConfiguration, dns.exception.DNSException, ValueError):
        resolver.read_resolv_conf(str(path))
    if instead:
        resolver.nameservers = [Do53Nameserver(*server) for server in instead]
    return resolver
