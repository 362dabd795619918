"""Bounces on a real Postgres: what they say, whose they are; early, twice, shuffled, forged; by LMTP and pipe."""

from __future__ import annotations

import os
import smtplib
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from itertools import permutations
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from notifier.dev.machine import free_port
from notifier.domain.errors import ConfigurationError, ServiceUnavailable
from notifier.domain.message import new_id
from notifier.domain.statuses import Outcome, Status
from notifier.feedback.bounce_server import KEPT_BYTES, MAX_MAIL_BYTES, BounceServerLimits, serve
from notifier.feedback.bounces import Bounces, Taken
from notifier.store.engine import transaction
from notifier.store.provider_reports import LISTED_REPORTS
from tests.support import bounce_mails as mails
from tests.support import forking
from tests.support.bounced import ADDRESS, KEY, Mails
from tests.support.templates import write_template, write_templates
from tests.unit.cli.commandline import CommandLine
from tests.waiting import patient, wait_until


@pytest.fixture
def sent(database_url: str, tmp_path: Path) -> Iterator[Mails]:
    templates = write_templates(tmp_path / "templates")
    write_template(templates, "digest", 'category = "digest"')
    made = Mails(database_url, templates)
    yield made
    made.services.close()


@pytest.mark.parametrize("mail", [mails.POSTFIX, mails.EXIM, mails.EXCHANGE, mails.GMAIL, mails.QMAIL_LOCAL])
def test_a_dead_address_is_undelivered_and_suppressed(sent: Mails, mail: str) -> None:
    id_ = sent.send()
    assert sent.bounce(mail, id_) is Taken.RECORDED
    assert sent.state(id_) == (Status.UNDELIVERED, "invalid_recipient")
    [words] = sent.said(id_)
    assert words.startswith(("failed 5.1.1", "failed 5.1.10"))
    assert "zoe" not in words
    assert sent.story(id_).notification.detail == words
    [found] = sent.suppressed()
    assert (found.scope, found.reason, found.source) == ("global", "hard_bounce", "bounce")
    assert (found.notification_id, found.expires_at) == (id_, None)


def test_the_same_report_again_changes_nothing(sent: Mails) -> None:
    id_ = sent.send()
    assert sent.bounce(mails.POSTFIX, id_) is Taken.RECORDED
    before = sent.story(id_)
    assert sent.bounce(mails.POSTFIX, id_) is Taken.REPEATED
    assert sent.story(id_) == before
    assert len(sent.suppressed()) == 1


def test_reports_without_end_about_one_mail_have_an_end_in_its_story(sent: Mails) -> None:
    id_, other = sent.send(), sent.send()
    assert sent.bounce(mails.POSTFIX, id_) is Taken.RECORDED
    with transaction(sent.services.engine) as connection:
        connection.execute(
            text(
                "INSERT INTO events (notification_id, kind, attempt, detail) "
                "SELECT n.id, 'provider', 1, 'no ' || i "
                "FROM unnest(CAST(:ids AS uuid[])) AS n(id), generate_series(1, :most) AS i"
            ),
            {"ids": [id_, other], "most": LISTED_REPORTS},
        )
    before = sent.story(id_)
    assert sent.bounce(mails.EXCHANGE, id_) is Taken.REPEATED
    assert sent.story(id_) == before
    # What moves its status, and a complaint, is told all the same.
    assert sent.bounce(mails.POSTFIX, other) is Taken.RECORDED
    assert sent.state(other) == (Status.UNDELIVERED, "invalid_recipient")
    assert sent.bounce(mails.COMPLAINT, id_) is Taken.RECORDED
    assert {found.reason for found in sent.suppressed()} == {"hard_bounce", "complaint"}


def test_every_order_of_reports_and_of_our_own_result_ends_alike(sent: Mails) -> None:
    for order in permutations(("own", mails.POSTFIX_DELAYED, mails.POSTFIX)):
        claim = sent.start()
        for step in order:
            if step == "own":
                sent.accepted(claim)
            else:
                assert sent.bounce(step, claim.id) is Taken.RECORDED
        assert sent.state(claim.id) == (Status.UNDELIVERED, "invalid_recipient")
        [attempt] = sent.story(claim.id).attempts
        assert attempt.outcome == Outcome.ACCEPTED
        assert len(sent.said(claim.id)) == 2


def test_a_delay_moves_nothing_but_a_call_whose_outcome_nobody_knew(sent: Mails) -> None:
    id_ = sent.send()
    assert sent.bounce(mails.POSTFIX_DELAYED, id_) is Taken.RECORDED
    assert sent.state(id_) == (Status.SENT, None)
    assert sent.said(id_) == [
        "delayed 4.4.1, by mx.example.net: connect to mx.example.net[192.0.2.25]:25: Connection timed out"
    ]
    claim = sent.start()
    sent.bounce(mails.POSTFIX_DELAYED, claim.id)
    assert sent.state(claim.id) == (Status.SENT, None)
    assert sent.suppressed() == []


def test_three_soft_bounces_suppress_for_a_while(sent: Mails) -> None:
    for count in (1, 2, 3):
        id_ = sent.send()
        mail = mails.POSTFIX_FULL if count == 2 else mails.POSTFIX_EXPIRED
        assert sent.bounce(mail, id_) is Taken.RECORDED
        assert sent.bounce(mail, id_) is Taken.REPEATED
        assert sent.state(id_) == (Status.UNDELIVERED, "unreachable_recipient")
        assert len(sent.suppressed()) == (count == 3)
    [found] = sent.suppressed()
    assert found.expires_at is not None
    assert (found.expires_at - found.created_at).days in (13, 14)
    assert str(found.detail).startswith("3 soft bounces within 14 days, the last: failed 4.4.1")
    assert sent.suppressed("ann@example.net") == []


class Dies(Bounces):
    """As if we were killed after the event was written."""

    def _count_soft(self, *_: object) -> None:
        raise ServiceUnavailable("gone")


def test_a_soft_bounce_that_was_recorded_and_not_counted_is_counted_when_it_comes_again(sent: Mails) -> None:
    for _ in range(2):
        sent.bounce(mails.POSTFIX_FULL, sent.send())
    id_, whole = sent.send(), sent.services.bounces
    dies = Dies.__new__(Dies)
    dies.__dict__.update(whole.__dict__)
    with pytest.raises(ServiceUnavailable):
        dies.take(sent.mail(mails.POSTFIX_FULL, id_))
    assert (sent.state(id_)[0], sent.suppressed()) == (Status.UNDELIVERED, [])
    assert sent.bounce(mails.POSTFIX_FULL, id_) is Taken.REPEATED
    assert len(sent.suppressed()) == 1


def test_a_mail_between_that_arrived_begins_the_count_anew(sent: Mails) -> None:
    for count in range(4):
        sent.bounce(mails.POSTFIX_FULL, sent.send())
        if count == 1:
            # No bounce for five days: no relay tries longer.
            sent.age(sent.send(), days=5.1)
    assert sent.suppressed() == []
    sent.bounce(mails.POSTFIX_FULL, sent.send())
    assert len(sent.suppressed()) == 1


def test_what_is_about_us_is_undelivered_and_no_word_about_the_recipient(sent: Mails) -> None:
    ours = mails.POSTFIX.replace("Status: 5.1.1", "Status: 5.7.26").replace("550 5.1.1", "550 5.7.26")
    for _ in range(3):
        id_ = sent.send()
        sent.bounce(ours.replace("User unknown", "SPF and DKIM failed"), id_)
        assert sent.state(id_) == (Status.UNDELIVERED, "sender_refused")
    assert sent.suppressed() == []


def test_what_is_forged_or_nobody_s_changes_nothing(sent: Mails) -> None:
    id_ = sent.send()
    path = sent.path(id_)
    forged = path[:-13] + ("b" if path[-13] == "a" else "a") + path[-12:]
    for to in (forged, ADDRESS, "shop@example.com", "", path.replace("bounces", "other")):
        assert sent.bounce(mails.POSTFIX, id_, to, to=to) is Taken.FORGED
    for unknown in (sent.path(id_, 2), sent.path(new_id())):
        assert sent.bounce(mails.POSTFIX, id_, unknown) is Taken.UNKNOWN
    assert sent.bounce(mails.OUT_OF_OFFICE, id_) is Taken.NO_REPORT
    assert sent.state(id_) == (Status.SENT, None)
    assert (sent.said(id_), sent.suppressed()) == ([], [])


def test_a_folded_return_path_and_one_in_the_headers_alone_are_found(sent: Mails) -> None:
    first, second = sent.send(), sent.send()
    assert sent.bounce(mails.POSTFIX, first, sent.path(first).upper(), to="x@example.com") is Taken.RECORDED
    assert sent.bounce(mails.POSTFIX, second, "") is Taken.RECORDED


def test_a_complaint_stops_its_category_and_moves_no_status(sent: Mails) -> None:
    id_ = sent.send(template="digest")
    for named in ("zoe@example.net", "redacted@isp.example"):
        sent.bounce(mails.COMPLAINT, id_, ADDRESS, recipient=named)
    assert sent.state(id_) == (Status.SENT, None)
    assert sent.said(id_) == ["complaint: abuse"]
    [found] = sent.suppressed()
    assert (found.scope, found.reason, found.source) == ("category:digest", "complaint", "bounce")


def test_a_complaint_is_found_by_the_message_id_and_stops_its_sender_without_a_category(sent: Mails) -> None:
    id_ = sent.send()
    assert sent.bounce(mails.COMPLAINT, id_, ADDRESS, path="", recipient="redacted") is Taken.RECORDED
    [found] = sent.suppressed()
    assert (found.scope, found.reason) == ("sender:default", "complaint")


def test_a_complaint_about_somebody_else_s_mail_is_none(sent: Mails) -> None:
    id_ = sent.send()
    assert sent.bounce(mails.COMPLAINT, id_, ADDRESS, path="", recipient="ann@example.net") is Taken.CONTRADICTED
    assert sent.bounce(mails.COMPLAINT, id_, ADDRESS, path="", id="1@example.com") is Taken.NO_REPORT
    assert sent.bounce(mails.COMPLAINT, id_, ADDRESS, path="", id=f"{new_id()}@example.com") is Taken.UNKNOWN
    assert (sent.said(id_), sent.suppressed()) == ([], [])


@pytest.mark.parametrize("is_sealed", [False, True])
def test_who_complains_of_a_mail_from_before_another_hash_key_is_suppressed_under_todays(
    database_url: str, tmp_path: Path, is_sealed: bool
) -> None:
    keys: dict[str, Any] = {"encryption_keys": "k1:" + "A" * 43 + "="} if is_sealed else {}
    before = Mails(database_url, write_templates(tmp_path / "before"), **keys)
    id_ = before.send()
    before.services.close()
    today = Mails(database_url, write_templates(tmp_path / "today"), hash_key="another key of sixteen", **keys)
    said = today.bounce(mails.COMPLAINT, id_, ADDRESS, path="", recipient="zoe@example.net")
    assert said is Taken.RECORDED, "the recipient is named, and recognised"
    [found] = today.suppressed()
    assert (found.reason, found.hash_key) == ("complaint", today.services.hash_key.fingerprint)
    assert not today.services.suppressions.has_other_key()
    today.services.close()


def test_a_complaint_of_a_redacted_mail_has_the_hash_key_of_then(database_url: str, tmp_path: Path) -> None:
    before = Mails(database_url, write_templates(tmp_path / "before"))
    id_ = before.send()
    today = Mails(database_url, write_templates(tmp_path / "today"), hash_key="another key of sixteen")
    with transaction(today.services.engine) as connection:
        connection.execute(text("UPDATE messages SET recipient = NULL, address = NULL, context = NULL"))
    assert today.bounce(mails.COMPLAINT, id_, ADDRESS, path="", recipient="") is Taken.RECORDED
    assert today.suppressed() == []
    assert today.services.suppressions.has_other_key(), "notifier doctor says that nobody finds it"
    [found] = before.suppressed()
    assert found.hash_key == before.services.hash_key.fingerprint
    assert not before.services.suppressions.has_other_key()
    before.services.close()
    today.services.close()


@contextmanager
def listening(bounces: Bounces, limits: BounceServerLimits = BounceServerLimits()) -> Iterator[int]:  # noqa: B008 - it cannot change
    port, stop = free_port(), threading.Event()
    thread = threading.Thread(target=serve, args=(bounces, "127.0.0.1", port, stop, limits))
    thread.start()
    try:
        wait_until(lambda: answers(port))
        yield port
    finally:
        stop.set()
        thread.join(timeout=patient(30))
    assert not thread.is_alive()


def answers(port: int) -> bool:
    try:
        smtplib.SMTP("127.0.0.1", port, timeout=patient(5)).quit()
    except OSError:
        return False
    return True


def test_they_are_taken_by_lmtp_and_by_smtp(sent: Mails) -> None:
    first, second = sent.send(), sent.send()
    with listening(sent.services.bounces) as port:
        for id_, protocol in ((first, smtplib.LMTP), (second, smtplib.SMTP)):
            with protocol("127.0.0.1", port, timeout=patient(30)) as client:
                path = sent.path(id_)
                mail = sent.mail(mails.POSTFIX, id_) + b"\n" + b"x" * 70_000 + b"\n"
                assert client.sendmail("", [path], mail) == {}
                assert sent.state(id_)[0] == Status.UNDELIVERED
                # What nobody can use is acknowledged all the same: nobody gets it back.
                assert client.sendmail("", [ADDRESS], b"\xff\x00 no mail at all") == {}
                assert client.sendmail("zoe@example.net", [f"bounces+{'a' * 48}@EXAMPLE.com"], mail) == {}
                # One at a time; the server sends the others in a dialogue of their own.
                refused = client.sendmail("", [path, ADDRESS], mail)
                assert refused == {ADDRESS: (452, b"4.5.3 one recipient at a time")}
                with pytest.raises(smtplib.SMTPRecipientsRefused):
                    client.sendmail("", ["shop@example.com"], mail)


def test_a_mail_server_too_many_is_asked_to_come_again_and_comes_when_another_has_gone(sent: Mails) -> None:
    with listening(sent.services.bounces, BounceServerLimits(of_peer=5, place=60)) as port, ExitStack() as stack:
        clients = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for _ in range(5)]
        assert {client.recv(3) for client in clients} == {b"220"}
        with socket.create_connection(("127.0.0.1", port), 10) as late:
            late.sendall(b"EHLO late\r\n")
            assert late.recv(3) == b"421"
        clients[0].close()
        wait_until(lambda: answers(port))


#: Of one that has got so far; then it says nothing, or little.
TALK = b"LHLO x\r\nMAIL FROM:<>\r\nRCPT TO:<%b>\r\nDATA\r\n" % ADDRESS.encode()


@pytest.mark.parametrize(
    ("said", "more"),
    [
        (b"", b""),
        (b"LHLO", b""),
        (TALK, b""),
        (TALK + b"x" * 100_000, b""),
        (b"LHLO x\r\n", b"NOOP\r\n"),
        (TALK, b"x" * 2000 + b"\r\n"),
    ],
)
def test_mail_servers_that_say_nothing_of_use_keep_nobody_out(sent: Mails, said: bytes, more: bytes) -> None:
    with (
        listening(sent.services.bounces, BounceServerLimits(of_peer=5, place=0.1, place_bytes=10_000_000)) as port,
        ExitStack() as stack,
    ):
        talkers = [stack.enter_context(socket.create_connection(("127.0.0.1", port), 10)) for _ in range(5)]
        for talker in talkers:
            talker.sendall(said)
        id_ = sent.send()

        def is_taken() -> bool:
            for talker in talkers:
                with suppress(OSError):
                    talker.sendall(more)
            try:
                with smtplib.LMTP("127.0.0.1", port, timeout=patient(30)) as client:
                    return client.sendmail("", [sent.path(id_)], sent.mail(mails.POSTFIX, id_)) == {}
            except (OSError, smtplib.SMTPException):
                return False  # 421, as long as the others have not waited for long

        wait_until(is_taken)
        assert sent.state(id_)[0] == Status.UNDELIVERED


@pytest.mark.parametrize(
    ("said", "drop"),
    [
        (b"", b""),
        (b"", b"x"),
        (b"", b"\r\n"),
        (TALK, b""),
        (TALK, b"x"),
        (TALK, b"x\r\n"),
        (TALK + b"x" * 200_000, b"x"),
    ],
)
def test_a_mail_server_that_only_drips_is_dropped(sent: Mails, said: bytes, drop: bytes) -> None:
    limits = BounceServerLimits(command=0.3, mail=0.3, mail_bytes=10_000_000, look=0.05)
    with (
        listening(sent.services.bounces, limits) as port,
        socket.create_connection(("127.0.0.1", port), 10) as client,
    ):
        client.sendall(said)
        client.settimeout(0.05)
        told = b""

        def is_dropped() -> bool:
            nonlocal told
            try:
                more = client.recv(65536)
                told += more
                if not more:
                    return True
            except TimeoutError:
                pass
            except ConnectionError:
                return True
            try:
                client.sendall(drop)
            except ConnectionError:
                return True
            return False

        wait_until(is_dropped)
        assert b"421 4.4.2" in told
    assert sent.suppressed() == []


def test_a_session_has_an_end_however_busy_it_looks(sent: Mails) -> None:
    limits = BounceServerLimits(session=0.3, look=0.05)
    with (
        listening(sent.services.bounces, limits) as port,
        smtplib.LMTP("127.0.0.1", port, timeout=patient(10)) as client,
    ):

        def code() -> int:
            try:
                return client.noop()[0]
            except smtplib.SMTPServerDisconnected:
                return 421

        wait_until(lambda: code() == 421)


def test_of_a_large_bounce_the_report_is_read_and_the_returned_mail_passed_over(sent: Mails) -> None:
    seen: list[int] = []

    class Measured(Bounces):
        def take(self, content: bytes, recipient: str = "") -> Taken:
            seen.append(len(content))
            return super().take(content, recipient)

    bounces = Measured.__new__(Measured)
    bounces.__dict__.update(sent.services.bounces.__dict__)
    id_ = sent.send()
    # The returned mail is the last part: its attachment, and a line without end.
    mail = sent.mail(mails.POSTFIX, id_)
    cut = mail.rindex(b"\n--")
    large = (
        mail[:cut] + b"\n" + b"QUJD" * 19 + b"\n" + (b"Q" * 76 + b"\n") * 40_000 + b"x" * 3_000_000 + mail[cut:]
    )
    with listening(bounces) as port, smtplib.LMTP("127.0.0.1", port, timeout=patient(30)) as client:
        assert client.sendmail("", [sent.path(id_)], large) == {}
        # The session goes on behind it, dots and all.
        again = sent.send()
        assert client.sendmail("", [sent.path(again)], sent.mail(mails.POSTFIX, again) + b"\n.\n..x\n") == {}
    assert seen[0] == KEPT_BYTES
    assert sent.state(id_) == sent.state(again) == (Status.UNDELIVERED, "invalid_recipient")


def test_a_mail_that_is_too_large_ends_its_session(sent: Mails) -> None:
    with (
        listening(sent.services.bounces) as port,
        socket.create_connection(("127.0.0.1", port), 10) as client,
    ):
        client.sendall(TALK)
        try:
            for _ in range(MAX_MAIL_BYTES // 2**20 + 2):
                client.sendall(b"x" * 2**20)
        except ConnectionError:
            pass
        told = b""
        try:
            while more := client.recv(65536):
                told += more
        except ConnectionError:
            pass
        assert told == b"" or b"552 5.3.4" in told
        assert answers(port)


def test_twenty_large_mails_at_once_take_little_memory(sent: Mails, database_url: str) -> None:
    port = free_port()
    environment = {
        "NOTIFIER_BOUNCE_ADDRESS": ADDRESS,
        "NOTIFIER_HASH_KEY": KEY,
        "NOTIFIER_DATA_DIR": "/nowhere",
        "NOTIFIER_DATABASE_URL": database_url,
    }
    command = [sys.executable, "-m", "notifier", "bounces", "--listen", f"127.0.0.1:{port}"]
    with forking.launch(command, env={**os.environ, **environment}, stderr=subprocess.DEVNULL) as process:
        try:
            wait_until(lambda: answers(port), timeout=30)

            def memory() -> int:
                lines = Path(f"/proc/{process.pid}/status").read_text().splitlines()
                return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))

            before = memory()
            with ExitStack() as stack:
                clients = [
                    stack.enter_context(socket.create_connection(("127.0.0.1", port), 30)) for _ in range(20)
                ]
                for client in clients:
                    client.sendall(TALK)
                for _ in range(2):
                    for client in clients:
                        client.sendall(b"x" * 2**20)
                for client in clients:
                    client.sendall(b"\r\n.\r\n")
                for client in clients:
                    said = b""
                    while b"250 2.0.0 recorded" not in said:
                        said += client.recv(65536)
                        assert said
                taken = (memory() - before) / 1024
            print(f"bounces: {before / 1024:.0f} MB, and {taken:.0f} MB for 20 mails of 2 MiB")
            assert taken < 100
        finally:
            process.terminate()
            assert process.wait(patient(30)) == 0


def test_a_port_that_is_taken_and_one_that_is_none_are_told(sent: Mails) -> None:
    with listening(sent.services.bounces) as port, pytest.raises(ConfigurationError, match="another --listen"):
        serve(sent.services.bounces, "127.0.0.1", port, threading.Event())
    for wrong in ("2424", "localhost", ":2424", "localhost:0", "localhost:99999", "localhost:lmtp"):
        answer = CommandLine()("bounces", "--listen", wrong)
        assert (answer.code, answer.err) == (2, "error: --listen takes host:port, such as 127.0.0.1:2424\n")


class Away(Bounces):
    """As if the database, or we, had failed."""

    def __init__(self) -> None:
        """Holds nothing."""

    def is_ours(self, address: str) -> bool:
        return True

    def take(self, content: bytes, recipient: str = "") -> Taken:
        raise ServiceUnavailable("the database is away") if recipient == ADDRESS else RuntimeError("a bug")


def test_while_the_record_is_away_the_server_is_to_come_again(sent: Mails) -> None:
    with listening(Away()) as port, smtplib.LMTP("127.0.0.1", port, timeout=patient(30)) as client:
        for to in (ADDRESS, sent.path(new_id())):
            with pytest.raises(smtplib.SMTPDataError) as refused:
                client.sendmail("", [to], b"Subject: x\n\nx")
            assert refused.value.smtp_code == 451


def pipe(mail: bytes, database_url: str) -> subprocess.CompletedProcess[bytes]:
    command = [sys.executable, "-m", "notifier", "bounces", "--stdin"]
    given = {"NOTIFIER_BOUNCE_ADDRESS": ADDRESS, "NOTIFIER_HASH_KEY": KEY, "NOTIFIER_DATA_DIR": "/nowhere"}
    environment = given | {"NOTIFIER_DATABASE_URL": database_url}
    return forking.run(command, input=mail, env=environment, capture_output=True, check=False, timeout=patient(60))


def test_one_on_standard_input_is_recorded_before_the_exit(sent: Mails, database_url: str) -> None:
    id_ = sent.send()
    taken = pipe(sent.mail(mails.POSTFIX, id_) + b"x" * 500_000, database_url)
    assert (taken.returncode, taken.stdout, taken.stderr) == (0, b"", b"")
    assert sent.state(id_)[0] == Status.UNDELIVERED


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"database_url": "postgresql://nobody@127.0.0.1:1/none"}, "the database cannot be used now"),
        ({"bounce_address": None}, "NOTIFIER_BOUNCE_ADDRESS is not set"),
        ({"hash_key": "short"}, "16 characters"),
    ],
)
def test_whatever_goes_wrong_with_one_the_mail_server_is_to_keep_it(
    sent: Mails, database_url: str, settings: dict[str, str | None], words: str
) -> None:
    id_ = sent.send()
    given = {"database_url": database_url, "bounce_address": ADDRESS, "hash_key": KEY, **settings}
    answer = CommandLine(given)("bounces", "--stdin", stdin=sent.mail(mails.POSTFIX, id_))
    assert (answer.code, answer.out) == (75, "")
    assert words in answer.err
    assert "the mail server should try again" in answer.err
    assert sent.state(id_)[0] == Status.SENT
