"""A server's replies, taken apart wherever the network cut them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

#: RFC 5321 section 4.5.3.1.5 allows 512 octets a line; some servers say more.
_MAX_LINE = 8192
_MAX_LINES = 1000
#: So much of what is no reply is repeated.
_MAX_WORDS = 500


class Reply(NamedTuple):
    """A server's answer."""

    code: int
    #: Its lines without the codes, joined by line feeds.
    text: str


class Garbled(Exception):
    """What came is no SMTP. The text is what came."""


class Replies:
    """What came on one connection."""

    def __init__(self) -> None:
        #: The beginning of a line; how many whole ones are still to be read; those of a reply that is not whole.
        self._input = b""
        self._ahead = 0
        self._lines: list[str] = []

    @property
    def is_empty(self) -> bool:
        """Whether nothing came that was not read yet, not even a part of a reply."""
        return not (self._ahead or self._input or self._lines)

    def read(self, data: bytes) -> Iterator[Reply]:
        """The replies that are whole with `data`.

        Raises:
            Garbled: what came is no reply; nothing that comes after it is one either.
        """
        lines = (self._input + data).split(b"\n")
        self._input = lines.pop()
        self._ahead = len(lines)
        for line in lines:
            self._ahead -= 1
            code = line[:3]
            if not (len(code) == 3 and code.isdigit()):
                raise Garbled(_words(line)[:_MAX_WORDS])
            self._lines.append(_words(line[4:]))
            if len(self._lines) > _MAX_LINES:
                raise Garbled("more lines than any reply")
            if line[3:4] != b"-":
                text = "\n".join(self._lines)
                self._lines.clear()
                yield Reply(int(code), text)
        if len(self._input) > _MAX_LINE:
            raise Garbled("a line longer than any reply")


def _words(line: bytes) -> str:
    return line.decode("utf-8", "surrogateescape").strip()
