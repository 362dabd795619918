"""Servers on a thread of their own."""

from __future__ import annotations

import asyncio
import threading

import pytest

from notifier.dev.server_thread import running


class RecordingServer:
    def __init__(self, fault: Exception | None = None) -> None:
        self.fault = fault
        self.calls: list[str] = []
        self.threads: set[int] = set()

    async def start(self, host: str = "", port: int = 0) -> None:
        self.calls.append("start")
        self.threads.add(threading.get_ident())
        if self.fault:
            raise self.fault

    async def stop(self) -> None:
        await asyncio.sleep(0)
        self.calls.append("stop")


def test_a_server_runs_on_another_thread_while_the_block_lasts() -> None:
    server = RecordingServer()
    with running(server) as started:
        assert started is server
        assert server.calls == ["start"]
    assert server.calls == ["start", "stop"]
    assert threading.get_ident() not in server.threads


def test_a_server_is_stopped_when_the_block_fails() -> None:
    server = RecordingServer()
    with pytest.raises(KeyError), running(server):
        raise KeyError
    assert server.calls == ["start", "stop"]


def test_a_server_that_does_not_start_ends_its_thread() -> None:
    before = threading.active_count()
    with pytest.raises(OSError, match="taken"), running(RecordingServer(OSError("taken"))):
        pass
    assert threading.active_count() == before
