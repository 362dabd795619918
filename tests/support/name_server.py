"""A name server on 127.0.0.1, over UDP. The beginning of a name decides whether it answers at once, late, or
never."""

from __future__ import annotations

import heapq
import selectors
import socket
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field

import dns.flags
import dns.message
import dns.rcode
import dns.rdatatype
import dns.rrset

#: The value in `NameServer.late` for names that are never answered.
NEVER = float("inf")


@dataclass
class NameServer:
    """What it knows, and what it was asked."""

    #: Name → addresses of both kinds. Other names do not exist.
    names: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    #: Beginning of a name → seconds until the answer.
    late: Mapping[str, float] = field(default_factory=dict)
    port: int = 0
    #: Names that it was asked for, once for each question.
    asked: list[str] = field(default_factory=list)

    @property
    def address(self) -> str:
        """Its address, in the form that resolvers take."""
        return f"127.0.0.1:{self.port}"

    def answer(self, question: bytes) -> tuple[float, bytes]:
        """Seconds until the answer, and the answer."""
        asked = dns.message.from_wire(question)
        name, kind = asked.question[0].name, asked.question[0].rdtype
        plain = name.to_text(omit_final_dot=True).lower()
        self.asked.append(plain)
        response = dns.message.make_response(asked, recursion_available=True)
        if plain not in self.names and not any(plain.startswith(begin) for begin in self.late):
            response.set_rcode(dns.rcode.NXDOMAIN)
        for one in self.names.get(plain, ()):
            if kind == (dns.rdatatype.AAAA if ":" in one else dns.rdatatype.A):
                response.answer.append(dns.rrset.from_text(name, 1, "IN", kind, one))
        seconds = next((seconds for begin, seconds in self.late.items() if plain.startswith(begin)), 0.0)
        return seconds, response.to_wire()


@contextmanager
def name_server(
    names: Mapping[str, tuple[str, ...]], late: Mapping[str, float] | None = None
) -> Iterator[NameServer]:
    """A running name server."""
    found = NameServer(names, late or {})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        sock.setblocking(False)
        found.port = sock.getsockname()[1]
        stop = threading.Event()
        thread = threading.Thread(target=_serve, args=(found, sock, stop), daemon=True)
        thread.start()
        try:
            yield found
        finally:
            stop.set()
            thread.join()


def _serve(server: NameServer, sock: socket.socket, stop: threading.Event) -> None:
    waiting: list[tuple[float, int, bytes, tuple[str, int]]] = []
    number = 0
    with selectors.DefaultSelector() as selector:
        selector.register(sock, selectors.EVENT_READ)
        while not stop.is_set():
            next_at = waiting[0][0] if waiting else NEVER
            if selector.select(max(0.0, min(0.05, next_at - time.monotonic()))):
                question, who = sock.recvfrom(4096)
                seconds, answer = server.answer(question)
                if seconds != NEVER:
                    number += 1
                    heapq.heappush(waiting, (time.monotonic() + seconds, number, answer, who))
            while waiting and waiting[0][0] <= time.monotonic():
                *_, answer, who = heapq.heappop(waiting)
                sock.sendto(answer, who)
