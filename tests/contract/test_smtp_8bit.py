"""8BITMIME (RFC 6152), at servers that have it, that do not, and that do not keep to what they offer."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from uuid import uuid4

import pytest

from notifier.domain.errors import Rejected, SendError
from notifier.providers.base import Outgoing
from notifier.providers.smtp.provider import SmtpProvider

#: Nothing takes so long.
DEADLINE_SECONDS = 30.0
TEXTS = [
    "Ihre Bestellung ist unterwegs nach Köln.\n",
    "ご注文 C-001 を発送いたしました。\n",
    "Your code is 4711.\n",
]


@dataclass
class Server:
    """Answers as it is told, and keeps what it took."""

    offers: list[str]
    #: Its answers to MAIL with BODY=8BITMIME, and to a body with such bytes.
    mail_answer: str = "250 2.1.0 ok"
    body_answer: str = "250 2.0.0 ok"
    rcpt_answer: str = "250 2.1.5 ok"
    #: The lines of MAIL, and the mails that were accepted.
    envelopes: list[bytes] = field(default_factory=list)
    taken: list[bytes] = field(default_factory=list)

    @contextlib.contextmanager
    def running(self) -> Iterator[str]:
        """Its URL."""
        with socket.create_server(("127.0.0.1", 0)) as listening:
            threading.Thread(target=self._accept, args=(listening,), daemon=True).start()
            yield f"smtp://127.0.0.1:{listening.getsockname()[1]}"

    def _accept(self, listening: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                threading.Thread(target=self._serve, args=(client,), daemon=True).start()

    def _serve(self, client: socket.socket) -> None:
        with contextlib.suppress(ConnectionError), client, client.makefile("rb") as incoming:
            client.sendall(b"220 ready\r\n")
            has_mail = has_recipient = False
            for line in incoming:
                word, answer = line[:4].upper(), "250 2.0.0 ok"
                if word == b"EHLO":
                    lines = ["hello", *self.offers]
                    answer = "\r\n".join([*(f"250-{one}" for one in lines[:-1]), f"250 {lines[-1]}"])
                elif word == b"MAIL":
                    self.envelopes.append(line.rstrip())
                    answer = self.mail_answer if b"BODY=8BITMIME" in line else answer
                    has_mail, has_recipient = answer.startswith("2"), False
                elif word == b"RCPT":
                    answer = self.rcpt_answer if has_mail else "503 5.5.1 MAIL first"
                    has_recipient = answer.startswith("2")
                elif word == b"DATA" and has_recipient:
                    client.sendall(b"354 go on\r\n")
                    answer = self._take(b"".join(iter(incoming.readline, b".\r\n")))
                elif word == b"DATA":
                    answer = "503 5.5.1 RCPT first"
                client.sendall(answer.encode() + b"\r\n")

    def _take(self, content: bytes) -> str:
        answer = "250 2.0.0 ok" if content.isascii() else self.body_answer
        if answer.startswith("2"):
            self.taken.append(content)
        return answer

    def texts(self) -> list[str]:
        found = [email.message_from_bytes(content, policy=email.policy.default) for content in self.taken]
        return [message.get_content().replace("\r\n", "\n") for message in found]


def make_outgoing(text: str) -> Outgoing:
    return Outgoing(uuid4(), 1, "zoe@example.com", "hello@shop.example.com", text, subject="Hello")


def send(url: str, texts: list[str], **options: str) -> list[SendError | None]:
    """One after the other. What came of each; None: it was accepted."""

    async def run() -> list[SendError | None]:
        provider = SmtpProvider.from_options("relay", {"url": url, **options})
        answers: list[SendError | None] = []
        try:
            for text in texts:
                try:
                    await provider.send(make_outgoing(text), deadline_seconds=DEADLINE_SECONDS)
                except SendError as error:
                    answers.append(error)
                else:
                    answers.append(None)
        finally:
            await provider.close()
        return answers

    return asyncio.run(run())


@pytest.fixture(params=[["8BITMIME"], ["PIPELINING", "8BITMIME"]], ids=["one by one", "pipelined"])
def server(request: pytest.FixtureRequest) -> Server:
    return Server(list(request.param))


def test_text_goes_out_as_it_is_where_the_server_takes_it(server: Server) -> None:
    with server.running() as url:
        # What a server takes is known once it has said so: to the second mail.
        assert send(url, ["Hello.\n", *TEXTS]) == [None] * 4
    assert server.texts() == ["Hello.\n", *TEXTS]
    assert [b"BODY=8BITMIME" in line for line in server.envelopes] == [False, True, True, False]
    assert [content.isascii() for content in server.taken] == [True, False, False, True]


def test_text_is_encoded_where_the_server_does_not_take_it() -> None:
    server = Server(["PIPELINING"])
    with server.running() as url:
        assert send(url, ["Hello.\n", *TEXTS]) == [None] * 4
    assert server.texts() == ["Hello.\n", *TEXTS]
    assert not any(b"BODY" in line for line in server.envelopes)
    assert all(map(bytes.isascii, server.taken))


def test_text_is_encoded_where_the_operator_wants_it(server: Server) -> None:
    with server.running() as url:
        assert send(url, ["Hello.\n", *TEXTS], allow_8bit="false") == [None] * 4
    assert server.texts() == ["Hello.\n", *TEXTS]
    assert all(map(bytes.isascii, server.taken))


@pytest.mark.parametrize("answer", ["555 5.5.4 unknown parameter", "501 syntax error", "554 5.6.3 no conversion"])
def test_a_server_that_refuses_what_it_offers_gets_each_mail_once_and_encoded(server: Server, answer: str) -> None:
    server.mail_answer = answer
    with server.running() as url:
        assert send(url, ["Hello.\n", *TEXTS]) == [None] * 4
    assert server.texts() == ["Hello.\n", *TEXTS]
    assert all(map(bytes.isascii, server.taken))
    # It is asked once.
    assert [b"BODY=8BITMIME" in line for line in server.envelopes] == [False, True, False, False, False]


def test_envelopes_behind_a_body_are_refused_and_go_again_too(server: Server) -> None:
    server.mail_answer = "555 5.5.4 unknown parameter"
    with server.running() as url:

        async def run() -> None:
            provider = SmtpProvider.from_options("relay", {"url": url, "max_connections": "1"})
            try:
                await provider.send(make_outgoing("Hello.\n"), deadline_seconds=DEADLINE_SECONDS)
                sends = [
                    provider.send(make_outgoing(text), deadline_seconds=DEADLINE_SECONDS) for text in TEXTS * 5
                ]
                await asyncio.gather(*sends)
            finally:
                await provider.close()

        asyncio.run(run())
    assert sorted(server.texts()) == sorted(["Hello.\n", *TEXTS * 5])
    assert all(map(bytes.isascii, server.taken))


def test_a_body_that_is_refused_for_its_bits_goes_again_and_encoded(server: Server) -> None:
    server.body_answer = "554 5.6.3 conversion required but not supported"
    with server.running() as url:
        assert send(url, ["Hello.\n", *TEXTS]) == [None] * 4
    assert server.texts() == ["Hello.\n", *TEXTS]
    assert all(map(bytes.isascii, server.taken))


@pytest.mark.parametrize("answer", ["554 5.7.1 spam", "554 5.6.0 invalid content"])
def test_other_refusals_are_answers(server: Server, answer: str) -> None:
    server.body_answer = answer
    with server.running() as url:
        first, *others = send(url, ["Hello.\n", *TEXTS])
        assert first is None
        assert [type(answer) for answer in others] == [Rejected, Rejected, type(None)]
        assert len(server.envelopes) == 4
        server.rcpt_answer = "550 5.1.1 no such user"
        assert [type(answer) for answer in send(url, TEXTS)] == [Rejected] * 3
    assert len(server.envelopes) == 7


def test_another_server_of_the_same_name_may_have_less(server: Server) -> None:
    with server.running() as url:

        async def run() -> None:
            provider = SmtpProvider.from_options("relay", {"url": url, "max_messages": "1"})
            try:
                for text in ["Hello.\n", *TEXTS]:
                    await provider.send(make_outgoing(text), deadline_seconds=DEADLINE_SECONDS)
                    server.offers = ["PIPELINING"]
            finally:
                await provider.close()

        asyncio.run(run())
    assert server.texts() == ["Hello.\n", *TEXTS]
    assert all(map(bytes.isascii, server.taken))
    assert not any(b"BODY" in line for line in server.envelopes)
