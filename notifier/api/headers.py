"""Texts of headers."""

from __future__ import annotations


def as_written(text: str) -> str:
    """What the client meant: UTF-8 where it is that, else Latin-1, as which the framework reads every header."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except ValueError:
        return text
