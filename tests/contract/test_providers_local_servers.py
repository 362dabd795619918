"""The local servers, asked by clients that are not ours: smtplib for mail, urllib for Twilio."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import smtplib
import socket
import time
from collections.abc import Callable, Iterator
from email.message import EmailMessage
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import Request, urlopen

import pytest

from notifier.dev.smtp_server import MailServer, MailServerOptions, Rule, running_mail_server
from notifier.dev.twilio_server import TwilioServer, running_twilio_server
from tests.waiting import patient, wait_until


def make_message(to: str = "zoe@example.com", body: str = "Hello\n") -> EmailMessage:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "hello@shop.example.com", to, "Hello"
    message["Message-ID"] = "<1@shop.example.com>"
    message.set_content(body)
    return message


@contextlib.contextmanager
def client_of(server: MailServer) -> Iterator[smtplib.SMTP]:
    with smtplib.SMTP("127.0.0.1", server.port, timeout=patient(5)) as client:
        yield client


def test_the_mail_server_keeps_what_it_gets() -> None:
    with running_mail_server() as server, client_of(server) as client:
        client.send_message(make_message(body=".\n..\nend\n"))
        client.send_message(make_message("王@example.com"), to_addrs=["王@example.com", "b@example.com"])
    first, second = server.messages
    assert (first.mail_from, first.rcpt_to) == ("hello@shop.example.com", ("zoe@example.com",))
    assert first.content.endswith(b"\r\n\r\n.\r\n..\r\nend\r\n")
    assert first.message_id == "<1@shop.example.com>"
    assert second.rcpt_to == ("王@example.com", "b@example.com")


def test_the_mail_server_writes_files_that_people_can_find(tmp_path: Path) -> None:
    with running_mail_server(MailServer(folder=tmp_path / "mail")) as server, client_of(server) as client:
        client.send_message(make_message())
        client.sendmail("a@example.com", ["../../etc/x@example.com"], b"Subject: x\r\n\r\n")
    first, second = sorted((tmp_path / "mail").iterdir(), key=lambda path: path.name[16:])
    assert first.name.endswith("-000001-zoe@example.com.eml")
    assert first.read_bytes() == server.messages[0].content
    assert second.name.endswith("-000002-.._.._etc_x@example.com.eml")


def test_a_mailbox_that_is_greylisted_takes_the_second_try() -> None:
    rules = [Rule("later@*", "451 4.7.1 greylisted", times=1)]
    with running_mail_server(MailServer(rules)) as server, client_of(server) as client:
        for address in ("later@example.com", "later@example.org"):
            with pytest.raises(smtplib.SMTPRecipientsRefused):
                client.send_message(make_message(address))
            client.send_message(make_message(address))
    assert server.received == 2


def test_pipelined_commands_are_answered_in_order() -> None:
    commands = b"EHLO x\r\nMAIL FROM:<a@example.com>\r\nRCPT TO:<b@example.com>\r\nDATA\r\n.\r\nQUIT\r\n"
    with running_mail_server() as server, socket.create_connection(("127.0.0.1", server.port), 5) as client:
        client.sendall(commands)
        replies = b"".join(iter(lambda: client.recv(4096), b"")).decode().splitlines()
    codes = [line[:3] for line in replies if line[3:4] == " "]
    assert codes == ["220", "250", "250", "250", "354", "250", "221"]
    assert server.messages[0].content == b""


@pytest.mark.parametrize(
    ("dialogue", "code"),
    [
        (["RCPT TO:<b@example.com>"], 503),
        (["MAIL FROM:<a@example.com>"], 503),
        (["EHLO x", "MAIL FROM:a@example.com"], 501),
        (["EHLO x", "MAIL FROM:<a@example.com> SIZE=99999999"], 552),
        (["EHLO x", "MAIL FROM:<a@example.com>", "DATA"], 554),
        (["EHLO x", "MAIL FROM:<a@example.com>", "MAIL FROM:<a@example.com>"], 503),
        (["EHLO x", "AUTH PLAIN AAAA"], 503),
        (["EHLO x", "STARTTLS"], 454),
        (["EHLO x", "TURN"], 500),
        (["HELO x"], 250),
        (["VRFY b"], 252),
        (["x" * 20_000], 500),
    ],
)
def test_the_mail_server_keeps_to_the_order_of_commands(dialogue: list[str], code: int) -> None:
    with running_mail_server() as server, client_of(server) as client:
        assert [client.docmd(line)[0] for line in dialogue][-1] == code


def test_a_mail_above_the_limit_is_refused() -> None:
    with (
        running_mail_server(MailServer(options=MailServerOptions(max_size=1000))) as server,
        client_of(server) as client,
    ):
        client.ehlo()
        client.esmtp_features.pop("size")
        with pytest.raises(smtplib.SMTPDataError) as refused:
            client.sendmail("a@example.com", ["b@example.com"], b"x\r\n" * 500)
    assert refused.value.smtp_code == 552
    assert server.received == 0


def test_a_delayed_answer_comes() -> None:
    rules = [Rule("*", delay_seconds=0.05)]
    with running_mail_server(MailServer(rules)) as server, client_of(server) as client:
        client.send_message(make_message())
    assert server.received == 1


@pytest.mark.parametrize("method", ["auth_plain", "auth_login"])
def test_the_mail_server_knows_plain_and_login(method: str) -> None:
    with (
        running_mail_server(MailServer(options=MailServerOptions(users={"shop": "secret"}))) as server,
        client_of(server) as client,
    ):
        client.ehlo()
        client.user, client.password = "shop", "secret"
        assert client.auth(method.removeprefix("auth_").upper(), getattr(client, method))[0] == 235
        client.send_message(make_message())
    assert server.received == 1


def test_only_the_newest_mails_stay_in_memory() -> None:
    with running_mail_server(MailServer(keep=10)) as server, client_of(server) as client:
        for _ in range(25):
            client.send_message(make_message())
    assert server.received == 25
    assert len(server.messages) <= 11


def test_a_server_can_be_started_again_on_its_port() -> None:
    with running_mail_server() as server:
        port = server.port
    with running_mail_server(server, port=port), client_of(server) as client:
        client.send_message(make_message())
    assert server.received == 1


def test_a_port_that_is_taken_is_said_at_once() -> None:
    with (
        running_mail_server() as server,
        pytest.raises(OSError, match="in use"),
        running_mail_server(port=server.port),
    ):
        pass
    with running_twilio_server() as twilio, pytest.raises(OSError, match="in use"):
        running_twilio_server(port=twilio.port).__enter__()


# Twilio.


def ask(
    server: TwilioServer, path: str, form: dict[str, str] | None = None, token: str | None = None
) -> tuple[int, Any]:
    """Status and content of the answer."""
    login = base64.b64encode(f"{server.account_sid}:{token or server.auth_token}".encode()).decode()
    url = f"{server.url}/2010-04-01/Accounts/{server.account_sid}{path}"
    data = urlencode(form).encode() if form else None
    try:
        with urlopen(Request(url, data, {"Authorization": f"Basic {login}"}), timeout=patient(5)) as response:
            return response.status, json.load(response)
    except HTTPError as error:
        with error:
            return error.code, json.load(error)


FORM = {"To": "+15550100123", "From": "+15550100100", "Body": "é" * 161}


def test_a_new_message_has_every_field_of_twilios_resource() -> None:
    with running_twilio_server() as server:
        status, message = ask(server, "/Messages.json", FORM)
    assert status == 201
    assert len(message["sid"]) == 34
    assert (message["status"], message["direction"], message["num_media"]) == ("queued", "outbound-api", "0")
    assert message["num_segments"] == "2"
    assert parsedate_to_datetime(message["date_created"]).tzinfo is not None
    assert message["date_sent"] is None
    assert set(message) == {
        "account_sid", "api_version", "body", "date_created", "date_sent", "date_updated", "direction",
        "error_code", "error_message", "from", "messaging_service_sid", "num_media", "num_segments", "price",
        "price_unit", "sid", "status", "subresource_uris", "to", "uri",
    }  # fmt: skip


def test_a_message_can_be_fetched_and_found() -> None:
    with running_twilio_server() as server:
        sid = ask(server, "/Messages.json", FORM)[1]["sid"]
        ask(server, "/Messages.json", FORM | {"To": "+15550100199"})
        today = time.strftime("%Y-%m-%d", time.gmtime())
        nothing = ask(server, "/Messages.json?To=%2B15550100123&DateSent%3C=2020-01-01")[1]
        until(lambda: ask(server, f"/Messages/{sid}.json")[1]["status"] == "delivered")
        found = ask(server, f"/Messages.json?To=%2B15550100123&DateSent={today}")[1]
        pages = ask(server, "/Messages.json?PageSize=1")[1]
    assert [message["sid"] for message in found["messages"]] == [sid]
    assert nothing["messages"] == []
    assert "Page=1" in pages["next_page_uri"]


def until(holds: Callable[[], bool]) -> None:
    wait_until(holds, every=0.005)


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"To": ""}, 21604),
        ({"To": "555"}, 21211),
        ({"From": ""}, 21603),
        ({"Body": ""}, 21602),
        ({"StatusCallback": "ftp://x"}, 21609),
        ({"MessagingServiceSid": "MG1"}, 21705),
        ({"ValidityPeriod": "0"}, 20001),
    ],
)
def test_a_refusal_has_twilios_shape(changes: dict[str, str], code: int) -> None:
    with running_twilio_server() as server:
        status, body = ask(server, "/Messages.json", FORM | changes)
    assert (status, body["code"], body["status"]) == (400, code, 400)
    assert body["message"]
    assert str(code) in body["more_info"]


def test_strangers_and_unknown_paths_are_refused() -> None:
    with running_twilio_server() as server:
        assert ask(server, ".json", token="wrong")[1]["code"] == 20003
        assert ask(server, "/Messages/SM1.json")[1]["code"] == 20404
        assert ask(server, "/Nothing.json")[1]["code"] == 20404
        assert ask(server, ".json")[1]["status"] == "active"


def test_both_servers_run_in_a_loop_of_the_callers_too() -> None:
    async def run() -> None:
        mail, twilio = MailServer(), TwilioServer()
        await mail.start()
        await twilio.start()
        assert mail.port
        assert twilio.port
        await mail.stop()
        await twilio.stop()

    asyncio.run(run())
