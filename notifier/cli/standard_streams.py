"""Standard input, output and error, also where whoever started the program closed one, or its disk is full."""

from __future__ import annotations

import io
import os
import sys
from typing import Any


class OutputFailed(OSError):
    """Standard output takes nothing: a full disk, or it is closed."""


class _Output(io.FileIO):
    """Tells a fault of standard output from that of any other file."""

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputFailed(error.errno, error.strerror) from None


def prepare() -> None:
    """Open in the place of each stream that is closed one that refuses: what reads or writes there gets "Bad file
    descriptor", as from any other program. Python has None for it, and the next connection would get its number.
    """
    if sys.stdin is None:
        sys.stdin = io.TextIOWrapper(io.BufferedReader(io.FileIO(_null(os.O_WRONLY), "r", closefd=False)))
    if sys.stdout is None:
        sys.stdout = _output(_null(os.O_RDONLY), at_once=False)
    else:
        # As PYTHONUNBUFFERED and a terminal have it.
        at_once = sys.stdout.line_buffering or getattr(sys.stdout, "write_through", False)
        sys.stdout = _output(sys.stdout.fileno(), at_once=bool(at_once))
    if sys.stderr is None:
        # Nobody can be told of what cannot be written there.
        sys.stderr = _output(_null(os.O_WRONLY), at_once=True)
    for stream in (sys.stdout, sys.stderr):
        # A terminal that cannot show 中文 gets \u4e2d instead of a trace.
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]


def forget_output() -> None:
    """Nobody gets it any more. What is still buffered would raise again when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _null(flags: int) -> int:
    descriptor = os.open(os.devnull, flags)
    os.set_inheritable(descriptor, True)
    return descriptor


def _output(descriptor: int, *, at_once: bool) -> io.TextIOWrapper:
    encoding = sys.stdout.encoding if sys.stdout is not None else "utf-8"
    buffer = io.BufferedWriter(_Output(descriptor, "w", closefd=False))
    return io.TextIOWrapper(buffer, encoding=encoding, line_buffering=at_once)
