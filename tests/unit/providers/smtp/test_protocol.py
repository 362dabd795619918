"""Replies, taken apart wherever the network cut them."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.providers.smtp.protocol import Dialogue, Garbled, Lost, Reply


class Transport:
    """What of an asyncio transport a dialogue uses, with a memory."""

    def __init__(self) -> None:
        self.written = b""
        self.protocol: Any = None

    def set_protocol(self, protocol: Any) -> None:
        self.protocol = protocol

    def is_closing(self) -> bool:
        return False

    def write(self, data: bytes) -> None:
        self.written += data


def make() -> tuple[Dialogue, Transport]:
    transport = Transport()
    return Dialogue(transport), transport  # type: ignore[arg-type]


REPLIES = [Reply(250, "ok"), Reply(250, "first\nsecond\n"), Reply(354, ""), Reply(550, "5.1.1 no such user")]
BYTES = b"250 ok\r\n250-first\r\n250-second\r\n250\r\n354 \n550 5.1.1 no such user\r\n"


@given(st.lists(st.integers(0, len(BYTES)), max_size=8))
def test_replies_are_the_same_wherever_they_are_cut(cuts: list[int]) -> None:
    async def run() -> list[Reply]:
        dialogue, _ = make()
        dialogue.write(b"A\r\nB\r\nC\r\nD\r\n", replies=4)
        edges = [0, *sorted(cuts), len(BYTES)]
        for start, end in itertools.pairwise(edges):
            dialogue.data_received(BYTES[start:end])
        assert dialogue.is_usable
        return [await dialogue.reply() for _ in range(4)]

    assert asyncio.run(run()) == REPLIES


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400 Bad Request\r\n", b"2x0 ok\r\n", b"\r\n", b"250 " + b"x" * 70_000]
)
def test_what_is_no_reply_is_said_to_be_none(data: bytes) -> None:
    async def run() -> None:
        dialogue, _ = make()
        dialogue.write(b"NOOP\r\n")
        dialogue.data_received(data)
        with pytest.raises(Garbled):
            await dialogue.reply()

    asyncio.run(run())


def test_replies_without_end_are_not_kept() -> None:
    async def run() -> None:
        dialogue, _ = make()
        dialogue.write(b"NOOP\r\n")
        for _ in range(100_000):
            dialogue.data_received(b"250-more\r\n")
        with pytest.raises(Garbled):
            await dialogue.reply()
        assert not dialogue.is_usable

    asyncio.run(run())


def test_what_nobody_asked_for_makes_the_connection_unusable() -> None:
    dialogue, _ = make()
    assert dialogue.is_usable
    dialogue.data_received(b"421 4.4.2 idle too long\r\n")
    assert not dialogue.is_usable


def test_whoever_waits_hears_of_the_end() -> None:
    async def run() -> None:
        dialogue, _ = make()
        dialogue.write(b"NOOP\r\n")
        waiting = asyncio.create_task(dialogue.reply())
        await asyncio.sleep(0)
        dialogue.connection_lost(None)
        with pytest.raises(Lost):
            await waiting
        with pytest.raises(Lost):
            dialogue.write(b"NOOP\r\n")
        assert not dialogue.is_usable

    asyncio.run(run())
