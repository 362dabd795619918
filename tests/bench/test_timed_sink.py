"""The mail server of the measurements counts what it accepts, waits as long as it should, and tells the time."""

from __future__ import annotations

import smtplib
import time
from pathlib import Path

from bench import mails
from bench.sinks import timed_sink
from tests.waiting import wait_until

MESSAGE = "Subject: one\r\n\r\n..dots\r\n.\r\n"


def test_sink_counts_and_times_what_it_accepts(tmp_path: Path) -> None:
    with timed_sink(tmp_path) as sink, smtplib.SMTP("127.0.0.1", sink.port) as client:
        for number in range(3):
            client.sendmail("a@example.com", mails.recipient(number, label="idle"), MESSAGE)
        client.sendmail("a@example.com", mails.recipient(3), MESSAGE)
        wait_until(lambda: sink.taken() == 4)
        wait_until(lambda: len(sink.latencies("idle")) == 3)
        assert all(0 < one < 10_000 for one in sink.latencies("idle"))


def test_sink_waits_before_it_answers_a_mail(tmp_path: Path) -> None:
    with timed_sink(tmp_path, delay_seconds=0.2) as sink, smtplib.SMTP("127.0.0.1", sink.port) as client:
        begun = time.monotonic()
        client.sendmail("a@example.com", "b@example.com", MESSAGE)
        # A timer of an event loop comes up to a tick of its clock early.
        assert time.monotonic() - begun >= 0.2 - 0.01
