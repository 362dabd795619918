"""Every way in which a connection to a mail server can end, or go wrong without ending.

A server that keeps to the protocol does one thing wrong at one moment. Whatever that is: each mail has exactly one
outcome, none waits for ever, none that the server has is called unsent, and none is sent twice.
"""

from __future__ import annotations

import asyncio
import re
import socket
import struct
import time
from collections import Counter
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from itertools import product
from typing import Any, cast
from uuid import UUID

import aiosmtplib
import pytest

from notifier.domain.errors import OutcomeUnknown, Rejected, SendError, Throttled, Unavailable
from notifier.providers.base import Receipt
from notifier.providers.smtp.connect import failed_to_connect
from notifier.providers.smtp.lines import Lines
from notifier.providers.smtp.options import SmtpOptions
from tests.support.letters import Errand, make_letter
from tests.waiting import patient

#: Of the mails to a server that may never answer; of the others so long that it never comes.
SHORT_SECONDS = 0.5
OPTIONS = SmtpOptions.read("relay", {"url": "smtp://127.0.0.1"})
#: Nothing takes so long.
FOR_EVER = 30.0

MOMENTS = ["connect", "ehlo", "mail", "rcpt", "data", "within the body", "body", "at rest"]
_ID = re.compile(rb"^Message-ID: <([0-9a-f-]{36})@", re.MULTILINE)


def uvloop_or_none() -> Callable[[], asyncio.AbstractEventLoop] | None:
    try:
        import uvloop
    except ImportError:
        return None
    return cast("Callable[[], asyncio.AbstractEventLoop]", uvloop.new_event_loop)


LOOPS = [asyncio.new_event_loop, *filter(None, [uvloop_or_none()])]


@pytest.fixture(params=LOOPS, ids=["asyncio", "uvloop"][: len(LOOPS)])
def run(request: pytest.FixtureRequest) -> Callable[[Coroutine[Any, Any, None]], None]:
    def run_it(work: Coroutine[Any, Any, None]) -> None:
        with asyncio.Runner(loop_factory=request.param) as runner:
            runner.run(work)

    return run_it


@dataclass
class Script:
    """What the server does wrong: `way` at the `number`-th time that it comes to `moment`, or from then on."""

    way: str
    moment: str
    number: int = 1
    for_ever: bool = False
    pipelining: bool = True
    seen: int = 0
    sessions: list[Session] = field(default_factory=list)
    #: Of each mail, how often the server took it: it has read the final dot, and did not refuse it.
    taken: Counter[UUID] = field(default_factory=Counter)

    def fires(self, moment: str) -> bool:
        if moment != self.moment:
            return False
        self.seen += 1
        return self.seen >= self.number if self.for_ever else self.seen == self.number


class Session(asyncio.Protocol):
    """One connection of the server."""

    def __init__(self, script: Script) -> None:
        self.script = script
        self.input = b""
        self.output = b""
        self.is_over = False
        self.in_body = False
        self.has_mail = False
        self.recipients = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)
        self.script.sessions.append(self)
        self.answer("connect", b"220 ready\r\n")
        self.flush()

    def data_received(self, data: bytes) -> None:
        if self.script.way == "reads the first line of a packet" and not self.in_body:
            data = data[: data.find(b"\n") + 1]
        self.input += data
        while not self.is_over and (self.take_body() if self.in_body else self.take_line()):
            pass
        self.flush()

    def take_body(self) -> bool:
        if self.input and self.script.fires("within the body"):
            self.act(b"")
            return False
        end = self.input.find(b"\r\n.\r\n")
        if end < 0:
            return False
        found = _ID.search(self.input[:end])
        self.input = self.input[end + 5 :]
        self.in_body = self.has_mail = False
        assert found is not None
        if not (self.script.way in REFUSALS and self.script.moment == "body" and self.will_fire()):
            self.script.taken[UUID(found[1].decode())] += 1
        self.answer("body", b"250 2.0.0 queued as 4711\r\n")
        if not self.is_over and self.script.fires("at rest"):
            self.act(b"")
        return True

    def will_fire(self) -> bool:
        script = self.script
        return script.seen + 1 >= script.number if script.for_ever else script.seen + 1 == script.number

    def take_line(self) -> bool:
        line, end, rest = self.input.partition(b"\r\n")
        if not end:
            return False
        self.input = rest
        word = line[:4].upper()
        if word == b"EHLO":
            offer = b"250-PIPELINING\r\n" if self.script.pipelining else b""
            self.answer("ehlo", b"250-hello\r\n" + offer + b"250 8BITMIME\r\n")
        elif word == b"MAIL":
            self.has_mail, self.recipients = True, 0
            self.answer("mail", b"250 2.1.0 ok\r\n")
        elif word == b"RCPT" and self.has_mail:
            self.recipients = 1
            self.answer("rcpt", b"250 2.1.5 ok\r\n")
        elif word == b"DATA" and (self.recipients or self.script.way == "354 whatever was refused"):
            self.in_body = True
            self.answer("data", b"354 go on\r\n")
        elif word == b"RSET":
            self.has_mail, self.recipients = False, 0
            self.output += b"250 2.0.0 ok\r\n"
        elif word == b"NOOP":
            self.output += b"250 2.0.0 ok\r\n"
        elif word == b"QUIT":
            self.output += b"221 2.0.0 bye\r\n"
            self.close()
        else:
            self.output += b"503 5.5.1 not now\r\n"
        return True

    def answer(self, moment: str, reply: bytes) -> None:
        if self.script.fires(moment):
            self.act(reply)
        else:
            self.output += reply

    def flush(self) -> None:
        output, self.output = self.output, b""
        if output and not self.transport.is_closing():
            self.transport.write(output)

    def close(self) -> None:
        self.flush()
        self.is_over = True
        self.transport.close()

    def act(self, reply: bytes) -> None:
        WAYS[self.script.way](self, reply)

    def refuse(self, reply: bytes) -> None:
        """As a server does that goes on."""
        self.output += reply
        if self.script.moment == "mail":
            self.has_mail = False
        if self.script.moment in ("mail", "rcpt"):
            self.recipients = 0
        if self.script.moment == "data":
            self.in_body = False


def closes(session: Session, reply: bytes) -> None:
    session.close()


def resets(session: Session, reply: bytes) -> None:
    session.flush()
    session.is_over = True
    sock = session.transport.get_extra_info("socket")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    session.transport.abort()


def falls_silent(session: Session, reply: bytes) -> None:
    session.flush()
    session.is_over = True


def stops_reading(session: Session, reply: bytes) -> None:
    falls_silent(session, reply)
    asyncio.get_running_loop().call_soon(session.transport.pause_reading)


def says_421(session: Session, reply: bytes) -> None:
    session.output += b"421 4.3.2 going down\r\n"
    session.close()


def says_421_and_stays(session: Session, reply: bytes) -> None:
    session.output += b"421 4.3.2 going down\r\n"
    falls_silent(session, reply)


def answers_and_closes(session: Session, reply: bytes) -> None:
    session.output += reply
    session.close()


def answers_by_half_and_closes(session: Session, reply: bytes) -> None:
    session.output += reply[:5]
    session.close()


def says_one_more(session: Session, reply: bytes) -> None:
    session.output += b"250 2.0.0 ok\r\n" + reply


def says_one_more_later(session: Session, reply: bytes) -> None:
    session.output += reply
    session.flush()
    session.output += b"250 2.0.0 ok\r\n"
    asyncio.get_running_loop().call_soon(session.flush)


def speaks_no_smtp(session: Session, reply: bytes) -> None:
    session.output += b"HTTP/1.1 400 Bad Request\r\n"


def answers_in_pieces(session: Session, reply: bytes) -> None:
    session.flush()
    loop = asyncio.get_running_loop()

    def send(rest: bytes) -> None:
        if session.transport.is_closing():
            return
        if rest:
            session.transport.write(rest[:1])
            loop.call_later(0.0005, send, rest[1:])
        else:
            session.is_over = False
            session.data_received(b"")

    # Nothing else is answered meanwhile.
    session.is_over = True
    send(reply)


def refuses(session: Session, reply: bytes) -> None:
    session.refuse(b"550 5.1.1 no such user\r\n")


def refuses_for_now(session: Session, reply: bytes) -> None:
    session.refuse(b"451 4.3.0 try later\r\n")


def refuses_and_wants_it(session: Session, reply: bytes) -> None:
    """A 354 follows all the same."""
    session.output += b"550 5.1.1 no such user\r\n"
    session.recipients = 0
    session.in_body = False


def answers(session: Session, reply: bytes) -> None:
    session.output += reply


WAYS: dict[str, Callable[[Session, bytes], None]] = {
    "closes": closes,
    "resets": resets,
    "falls silent": falls_silent,
    "stops reading": stops_reading,
    "says 421": says_421,
    "says 421 and stays": says_421_and_stays,
    "answers and closes": answers_and_closes,
    "answers by half and closes": answers_by_half_and_closes,
    "says one more": says_one_more,
    "says one more later": says_one_more_later,
    "speaks no SMTP": speaks_no_smtp,
    "answers in pieces": answers_in_pieces,
    "refuses": refuses,
    "refuses for now": refuses_for_now,
    "354 whatever was refused": refuses_and_wants_it,
    "reads the first line of a packet": answers,
}
REFUSALS = {"says 421", "says 421 and stays", "refuses", "refuses for now", "354 whatever was refused"}
#: An answer to what was not sent yet can be taken for the answer to it.
LIES = {"says one more", "says one more later"}
#: After these it may be that nothing ever comes.
SILENT = {
    "falls silent",
    "stops reading",
    "says 421 and stays",
    "speaks no SMTP",
    "reads the first line of a packet",
    *LIES,
}


def may_happen(way: str, moment: str) -> bool:
    """A server that reads a body does not answer before its end, but to say goodbye."""
    return moment != "within the body" or way not in REFUSALS | LIES | {"answers in pieces"} or way == "says 421"


def most_lost(script: Script) -> int:
    """So many mails may be not accepted because of one mistake of the server."""
    if script.for_ever or script.way in SILENT:
        return 1000
    harmless = (
        ("answers in pieces", "answers and closes")
        if script.moment in ("body", "at rest")
        else ("answers in pieces",)
    )
    return 0 if script.way in harmless else 1


@dataclass
class Told:
    """What came of the mails of one run, by their ids."""

    script: Script
    ends: dict[UUID, Receipt | SendError]
    seconds: float

    def check(self) -> None:
        sure = {id_ for id_, end in self.ends.items() if isinstance(end, Unavailable | Rejected | Throttled)}
        accepted = {id_ for id_, end in self.ends.items() if isinstance(end, Receipt)}
        doubtful = {id_ for id_, end in self.ends.items() if isinstance(end, OutcomeUnknown)}
        told = f"{self.script}\n{self.ends}"
        assert sure | accepted | doubtful == set(self.ends), told
        assert not sure & set(self.script.taken), told
        assert set(self.script.taken.values()) <= {1}, told
        if self.script.way not in LIES:
            assert accepted <= set(self.script.taken), told
        assert self.seconds < 2 * deadline_seconds(self.script.way) + patient(10), told
        lost = [end for end in self.ends.values() if not isinstance(end, Receipt)]
        assert len(lost) <= most_lost(self.script), told


def deadline_seconds(way: str) -> float:
    return SHORT_SECONDS if way in SILENT else FOR_EVER


async def deliver(
    script: Script, count: int, *, connections: int = 1, text: str = "Hello\n", **times: Any
) -> Told:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Session(script), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    async def connect() -> aiosmtplib.SMTP:
        smtp = aiosmtplib.SMTP(hostname="127.0.0.1", port=port, timeout=None, local_hostname="localhost")
        await smtp.connect()
        if smtp.is_ehlo_or_helo_needed:
            await smtp.ehlo()
        return smtp

    lines = Lines(
        connect,
        lambda error: failed_to_connect(OPTIONS, error),
        max_connections=connections,
        max_messages=100,
        max_age_seconds=60,
    )
    errands = [Errand(text=text, **times) for _ in range(count)]
    begun = time.monotonic()
    for errand in errands:
        lines.put(make_letter(errand, deadline_seconds=deadline_seconds(script.way)))
    async with asyncio.timeout(patient(FOR_EVER)):
        ends = await asyncio.gather(*(errand.answer for errand in errands))
        seconds = time.monotonic() - begun
        await lines.close()
    server.close()
    for session in script.sessions:
        session.transport.abort()
    await asyncio.sleep(0)
    return Told(
        script, {errand.outgoing.notification_id: end for errand, end in zip(errands, ends, strict=True)}, seconds
    )


@pytest.mark.parametrize("way", WAYS)
def test_whatever_goes_wrong_each_mail_has_one_true_outcome(
    way: str, run: Callable[[Coroutine[Any, Any, None]], None]
) -> None:
    async def try_all() -> None:
        kinds = product(MOMENTS, [(1, 1), (1, 5), (3, 5)], [False, True], [True, False])
        scripts = [
            (Script(way, moment, number, for_ever, pipelining), count)
            for moment, (number, count), for_ever, pipelining in kinds
            if may_happen(way, moment)
        ]
        for each in await asyncio.gather(*(deliver(script, count) for script, count in scripts)):
            each.check()

    run(try_all())
