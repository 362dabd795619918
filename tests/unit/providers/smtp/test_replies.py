"""Replies, taken apart wherever the network cut them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.providers.smtp.replies import Garbled, Replies, Reply

REPLIES = [Reply(250, "ok"), Reply(250, "first\nsecond\n"), Reply(354, ""), Reply(550, "5.1.1 no such user")]
BYTES = b"250 ok\r\n250-first\r\n250-second\r\n250\r\n354 \n550 5.1.1 no such user\r\n"


@given(st.lists(st.integers(0, len(BYTES)), max_size=8))
def test_replies_are_the_same_wherever_they_are_cut(cuts: list[int]) -> None:
    replies, found = Replies(), list[Reply]()
    edges = [0, *sorted(cuts), len(BYTES)]
    for start, end in itertools.pairwise(edges):
        found += replies.read(BYTES[start:end])
    assert found == REPLIES
    assert replies.is_empty


@pytest.mark.parametrize(
    "data", [b"HTTP/1.1 400 Bad Request\r\n", b"2x0 ok\r\n", b"\r\n", b"250 " + b"x" * 70_000]
)
def test_what_is_no_reply_is_said_to_be_none(data: bytes) -> None:
    with pytest.raises(Garbled):
        list(Replies().read(data))


def test_replies_without_end_are_not_kept() -> None:
    replies = Replies()
    with pytest.raises(Garbled):
        list(itertools.chain.from_iterable(replies.read(b"250-more\r\n") for _ in range(100_000)))


@pytest.mark.parametrize("data", [b"2", b"250-first\r\n", b"250 ok\r\n2"])
def test_a_part_of_a_reply_is_something(data: bytes) -> None:
    replies = Replies()
    list(replies.read(data))
    assert not replies.is_empty
