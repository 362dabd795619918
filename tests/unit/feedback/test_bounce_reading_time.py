"""However a mail is made, reading it takes time in proportion to its size: twice as much, twice as long."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from types import ModuleType

import pytest

from notifier.feedback import bounce_meaning, bounce_parser, bounce_texts, bounces, mail_parts
from notifier.feedback.bounce_meaning import Whose, meaning_of
from notifier.feedback.bounce_parser import addresses_in, read_mail
from notifier.feedback.bounce_report import Bounce
from notifier.providers.mail import phrases
from tests.profiles import is_full

_HEAD = b"From: MAILER-DAEMON@example.net\nSubject: failure notice\n"
_REPORT = b"Content-Type: multipart/report; boundary=b\n\n--b\nContent-Type: message/delivery-status\n\n"
_DIAGNOSTIC = b"Final-Recipient: rfc822; zoe@example.net\nAction: failed\nDiagnostic-Code: smtp; "

#: One of each class of characters, and what patterns begin with.
_RUNS = (
    "\r", "\n", " ", "\0", "a", "é", "用户", "-", ".", "=", ">", "<", "@", ";", ":", ",", "(", "\"", "\\",
    "=?", "#", "5", "550 ", "5.1.1 ", "5.1.1.", "a@", "a@b.", "x: y\n", "\n ", " \n", "\n\n", "\r\n\r",
    "--b\n", "--b\n\n", "user ", "message mail ", "not deliver", "said 550 ", "host connect to ", "<style>",
    "<style", "<br ", "</script>", "QUJD ", "this is a copy ", "http://", "RCPT TO:<", "Action: failed\n",
    "Final-Recipient: rfc822; a@b\n\n", "X-A: 550 user unknown\n", "sender ", "from ", "in reply to ",
    "(expanded from ", "a-", "&#",
)  # fmt: skip
#: A third of them tell a pattern of square time, as a rule.
_TRIED = _RUNS if is_full() else _RUNS[::3]
_SHAPES: dict[str, Callable[[bytes], bytes]] = {
    "text": lambda run: _HEAD + b"\n" + run + b"!",
    "page": lambda run: _HEAD + b"Content-Type: text/html\n\n" + run + b"!",
    "report": lambda run: _HEAD + _REPORT + run + b"!",
    "diagnostic": lambda run: _HEAD + _REPORT + _DIAGNOSTIC + run + b"!",
    "header": lambda run: b"To: " + run + b"\n" + _HEAD + b"\nx",
    "type": lambda run: _HEAD + b"Content-Type: text/plain" + run + b"\n\nx",
}
#: Bytes. Of parameters many are needed until they tell.
_SIZES = dict.fromkeys(_SHAPES, 10_000 if is_full() else 1_500) | {"type": 120_000 if is_full() else 15_000}
#: Characters. A text of a mail is as long as this at most.
_MAX_TEXT = 8_000 if is_full() else 4_000


def whose(_address: str) -> Whose:
    return Whose.OTHERS


def read(mail: bytes) -> None:
    addresses_in(mail)
    report = read_mail(mail).report
    if isinstance(report, Bounce):
        meaning_of(report, whose)


def seconds(work: Callable[[], object]) -> float:
    """Of the processor."""
    begun = time.process_time()
    work()
    return time.process_time() - begun


def is_in_proportion(small: Callable[[], object], large: Callable[[], object]) -> bool:
    """Whether twice as much takes less than three times as long; what takes no time tells nothing."""
    return any((took := seconds(large)) < 0.1 or took < 3 * seconds(small) + 0.1 for _ in range(3))


@pytest.mark.parametrize("shape", list(_SHAPES))
def test_twice_as_much_takes_twice_as_long(shape: str) -> None:
    slow = []
    for run in _TRIED:
        piece = run.encode()
        count = _SIZES[shape] // len(piece)
        small, large = _SHAPES[shape](piece * count), _SHAPES[shape](piece * 2 * count)
        if not is_in_proportion(lambda mail=small: read(mail), lambda mail=large: read(mail)):  # type: ignore[misc]
            slow.append(run)
    assert slow == []


@pytest.mark.parametrize(
    "level",
    ['Content-Type: multipart/mixed; boundary="%d"\n\n--%d\n', "Content-Type: message/rfc822\n\n"],
    ids=["parts", "mails"],
)
def test_a_mail_in_a_mail_in_a_mail(level: str) -> None:
    def nested(levels: int) -> bytes:
        return b"".join((level.replace("%d", str(number))).encode() for number in range(levels))

    small, large = nested(1_000), nested(2_000)
    assert is_in_proportion(lambda: read_mail(small), lambda: read_mail(large))


def patterns_of(module: ModuleType) -> list[tuple[str, re.Pattern[str]]]:
    found = [(name, value) for name, value in vars(module).items() if isinstance(value, re.Pattern)]
    return [(f"{module.__name__}.{name}", value) for name, value in found if isinstance(value.pattern, str)]


_MODULES = (mail_parts, bounce_parser, bounce_texts, phrases, bounce_meaning, bounces)


_PATTERNS = dict(one for module in _MODULES for one in patterns_of(module))


@pytest.mark.parametrize("name", list(_PATTERNS))
def test_no_pattern_takes_square_time(name: str) -> None:
    pattern = _PATTERNS[name]
    slow = []
    for run in _TRIED:
        small, large = (run * (size // len(run)) + "!" for size in (_MAX_TEXT // 2, _MAX_TEXT))
        if not is_in_proportion(
            lambda text=small: pattern.search(text),  # type: ignore[misc]
            lambda text=large: pattern.search(text),  # type: ignore[misc]
        ):
            slow.append(run)
    assert slow == [], name
