"""Splits what a server sends into replies, wherever the network cut them."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

#: RFC 5321 section 4.5.3.1.5 allows 512 octets in a line; some servers send more.
_MAX_LINE = 8192
_MAX_LINES = 1000
#: Maximum characters that are quoted of what is not a reply.
_MAX_WORDS = 500


class Reply(NamedTuple):
    """One reply of a server."""

    code: int
    #: Its lines without the codes, joined by line feeds.
    text: str


class Garbled(Exception):
    """What came is not SMTP. The error's text is what came."""


class Replies:
    """Reads the replies on one connection."""

    def __init__(self) -> None:
        #: The beginning of a line; number of complete lines not yet read; lines of an incomplete reply.
        self._input = b""
        self._ahead = 0
        self._lines: list[str] = []

    @property
    def is_empty(self) -> bool:
        """Whether everything that came has been read, with no part of a reply left."""
        return not (self._ahead or self._input or self._lines)

    def read(self, data: bytes) -> Iterator[Reply]:
        """The replies that `data` completes.

        Raises:
            Garbled: what came is not a reply. Nothing that comes after it is a reply either.
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
