"""Feedback from outside while programs die and the database is away: bounces by LMTP, Twilio's signed receipts,
one-click unsubscribes. Senders repeat them until they are acknowledged, as mail servers and providers do; each
acknowledged one must be in the record, once."""

from __future__ import annotations

import contextlib
import http.client
import os
import resource
import signal
import smtplib
import socket
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Self
from urllib.parse import urlencode, urlsplit
from uuid import UUID

import psycopg
from twilio.request_validator import RequestValidator

from chaos.returned import CATEGORY, Kind, Returned, Sent
from chaos.world import World
from notifier.dev.machine import free_port
from notifier.dev.processes import ServerProcess
from notifier.domain.statuses import Channel
from notifier.security.recipient_hash import HashKey
from notifier.security.tokens import Tokens

_KEY = "a hash key for the fault suite only"
_ROOT = Path(__file__).parents[1]
#: The limit on open files that a login session has on most systems, whatever it is here.
_FEW_FILES = 'ulimit -S -n 1024; exec "$@"'
#: How long each one is repeated until it is acknowledged. Seconds.
_INSIST_SECONDS = 90.0

_AT_ONCE = 40

_BOUNCE = """From: MAILER-DAEMON@relay.example.com\r
To: {to}\r
Subject: Undelivered Mail Returned to Sender\r
Auto-Submitted: auto-replied\r
MIME-Version: 1.0\r
Content-Type: multipart/report; report-type=delivery-status; boundary="b"\r
\r
--b\r
Content-Type: text/plain\r
\r
The user is not known here.\r
\r
--b\r
Content-Type: message/delivery-status\r
\r
Reporting-MTA: dns; relay.example.com\r
\r
Final-Recipient: rfc822; {recipient}\r
Action: failed\r
Status: 5.1.1\r
Diagnostic-Code: smtp; 550 5.1.1 User unknown\r
\r
--b--\r
"""


class Feedback:
    """`notifier api` and `notifier bounces` beside the fleet, and the senders that talk to them."""

    def __init__(self, world: World, stack: ExitStack, *, insist_seconds: float = _INSIST_SECONDS) -> None:
        self._world = world
        self._insist_seconds = insist_seconds
        self.api_port, self.bounces_port = free_port(), free_port()
        # The proxy that signs for Twilio would see this address.
        self._public_url = "https://notify.example.com"
        self._tokens = Tokens(HashKey(_KEY), bounce_address="bounces@example.com", public_url=self._public_url)
        listen = ("--listen", f"127.0.0.1:{self.bounces_port}")
        self._programs = {name: self._program(name, more) for name, more in (("api", ()), ("bounces", listen))}
        for program in self._programs.values():
            stack.callback(program.stop)
            program.start()
        self._stop = Event()
        self._returned = world.returned = Returned()
        self._seen: set[UUID] = set()

    def _program(self, name: str, more: tuple[str, ...]) -> ServerProcess:
        world = self._world
        environment = world.program_environment() | {
            "NOTIFIER_API_PORT": str(self.api_port),
            "NOTIFIER_PUBLIC_URL": self._public_url,
            "NOTIFIER_BOUNCE_ADDRESS": "bounces@example.com",
            "NOTIFIER_HASH_KEY": _KEY,
        }
        return ServerProcess(
            name,
            ["/bin/sh", "-c", _FEW_FILES, "sh", sys.executable, "-m", "notifier", name, *more],
            log=world.folder / "logs" / f"{name}.log",
            stop_plan=[(signal.SIGTERM, 60.0)],
            cwd=_ROOT,
            env=environment,
        )

    def kill(self, name: str) -> None:
        """kill -9, and a start at once."""
        program = self._programs[name]
        if program.pid is not None:
            os.kill(program.pid, signal.SIGKILL)
        program.stop()
        program.start()
        self._world.strike()

    def run(self, seconds: float) -> None:
        """Send feedback on whatever is sent, for this time. Returns when all of it is acknowledged."""
        ends_at = time.monotonic() + seconds
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            while time.monotonic() < ends_at:
                for sent in self._news():
                    self._returned.sent += 1
                    pool.submit(self._insist, sent)
                self._stop.wait(0.5)

    def _news(self) -> list[Sent]:
        """Notifications that a provider has accepted, without feedback so far."""
        query = """SELECT n.id, n.channel, n.recipient, a.number, a.provider_message_id
          FROM notifications AS n JOIN attempts AS a ON a.notification_id = n.id AND a.outcome = 'accepted'
          WHERE n.status = 'sent' AND n.sent_at > now() - interval '1 minute'"""
        try:
            with psycopg.connect(self._world.postgres.url, connect_timeout=5) as connection:
                rows = connection.execute(query).fetchall()
        except psycopg.OperationalError:
            return []
        found: list[Sent] = []
        for id_, channel, recipient, number, message in rows:
            if id_ not in self._seen and len(found) < _AT_ONCE // 2:
                self._seen.add(id_)
                mails: Kind = "bounce" if id_.int % 2 else "unsubscribe"
                kind: Kind = "receipt" if channel == Channel.SMS else mails
                found.append(Sent(kind, id_, number, recipient, message or ""))
        return found

    def _insist(self, sent: Sent) -> None:
        act = {"bounce": self._bounce, "receipt": self._report, "unsubscribe": self._unsubscribe}[sent.kind]
        # So that some are on their way at any time, even when the database has just gone.
        self._stop.wait(self._world.rng.uniform(0, 3))
        ends_at = time.monotonic() + self._insist_seconds
        while time.monotonic() < ends_at:
            try:
                is_done = act(sent)
            except (OSError, http.client.HTTPException, smtplib.SMTPException):
                is_done = False
            if is_done:
                self._returned.acknowledged.append(sent)
                return
            time.sleep(0.3)

    def _bounce(self, sent: Sent) -> bool:
        path = self._tokens.return_path(sent.notification, sent.attempt)
        assert path
        with smtplib.LMTP("127.0.0.1", self.bounces_port, timeout=20) as client:
            return not client.sendmail("", [path], _BOUNCE.format(to=path, recipient=sent.recipient))

    def _report(self, sent: Sent) -> bool:
        path = f"/webhooks/twilio/{sent.notification}/{sent.attempt}"
        form = {
            "AccountSid": self._world.providers.twilio.account_sid,
            "MessageSid": sent.provider_message_id,
            "MessageStatus": "delivered",
            "To": sent.recipient,
        }
        validator = RequestValidator(self._world.providers.twilio.auth_token)
        signature = validator.compute_signature(f"{self._public_url}{path}", form)
        return self._post(path, urlencode(form), {"X-Twilio-Signature": signature}) == 204

    def _unsubscribe(self, sent: Sent) -> bool:
        url = self._tokens.unsubscribe_url(sent.notification, Channel.EMAIL, sent.recipient, CATEGORY, "en")
        return self._post(urlsplit(url).path, "List-Unsubscribe=One-Click", {}) == 200

    def _post(self, path: str, body: str, headers: Mapping[str, str]) -> int:
        connection = http.client.HTTPConnection("127.0.0.1", self.api_port, timeout=20)
        try:
            connection.request(
                "POST", path, body, {"Content-Type": "application/x-www-form-urlencoded", **headers}
            )
            answer = connection.getresponse()
            answer.read()
            return answer.status
        finally:
            connection.close()


def feedback(seconds: float) -> Callable[[World], None]:
    """Feedback under load. The programs that receive it are killed, and the database goes away, twice in each
    way."""

    def fault(world: World) -> None:
        with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
            found = Feedback(world, stack)
            sending = pool.submit(found.run, seconds)
            ends_at = time.monotonic() + seconds
            while time.monotonic() < ends_at:
                world.pause(3)
                for name in ("api", "bounces"):
                    found.kill(name)
                # So that they are working when the database goes; otherwise the fault would only meet their start.
                _wait_until_open(found.api_port, found.bounces_port)
                world.pause(2)
                world.postgres.kill(signal.SIGQUIT)
                world.pause(6)
                world.postgres.start()
                world.strike()
            sending.result()

    return fault


def idle_connections(seconds: float) -> Callable[[World], None]:
    """A thousand connections to the API and thirty to the bounce server that send nothing, or half a request.
    Connections that the server closes are opened again."""

    def fault(world: World) -> None:
        with ExitStack() as stack, ThreadPoolExecutor(1) as pool:
            found = Feedback(world, stack, insist_seconds=8)
            wanted = [(found.api_port, b"")] * 1003
            wanted += [(found.api_port, b"POST /v1/notifications HTTP/1.1\r\nHost: x\r\n")] * 200
            wanted += [(found.bounces_port, b"")] * 30
            _wait_until_open(found.api_port, found.bounces_port)
            idle = stack.enter_context(_Idle(wanted))
            sending = pool.submit(found.run, seconds)
            while not sending.done():
                world.strike(idle.open())
                world.pause(0.5)
            sending.result()

    return fault


class _Idle:
    """Connections that send nothing."""

    def __init__(self, wanted: Sequence[tuple[int, bytes]]) -> None:
        self._open: dict[int, socket.socket] = {}
        self._wanted = wanted
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self._open.values():
            one.close()

    def open(self) -> int:
        """Open those that are closed. Returns how many were closed."""
        opened, ends_at = 0, time.monotonic() + 2
        for number, (port, said) in enumerate(self._wanted):
            if time.monotonic() > ends_at:
                break  # the server accepts none
            with contextlib.suppress(OSError):
                if number in self._open and not _is_closed(self._open[number]):
                    continue
                if number in self._open:
                    self._open.pop(number).close()
                self._open[number] = one = socket.create_connection(("127.0.0.1", port), 0.5)
                one.sendall(said)
                one.setblocking(False)
                opened += 1
        return opened


def _is_closed(one: socket.socket) -> bool:
    try:
        return not one.recv(1024, socket.MSG_PEEK)
    except BlockingIOError:
        return False
    except OSError:
        return True


def _wait_until_open(*ports: int) -> None:
    ends_at = time.monotonic() + 60
    for port in ports:
        while time.monotonic() < ends_at:
            try:
                socket.create_connection(("127.0.0.1", port), 5).close()
                break
            except OSError:
                time.sleep(0.1)


def check(world: World) -> list[str]:
    """Acknowledged feedback that is not in the record exactly once."""
    return world.returned.problems(world.postgres.url, HashKey(_KEY))
