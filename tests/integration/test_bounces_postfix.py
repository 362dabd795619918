"""With a real Postfix as relay: a mail that it took and could not hand on comes back and changes the record."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from notifier.dev.machine import free_port
from notifier.domain.statuses import Status
from notifier.worker.runtime import DeliveryLoop
from tests.integration.test_bounces import answers
from tests.support import forking
from tests.support.bounced import ADDRESS, KEY, Mails
from tests.support.postfix import Relay, running_postfix, why_not
from tests.support.templates import write_templates
from tests.waiting import patient, wait_until


@contextmanager
def bounces_program(database_url: str, port: int, log: Path) -> Iterator[None]:
    """`notifier bounces` as a process."""
    environment = {
        **os.environ,
        "NOTIFIER_DATABASE_URL": database_url,
        "NOTIFIER_BOUNCE_ADDRESS": ADDRESS,
        "NOTIFIER_HASH_KEY": KEY,
        "NOTIFIER_DATA_DIR": str(log.parent),
    }
    command = [sys.executable, "-m", "notifier", "bounces", "--listen", f"127.0.0.1:{port}"]
    with log.open("wb") as file, forking.launch(command, env=environment, stderr=file) as process:
        try:
            wait_until(lambda: process.poll() is not None or answers(port), timeout=60)
            assert process.poll() is None, log.read_text()
            yield
            process.terminate()
            assert process.wait(timeout=patient(30)) == 0, log.read_text()
        finally:
            process.kill()


@pytest.fixture
def sent(database_url: str, tmp_path: Path, relay: Relay) -> Iterator[Mails]:
    url = f"smtp://127.0.0.1:{relay.port}?starttls=never"
    made = Mails(database_url, write_templates(tmp_path / "templates"), smtp_url=url)
    yield made
    made.services.close()


@pytest.fixture
def lmtp_port() -> int:
    return free_port()


@pytest.fixture
def relay(lmtp_port: int) -> Iterator[Relay]:
    missing = why_not()
    if missing:
        pytest.skip(f"no Postfix: {missing}")
    with running_postfix(lmtp_port) as relay:
        yield relay


def test_a_mail_to_a_mailbox_that_does_not_exist_comes_back_and_suppresses_the_address(
    sent: Mails, relay: Relay, database_url: str, lmtp_port: int, tmp_path: Path
) -> None:
    log = tmp_path / "bounces.log"
    there, gone = sent.accept(relay.mailbox), sent.accept("Nobody <Nobody@example.net>")
    worker = DeliveryLoop(sent.services)
    try:
        with bounces_program(database_url, lmtp_port, log):
            assert worker.deliverer.deliver([there, gone]).sent == 2
            wait_until(lambda: sent.state(gone)[0] == Status.UNDELIVERED, timeout=30)
            wait_until(lambda: relay.delivered, timeout=30)
        again = sent.accept("nobody@example.net")
        worker.deliverer.deliver([again])
    except AssertionError:
        print(relay.log, log.read_text())
        raise
    finally:
        worker.stop()
    note = sent.story(gone).notification
    assert note.reason == "invalid_recipient"
    assert str(note.detail).startswith(
        "failed 5.1.1, by 127.0.0.1: 550 5.1.1 <***@example.net>: Recipient address"
    )
    [found] = sent.suppressed("nobody@example.net")
    assert (found.scope, found.reason, found.notification_id) == ("global", "hard_bounce", gone)
    assert sent.state(again) == (Status.SUPPRESSED, "hard_bounce")
    assert "bounce" in log.read_text()
    assert "example.net" not in log.read_text()
    # The one whose mailbox there is has it, with a return path of its own.
    assert sent.state(there)[0] == Status.SENT
    assert sent.suppressed(relay.mailbox) == []
    [mail] = relay.delivered
    assert f"Return-Path: <{sent.path(there)}>" in mail.read_text()
