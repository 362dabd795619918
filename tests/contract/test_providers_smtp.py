"""What only the `smtp` provider has: connections that are kept, TLS, logins, addresses beyond ASCII."""

from __future__ import annotations

import asyncio
import contextlib
import email
import email.policy
import socket
import ssl
import subprocess
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from uuid import UUID, uuid4

import aiosmtplib
import pytest

from notifier.dev.smtp_server import MailServer, MailServerOptions, Rule, running_mail_server
from notifier.domain.errors import OutcomeUnknown, Rejected, Throttled, Unavailable
from notifier.domain.statuses import Reason
from notifier.providers.base import Outgoing
from notifier.providers.smtp.lines import Lines
from notifier.providers.smtp.provider import SmtpProvider
from tests.support.letters import Errand, make_letter
from tests.support.tls import certificate as make_certificate
from tests.support.tls import server_context
from tests.waiting import patient

#: Nothing takes so long.
DEADLINE_SECONDS = 30.0


def make_outgoing(to: str = "zoe@example.com", *, notification_id: UUID | None = None, **changes: str) -> Outgoing:
    fields = {"sender": "Shop <hello@shop.example.com>", "text": "Hello\n", "subject": "Hello"} | changes
    return Outgoing(notification_id or uuid4(), 1, to, **fields)  # type: ignore[arg-type]


def url_of(server: MailServer, scheme: str = "smtp", login: str = "", query: str = "") -> str:
    return f"{scheme}://{login}127.0.0.1:{server.port}{query}"


def use(options: dict[str, str], use_it: Callable[[SmtpProvider], Awaitable[None]]) -> None:
    async def run() -> None:
        provider = SmtpProvider.from_options("relay", options)
        try:
            await use_it(provider)
        finally:
            await provider.close()

    asyncio.run(run())


def send(options: dict[str, str], *outgoing: Outgoing) -> None:
    async def send_all(provider: SmtpProvider) -> None:
        for each in outgoing:
            await provider.send(each, deadline_seconds=DEADLINE_SECONDS)

    use(options, send_all)


# Connections that are kept.


def test_connections_are_reused() -> None:
    with running_mail_server() as server:
        send({"url": url_of(server)}, *(make_outgoing() for _ in range(20)))
    assert (server.received, server.connections) == (20, 1)


def test_a_connection_is_replaced_after_max_messages() -> None:
    with running_mail_server() as server:
        send({"url": url_of(server), "max_messages": "2"}, *(make_outgoing() for _ in range(5)))
    assert (server.received, server.connections) == (5, 3)


def test_no_more_than_max_connections_are_opened() -> None:
    with running_mail_server(MailServer([Rule("*", stage="body", delay_seconds=0.02)])) as server:

        async def send_at_once(provider: SmtpProvider) -> None:
            sends = (provider.send(make_outgoing(), deadline_seconds=DEADLINE_SECONDS) for _ in range(20))
            await asyncio.gather(*sends)

        use({"url": url_of(server), "max_connections": "3"}, send_at_once)
    assert (server.received, server.peak_connections) == (20, 3)


def test_waiting_for_a_free_connection_counts_towards_the_deadline() -> None:
    with running_mail_server(MailServer([Rule("slow@*", stage="rcpt", action="silent")])) as server:

        async def send_two(provider: SmtpProvider) -> None:
            slow = asyncio.create_task(
                provider.send(make_outgoing("slow@example.com"), deadline_seconds=patient(0.5))
            )
            await asyncio.sleep(0)
            with pytest.raises(Unavailable, match="no free or new connection within"):
                await provider.send(make_outgoing(), deadline_seconds=patient(0.1))
            with pytest.raises(Unavailable, match="no answer to RCPT"):
                await slow

        use({"url": url_of(server), "max_connections": "1"}, send_two)
    assert server.received == 0


def test_a_connection_that_died_at_rest_loses_no_mail() -> None:
    with running_mail_server() as server:

        async def send_across_a_restart(provider: SmtpProvider) -> None:
            await provider.send(make_outgoing(), deadline_seconds=DEADLINE_SECONDS)
            server.drop_connections_threadsafe()
            await provider.send(make_outgoing(), deadline_seconds=DEADLINE_SECONDS)

        use({"url": url_of(server)}, send_across_a_restart)
    assert (server.received, server.connections) == (2, 2)


@pytest.mark.parametrize(
    "farewell",
    [
        Rule("*", "421 4.4.2 idle too long", times=1, stage="mail"),
        Rule("*", stage="mail", times=1, action="close_before_reply"),
    ],
    ids=["421", "reset"],
)
def test_a_kept_connection_that_ends_at_mail_from_is_replaced(farewell: Rule) -> None:
    with running_mail_server() as server:

        async def send_two(provider: SmtpProvider) -> None:
            await provider.send(make_outgoing(), deadline_seconds=DEADLINE_SECONDS)
            server.faults.add(farewell)
            await provider.send(make_outgoing(), deadline_seconds=DEADLINE_SECONDS)

        use({"url": url_of(server)}, send_two)
    assert (server.received, server.connections) == (2, 2)


def test_a_421_on_a_fresh_connection_is_an_answer() -> None:
    with (
        running_mail_server(MailServer([Rule("*", "421 4.3.2 too busy", stage="mail")])) as server,
        pytest.raises(Unavailable, match="too busy"),
    ):
        send({"url": url_of(server)}, make_outgoing())
    assert server.connections == 1


def test_a_refusal_keeps_the_connection_and_resets_it() -> None:
    with running_mail_server(MailServer([Rule("gone@*", "550 5.1.1 no such user")])) as server:

        async def send_two(provider: SmtpProvider) -> None:
            with pytest.raises(Rejected):
                await provider.send(make_outgoing("gone@example.com"), deadline_seconds=DEADLINE_SECONDS)
            await provider.send(make_outgoing(), deadline_seconds=DEADLINE_SECONDS)

        use({"url": url_of(server)}, send_two)
    assert server.connections == 1
    assert [mail.rcpt_to for mail in server.messages] == [("zoe@example.com",)]


def make_lines(server: MailServer, **limits: float) -> Lines:
    async def connect() -> aiosmtplib.SMTP:
        smtp = aiosmtplib.SMTP(hostname="127.0.0.1", port=server.port, timeout=None, local_hostname="localhost")
        await smtp.connect()
        return smtp

    limits.setdefault("max_age_seconds", 60)
    return Lines(connect, lambda error: pytest.fail(str(error)), max_connections=2, max_messages=10, **limits)


async def send_by(lines: Lines) -> object:
    errand = Errand()
    lines.put(make_letter(errand, deadline_seconds=DEADLINE_SECONDS))
    return await errand.answer


def send_together(server: MailServer, count: int, **options: str) -> None:
    async def send_all(provider: SmtpProvider) -> None:
        mails = (make_outgoing(f"user{number}@example.com") for number in range(count))
        await asyncio.gather(*(provider.send(mail, deadline_seconds=30) for mail in mails))

    use({"url": url_of(server), **options}, send_all)
    assert len({mail.rcpt_to for mail in server.messages}) == count


def test_a_server_that_takes_its_time_gets_more_connections() -> None:
    with running_mail_server(MailServer([Rule("*", stage="body", delay_seconds=0.1)])) as server:
        send_together(server, 1000)
    assert 40 <= server.peak_connections <= 200


def test_no_more_connections_than_allowed() -> None:
    with running_mail_server(MailServer([Rule("*", stage="body", delay_seconds=0.02)])) as server:
        send_together(server, 200, max_connections="30")
    assert server.peak_connections <= 30


def test_a_server_that_takes_fewer_connections_gets_every_mail_by_those() -> None:
    with running_mail_server(
        MailServer([Rule("*", stage="body", delay_seconds=0.01)], max_connections=3)
    ) as server:
        send_together(server, 60)
    # Every other one was sent away with a 421, and not asked for once for each mail.
    assert server.peak_connections <= 21
    assert server.connections < 60


def test_a_server_that_takes_no_connection_is_unavailable() -> None:
    with (
        running_mail_server(MailServer(max_connections=0)) as server,
        pytest.raises(Throttled, match="too many connections"),
    ):
        send({"url": url_of(server)}, make_outgoing())


def test_who_gives_up_waiting_for_a_connection_is_not_sent_and_takes_none_from_others() -> None:
    with running_mail_server(MailServer([Rule("*", stage="body", delay_seconds=0.05)])) as server:

        async def give_up_one(provider: SmtpProvider) -> None:
            mails = (make_outgoing(f"user{number}@example.com") for number in range(4))
            sends = [asyncio.create_task(provider.send(mail, deadline_seconds=30)) for mail in mails]
            await asyncio.sleep(0)
            sends[2].cancel()
            await asyncio.gather(sends[0], sends[1], sends[3])

        use({"url": url_of(server), "max_connections": "1"}, give_up_one)
    assert sorted(mail.rcpt_to[0][:5] for mail in server.messages) == ["user0", "user1", "user3"]


def test_a_connection_at_rest_is_asked_before_it_is_used_again() -> None:
    with running_mail_server() as server:

        async def run() -> None:
            lines = make_lines(server, check_after_seconds=0)
            await send_by(lines)
            await send_by(lines)
            assert server.connections == 1
            server.drop_connections_threadsafe()
            await send_by(lines)
            await lines.close()

        asyncio.run(run())
    assert (server.received, server.connections) == (3, 2)


def test_an_old_connection_is_closed_even_if_nobody_asks_for_it() -> None:
    with running_mail_server() as server:

        async def run() -> None:
            lines = make_lines(server, max_age_seconds=0.05)
            await send_by(lines)
            await until(lambda: server.open_connections == 0)
            await lines.close()

        asyncio.run(run())


def test_an_old_connection_is_not_used_again() -> None:
    with running_mail_server() as server:

        async def run() -> None:
            lines = make_lines(server, max_age_seconds=0.02)
            await send_by(lines)
            await asyncio.sleep(0.05)
            await send_by(lines)
            await until(lambda: server.open_connections == 0)
            await lines.close()

        asyncio.run(run())
    assert (server.received, server.connections) == (2, 2)


def test_a_connection_that_opens_while_the_provider_closes_is_closed_too() -> None:
    with running_mail_server(MailServer([Rule("*", stage="connect", delay_seconds=0.05)])) as server:

        async def run() -> None:
            lines = make_lines(server)
            opening = asyncio.create_task(send_by(lines))
            await until(lambda: server.open_connections == 1)
            await lines.close()
            assert "being closed" in str(await opening)
            await until(lambda: server.open_connections == 0)

        asyncio.run(run())


def test_a_send_on_a_closed_provider_is_surely_not_accepted() -> None:
    async def close_first(provider: SmtpProvider) -> None:
        await provider.close()
        with pytest.raises(Unavailable, match="being closed"):
            await provider.send(make_outgoing(), deadline_seconds=DEADLINE_SECONDS)

    use({"url": "smtp://127.0.0.1:1"}, close_first)


def test_a_check_keeps_its_deadline() -> None:
    async def ask(provider: SmtpProvider) -> None:
        with pytest.raises(Unavailable, match="did not answer within"):
            await provider.check(deadline_seconds=patient(0.1))

    with running_mail_server(MailServer([Rule("*", stage="connect", action="silent")])) as server:
        use({"url": url_of(server)}, ask)


def test_closing_closes_idle_and_busy_connections_and_turns_the_waiting_away() -> None:
    rule = Rule("slow@*", stage="rcpt", action="silent")
    with running_mail_server(MailServer([rule])) as server:

        async def close_at_work(provider: SmtpProvider) -> None:
            await asyncio.gather(*(provider.send(make_outgoing(), deadline_seconds=30) for _ in range(2)))
            mails = [make_outgoing("slow@example.com"), *(make_outgoing() for _ in range(2))]
            server.faults.add(Rule("*", stage="rcpt", action="silent"))
            sends = [asyncio.create_task(provider.send(mail, deadline_seconds=30)) for mail in mails]
            await asyncio.sleep(0.05)
            await provider.close()
            ends = await asyncio.gather(*sends, return_exceptions=True)
            assert [type(end) for end in ends] == [Unavailable] * 3
            assert "being closed" in str(ends[2])
            await until(lambda: server.open_connections == 0)

        use({"url": url_of(server), "max_connections": "2"}, close_at_work)


async def until(holds: Callable[[], object]) -> None:
    async with asyncio.timeout(patient(DEADLINE_SECONDS)):
        while not holds():
            await asyncio.sleep(0.005)


def test_a_mail_whose_end_never_left_us_is_not_in_doubt() -> None:
    with reading_stops_after_354() as port:
        huge = make_outgoing(text="x" * 60 + "\n", html="y" * 5_000_000)
        with pytest.raises(Unavailable, match="did not read the whole mail"):
            asyncio.run(send_within(port, huge, patient(1)))


def test_a_small_mail_that_nobody_answers_is_in_doubt() -> None:
    with reading_stops_after_354() as port, pytest.raises(OutcomeUnknown):
        asyncio.run(send_within(port, make_outgoing(), patient(0.3)))


async def send_within(port: int, outgoing: Outgoing, deadline_seconds: float) -> None:
    provider = SmtpProvider.from_options("relay", {"url": f"smtp://127.0.0.1:{port}"})
    try:
        await provider.send(outgoing, deadline_seconds=deadline_seconds)
    finally:
        await provider.close()


@contextlib.contextmanager
def reading_stops_after_354() -> Iterator[int]:
    """A server that asks for the mail and then reads no more."""
    listening = socket.create_server(("127.0.0.1", 0))
    # Else the system would read on, for some megabytes.
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16384)
    done = threading.Event()

    def serve() -> None:
        client, _ = listening.accept()
        with client, client.makefile("rb") as lines:
            client.sendall(b"220 ready\r\n")
            for line in lines:
                client.sendall(b"354 go on\r\n" if line.startswith(b"DATA") else b"250 ok\r\n")
                if line.startswith(b"DATA"):
                    break
            done.wait(DEADLINE_SECONDS)

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    with listening:
        yield listening.getsockname()[1]
        done.set()
        thread.join(DEADLINE_SECONDS)


# Several commands in one write.


@contextlib.contextmanager
def running_script(extensions: str, answers: dict[bytes, bytes], heard: list[list[bytes]]) -> Iterator[int]:
    """A server that answers each command by its first word; `heard` has the lines of each of its connections."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve(client: socket.socket, lines: list[bytes]) -> None:
        in_body = False
        with contextlib.suppress(ConnectionError), client, client.makefile("rb") as incoming:
            client.sendall(b"220 ready\r\n")
            for line in incoming:
                lines.append(line.rstrip())
                word = line.split()[0].upper() if line.split() else b""
                if in_body:
                    in_body = lines[-1] != b"."
                    if not in_body:
                        client.sendall(b"250 ok\r\n")
                elif word == b"EHLO":
                    client.sendall(b"250-hello\r\n250 " + extensions.encode() + b"\r\n")
                else:
                    answer = answers.get(word, b"354 go on\r\n" if word == b"DATA" else b"250 ok\r\n")
                    in_body = word == b"DATA" and answer.startswith(b"354")
                    client.sendall(answer)

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = listening.accept()
                heard.append([])
                threading.Thread(target=serve, args=(client, heard[-1]), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    with listening:
        yield listening.getsockname()[1]


def words(lines: list[bytes]) -> list[bytes]:
    return [line.split()[0] for line in lines if line.split() and line.split()[0].isupper() and line[:1] != b"X"]


def test_commands_go_one_by_one_where_pipelining_is_not_offered() -> None:
    heard: list[list[bytes]] = []
    refusal = {b"RCPT": b"550 5.1.1 no such user\r\n"}
    with running_script("8BITMIME", refusal, heard) as port, pytest.raises(Rejected):
        asyncio.run(send_within(port, make_outgoing(), DEADLINE_SECONDS))
    assert words(heard[0])[:4] == [b"EHLO", b"MAIL", b"RCPT", b"QUIT"]


def test_a_server_that_asks_for_the_body_of_a_refused_mail_gets_none() -> None:
    heard: list[list[bytes]] = []
    answers = {b"RCPT": b"550 5.1.1 no such user\r\n"}

    async def send_two(provider: SmtpProvider) -> None:
        with pytest.raises(Rejected, match="no such user"):
            await provider.send(make_outgoing(), deadline_seconds=DEADLINE_SECONDS)
        answers.clear()
        await provider.send(make_outgoing(), deadline_seconds=DEADLINE_SECONDS)

    with running_script("PIPELINING", answers, heard) as port:
        use({"url": f"smtp://127.0.0.1:{port}"}, send_two)
    assert words(heard[0]) == [b"EHLO", b"MAIL", b"RCPT", b"DATA"]
    assert b"." not in heard[0]
    assert b"." in heard[1]


def test_what_a_server_says_unasked_is_no_answer_to_the_next_mail() -> None:
    heard: list[list[bytes]] = []

    # A reply too many: taken for the answer to the next command, it would call a mail accepted that was refused.
    answers = {b"DATA": b"354 go on\r\n", b"RCPT": b"250 ok\r\n"}
    with running_script("8BITMIME", answers, heard) as port:

        async def run(provider: SmtpProvider) -> None:
            await provider.send(make_outgoing(), deadline_seconds=DEADLINE_SECONDS)
            answers[b"MAIL"] = b"250 ok\r\n421 4.3.0 going down\r\n"
            with pytest.raises(Unavailable, match="going down"):
                await provider.send(make_outgoing(), deadline_seconds=DEADLINE_SECONDS)
            del answers[b"MAIL"]
            await provider.send(make_outgoing(), deadline_seconds=DEADLINE_SECONDS)

        use({"url": f"smtp://127.0.0.1:{port}"}, run)
    assert len(heard) == 2


# TLS and logins.


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A self-signed certificate for 127.0.0.1 and its key, in one file."""
    folder = tmp_path_factory.mktemp("tls")
    both, key = folder / "both.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=localhost",
         "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", str(key), "-out", str(both)],
        check=True,
        capture_output=True,
    )  # fmt: skip
    both.write_text(both.read_text() + key.read_text())
    return both


@pytest.fixture
def tls(certificate: Path) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(certificate)
    return context


def check(options: dict[str, str]) -> str:
    said: list[str] = []

    async def ask(provider: SmtpProvider) -> None:
        said.append(await provider.check(deadline_seconds=DEADLINE_SECONDS))

    use(options, ask)
    return said[0]


@pytest.mark.parametrize(
    ("scheme", "query", "expected"),
    [
        ("smtp", "", "127.0.0.1 answered 220, STARTTLS, authenticated"),
        ("smtp", "?starttls=required", "127.0.0.1 answered 220, STARTTLS, authenticated"),
        ("smtp", "?starttls=never", "127.0.0.1 answered 220, not encrypted, authenticated"),
        ("smtps", "", "127.0.0.1 answered 220, TLS, authenticated"),
    ],
)
def test_a_login_works_by_every_way_of_encryption(
    tls: ssl.SSLContext, certificate: Path, scheme: str, query: str, expected: str
) -> None:
    server = MailServer(options=MailServerOptions(tls=tls, implicit_tls=scheme == "smtps", users={"shop": "p:/é"}))
    with running_mail_server(server):
        options = {"url": url_of(server, scheme, "shop:p%3A%2F%C3%A9@", query), "ca_file": str(certificate)}
        send(options, make_outgoing(), make_outgoing())
        assert check(options) == expected
    assert server.received == 2


def test_an_unknown_certificate_makes_messages_wait(tls: ssl.SSLContext) -> None:
    for scheme in ("smtp", "smtps"):
        with running_mail_server(
            MailServer(options=MailServerOptions(tls=tls, implicit_tls=scheme == "smtps"))
        ) as server:
            with pytest.raises(Unavailable, match=r"no TLS.*self-signed certificate.*set ca_file") as failed:
                send({"url": url_of(server, scheme)}, make_outgoing())
            assert failed.value.reason is Reason.PROVIDER_ACCOUNT
            send({"url": url_of(server, scheme), "verify": "false"}, make_outgoing())
            assert server.received == 1


def test_a_trusted_certificate_of_another_host_makes_messages_wait(tmp_path: Path) -> None:
    both = make_certificate(tmp_path, "DNS:other.example.com")
    for scheme in ("smtp", "smtps"):
        tls = MailServerOptions(tls=server_context(both), implicit_tls=scheme == "smtps", users={"shop": "p"})
        with running_mail_server(MailServer(options=tls)) as server:
            options = {"url": url_of(server, scheme, "shop:p@"), "ca_file": str(both)}
            with pytest.raises(Unavailable, match=r"not valid for '127\.0\.0\.1'.*; write its name in the URL"):
                send(options, make_outgoing())
        assert server.received == 0


def test_no_mail_goes_out_when_required_starttls_is_not_offered() -> None:
    with running_mail_server() as server, pytest.raises(Unavailable, match="STARTTLS") as failed:
        send({"url": url_of(server, query="?starttls=required")}, make_outgoing())
    assert failed.value.reason is Reason.PROVIDER_ACCOUNT
    assert server.received == 0


@pytest.mark.parametrize("login", ["shop:wrong@", "nobody:secret@", ""])
def test_a_refused_login_makes_messages_wait(login: str) -> None:
    with (
        running_mail_server(MailServer(options=MailServerOptions(users={"shop": "secret"}))) as server,
        pytest.raises(Unavailable) as failed,
    ):
        send({"url": url_of(server, login=login)}, make_outgoing())
    assert failed.value.reason is Reason.PROVIDER_ACCOUNT
    assert failed.value.code in ("535 5.7.8", "530 5.7.0")
    assert server.received == 0


def test_a_server_without_logins_makes_messages_wait_when_one_is_configured() -> None:
    with running_mail_server() as server, pytest.raises(Unavailable) as failed:
        send({"url": url_of(server, login="shop:secret@")}, make_outgoing())
    assert failed.value.reason is Reason.PROVIDER_ACCOUNT


# The mail itself.


@pytest.mark.parametrize(
    ("subject", "text", "html"),
    [
        ("Votre commande est expédiée", "Bonjour Zoé,\n\nà demain.\n", "<p>Bonjour Zoé, à demain.</p>"),
        ("您的订单已发货", "您好，\n\n明天送达。\n", "<p>您好，明天送达。</p>"),
        ("Dots", ".\n..\n.hidden\n\n.\n", "<p>.\n.</p>"),
    ],
)
def test_a_mail_arrives_as_it_was_meant(subject: str, text: str, html: str) -> None:
    with running_mail_server() as server:
        send(
            {"url": url_of(server)}, make_outgoing("Zoé <zoe@example.com>", subject=subject, text=text, html=html)
        )
    (mail,) = server.messages
    message = email.message_from_bytes(mail.content, policy=email.policy.default)
    assert (mail.mail_from, mail.rcpt_to) == ("hello@shop.example.com", ("zoe@example.com",))
    assert message["subject"] == subject
    plain, html_part = message.iter_parts()
    assert plain.get_content() == text.replace("\n", "\r\n")
    assert html_part.get_content() == html.replace("\n", "\r\n") + "\r\n"
    assert all(part.defects == [] for part in message.walk())


@pytest.mark.parametrize(
    ("options", "domain"),
    [({}, "shop.example.com"), ({"message_id_domain": "mail.example.org"}, "mail.example.org")],
)
def test_every_attempt_has_the_same_message_id(options: dict[str, str], domain: str) -> None:
    notification_id = uuid4()
    with running_mail_server() as server:
        twice = [make_outgoing(notification_id=notification_id) for _ in range(2)]
        send({"url": url_of(server), **options}, *twice)
    assert {mail.message_id for mail in server.messages} == {f"<{notification_id}@{domain}>"}


def test_an_internationalised_domain_travels_in_ascii() -> None:
    with running_mail_server(MailServer(options=MailServerOptions(smtputf8=False))) as server:
        send({"url": url_of(server)}, make_outgoing("zoe@bücher.example"))
    assert server.messages[0].rcpt_to == ("zoe@xn--bcher-kva.example",)


def test_a_non_ascii_local_part_is_sent_where_the_server_can_take_it() -> None:
    with running_mail_server() as server:
        send({"url": url_of(server)}, make_outgoing("zoé@example.com"))
    assert server.messages[0].rcpt_to == ("zoé@example.com",)


def test_a_non_ascii_local_part_is_rejected_where_the_server_cannot() -> None:
    with running_mail_server(MailServer(options=MailServerOptions(smtputf8=False))) as server:
        with pytest.raises(Rejected, match="SMTPUTF8") as rejected:
            send({"url": url_of(server)}, make_outgoing("zoé@example.com"))
        with pytest.raises(Unavailable, match="SMTPUTF8"):
            send({"url": url_of(server)}, make_outgoing(sender="zoé@example.com"))
    assert rejected.value.reason is Reason.INVALID_RECIPIENT


def test_a_mail_larger_than_the_server_takes_is_rejected_unsent() -> None:
    with (
        running_mail_server(MailServer(options=MailServerOptions(max_size=2000))) as server,
        pytest.raises(Rejected) as rejected,
    ):
        send({"url": url_of(server)}, make_outgoing(text="x\n" * 2000))
    assert rejected.value.reason is Reason.CONTENT_REFUSED


def test_what_is_no_address_is_rejected_and_a_bad_sender_waits() -> None:
    nowhere = {"url": "smtp://127.0.0.1:1"}
    with pytest.raises(Rejected) as rejected:
        send(nowhere, make_outgoing("zoe@example.com>\r\nRCPT TO:<eve@example.com"))
    assert rejected.value.reason is Reason.INVALID_RECIPIENT
    with pytest.raises(Unavailable, match="configured sender") as waiting:
        send(nowhere, make_outgoing(sender="Corner Shop"))
    assert waiting.value.reason is Reason.SENDER_REFUSED
