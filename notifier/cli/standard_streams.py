"""Makes standard input, output and error usable even if whoever started the program closed one, or the disk is
full."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class OutputFailed(OSError):
    """Standard output cannot be written: the disk is full, or it is closed."""


class _Output(io.FileIO):
    """Distinguishes an error of standard output from an error of any other file."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputFailed(error.errno, error.strerror) from None


def prepare() -> None:
    """Replace each closed stream by one that refuses: reading or writing there gives "Bad file descriptor", as in
    any other program. Python would set it to None, and the next connection would get its number."""
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(_null(os.O_WRONLY), "r", closefd=False)))
    if sys.stdout is None:
        sys.stdout = _output(_null(os.O_RDONLY), at_once=False)
    else:
        # As with PYTHONUNBUFFERED or on a terminal.
        at_once = sys.stdout.line_buffering or getattr(sys.stdout, "write_through", False)
        sys.stdout = _output(sys.stdout.fileno(), at_once=bool(at_once))
    if sys.stderr is None:
        # Nobody can be told about what cannot be written there.
        sys.stderr = _output(_null(os.O_WRONLY), at_once=True)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show 中文 gets \u4e2d instead of a traceback.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def forget_output() -> None:
    """Drop the output, because nobody receives it any more. What is still buffered would raise again when the
    interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _null(flags: int) -> int:
    descriptor = os.open(os.devnull, flags)
    os.set_inheritable(descriptor, True)
    return descriptor


def _output(descriptor: int, *, at_once: bool) -> io.TextIOWrapper:
    encoding = sys.stdout.encoding if sys.stdout is not None else "utf-8"
    buffer = io.BufferedWriter(_Output(descriptor, "w", closefd=False))
    return io.TextIOWrapper(buffer, encoding=encoding, line_buffering=at_once)
