"""Decodes the values of HTTP headers."""

from __future__ import annotations


def as_written(text: str) -> str:
    """The text that the client meant: UTF-8 if it is valid UTF-8, otherwise Latin-1, which is how the framework
    reads headers."""
    try:
        return text.encode("latin-1").decode("utf-8")
    except ValueError:
        return text
