"""The producers' loop counts what every thread sent."""

from __future__ import annotations

import threading

import pytest

from bench.producer import produce


@pytest.mark.parametrize("threads", [1, 4])
def test_every_message_of_every_thread_is_counted(threads: int) -> None:
    sent: list[int] = []
    pause = threading.Event()

    def send(number: int) -> int:
        pause.wait(0.001)
        sent.append(number)
        return 1

    found = produce(send, threads=threads, seconds=0.1)
    assert found["sent"] == len(sent) == len(set(sent))
    assert 0 < found["latency_ms"]["count"] <= len(sent)


def test_thread_that_fails_is_no_result() -> None:
    def send(_: int) -> int:
        raise ValueError("no broker")

    with pytest.raises(ValueError, match="no broker"):
        produce(send, threads=2, seconds=0.1)
