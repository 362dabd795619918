"""Opens files that people name: with a usage error instead of a traceback; `-` is standard input or output."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TextIO

import typer


@contextmanager
def opened(file: Path, *, newline: str) -> Iterator[io.TextIOWrapper]:
    """The text of a file. Bytes that are not UTF-8 become surrogates. Use `newline=""` for csv, which handles line
    ends itself because quoted cells may contain some."""
    with _opened_bytes(file) as raw:
        text = io.TextIOWrapper(raw, "utf-8-sig", errors="surrogateescape", newline=newline)
        try:
            yield text
        finally:
            # Otherwise the wrapper would close standard input when it is garbage-collected.
            text.detach()


@contextmanager
def _opened_bytes(file: Path) -> Iterator[BinaryIO]:
    if str(file) == "-":
        yield sys.stdin.buffer
        return
    try:
        raw = file.open("rb")
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be read: {error.strerror}", param_hint="FILE") from None
    with raw:
        yield raw


@contextmanager
def written(file: Path | None, option: str, *, newline: str | None = None) -> Iterator[TextIO]:
    """The file to write to; standard output if there is none."""
    if file is None:
        yield sys.stdout
        return
    try:
        text = file.open("w", encoding="utf-8", newline=newline)
    except OSError as error:
        raise typer.BadParameter(f"{file} cannot be written: {error.strerror}", param_hint=option) from None
    with text:
        yield text
