"""Letters and their calls, for tests of SMTP lines."""

from __future__ import annotations

import asyncio
import time
from datetime import UTC, datetime
from uuid import UUID, uuid4

from notifier.domain.errors import SendError
from notifier.providers.base import Outgoing, Receipt
from notifier.providers.mail.address import parse_mailbox
from notifier.providers.smtp.letter import Letter
from notifier.providers.smtp.mime import Correspondents, Mail, compose


class Errand:
    """A call that remembers how it ended, and fails if it ends twice."""

    def __init__(self, *, id_: UUID | None = None, text: str = "Hello\n", may_begin_for: float = 60.0) -> None:
        sender, to = "hello@shop.example.com", "zoe@example.com"
        self.outgoing = Outgoing(id_ or uuid4(), 1, to, sender, text, subject="Hello")
        self.start_by = time.monotonic() + may_begin_for
        self.answer: asyncio.Future[Receipt | SendError] = asyncio.get_running_loop().create_future()
        self.begun = 0

    def begin(self) -> SendError | None:
        self.begun += 1
        return None

    def end(self, answer: Receipt | SendError) -> None:
        # Raises if the call has already ended.
        self.answer.set_result(answer)


def make_letter(errand: Errand, *, deadline_seconds: float, takes_8bit: bool = False) -> Letter:
    who = Correspondents(parse_mailbox(errand.outgoing.sender), parse_mailbox(errand.outgoing.to))

    def write(takes_8bit: bool) -> Mail:
        date = datetime.now(UTC)
        return compose(errand.outgoing, who, domain="shop.example.com", date=date, takes_8bit=takes_8bit)

    return Letter(errand, write(takes_8bit), lambda: write(False), deadline_seconds=deadline_seconds)
