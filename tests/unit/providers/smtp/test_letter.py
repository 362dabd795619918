"""How long a letter may take, and what a line makes of it."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from notifier.domain.errors import OutcomeUnknown
from notifier.providers.base import Receipt
from notifier.providers.smtp.letter import Letter
from notifier.providers.smtp.line import SmtpLine
from tests.support.letters import Errand, make_letter


class Transport:
    """What of an asyncio transport a line uses, with a memory."""

    def __init__(self) -> None:
        self.written = b""
        self.is_aborted = False
        self.buffered = 0

    def set_protocol(self, protocol: object) -> None:
        """Nothing comes from here."""

    def is_closing(self) -> bool:
        return self.is_aborted

    def get_write_buffer_size(self) -> int:
        return self.buffered

    def write(self, data: bytes) -> None:
        self.written += data

    def abort(self) -> None:
        self.is_aborted = True


class Tray:
    """Where a line takes its letters from."""

    def __init__(self, *letters: Letter) -> None:
        self.letters = list(letters)
        self.again: list[Letter] = []

    def clears(self, line: SmtpLine) -> None:
        """Nothing more."""

    def free(self, line: SmtpLine) -> None:
        """Nothing more."""

    def next_behind(self, line: SmtpLine) -> Letter | None:
        return self.letters.pop(0) if self.letters and self.letters[0].begins(line.extensions) else None

    def took(self, seconds: float) -> None:
        """Nobody counts."""

    def send_again(self, letter: Letter) -> None:
        self.again.append(letter)

    def watch(self, due: float) -> None:
        """The test has the time."""

    def left(self, line: SmtpLine) -> None:
        """Nobody else is there."""


def make_line(tray: Tray, transport: Transport) -> SmtpLine:
    class Smtp:
        esmtp_extensions = {"pipelining": ""}  # noqa: RUF012

    Smtp.transport = transport  # type: ignore[attr-defined]
    return SmtpLine(Smtp(), tray)  # type: ignore[arg-type]


ENVELOPE = b"250 ok\r\n250 ok\r\n354 go on\r\n"


def led(work: Any) -> None:
    async def run() -> None:
        first, second = Errand(), Errand()
        letters = [make_letter(errand, deadline_seconds=30) for errand in (first, second)]
        tray, transport = Tray(letters[1]), Transport()
        line = make_line(tray, transport)
        assert letters[0].begins(line.extensions)
        line.carry(letters[0])
        line.data_received(ENVELOPE)
        assert transport.written.count(b"MAIL FROM") == 2
        work(line, tray, transport, first, second)

    asyncio.run(run())


def test_the_time_of_a_letter_behind_another_begins_with_the_answer_to_that_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def work(line: SmtpLine, tray: Tray, transport: Transport, first: Errand, second: Errand) -> None:
        before = line.due
        later = time.monotonic() + 20
        monkeypatch.setattr(time, "monotonic", lambda: later)
        line.data_received(b"250 ok\r\n")
        assert isinstance(first.answer.result(), Receipt)
        assert before < later + 15 < line.due == pytest.approx(later + 30)

    led(work)


def test_no_letter_goes_on_longer_than_its_deadline_after_the_last_moment_to_begin_it() -> None:
    async def run() -> None:
        errand = Errand(may_begin_for=2.0)
        letter = make_letter(errand, deadline_seconds=30)
        now = time.monotonic()
        assert letter.must_end_at(now) == pytest.approx(now + 30)
        assert letter.must_end_at(now + 25) == pytest.approx(errand.start_by + 30)

    asyncio.run(run())


def test_a_body_that_may_have_left_is_in_doubt_when_an_envelope_is_stuck_behind_it() -> None:
    def work(line: SmtpLine, tray: Tray, transport: Transport, first: Errand, second: Errand) -> None:
        transport.buffered = 1
        line.overdue()
        assert isinstance(first.answer.result(), OutcomeUnknown)
        assert transport.is_aborted

    led(work)


def test_the_letter_behind_goes_again_when_the_one_before_it_gets_no_answer() -> None:
    def work(line: SmtpLine, tray: Tray, transport: Transport, first: Errand, second: Errand) -> None:
        line.overdue()
        assert [letter.is_over for letter in tray.again] == [False]
        assert not second.answer.done()
        # What comes afterwards is about nobody.
        line.data_received(b"250 ok\r\n" + ENVELOPE)
        line.connection_lost(None)
        assert len(tray.again) == 1

    led(work)


def test_a_body_goes_out_on_its_own_354_alone() -> None:
    def work(line: SmtpLine, tray: Tray, transport: Transport, first: Errand, second: Errand) -> None:
        bodies = transport.written.count(b"\r\n.\r\n")
        line.data_received(b"250 ok\r\n250 ok\r\n550 5.1.1 no such user\r\n354 go on\r\n")
        assert bodies == transport.written.count(b"\r\n.\r\n") == 1
        assert transport.is_aborted

    led(work)
