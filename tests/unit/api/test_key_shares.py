"""What one key may have at once, and what is left for others."""

from __future__ import annotations

import asyncio

import pytest

from notifier.api.errors import Refusal
from notifier.api.key_shares import LongReads, Shares


def test_a_key_waits_for_its_own_turns_and_others_do_not() -> None:
    async def run() -> None:
        shares, order, may_end = Shares(2), list[str](), asyncio.Event()

        async def work(key: str, name: str) -> None:
            async with shares.turn(key):
                order.append(name)
                await may_end.wait()

        tasks = [asyncio.create_task(work("a", str(number))) for number in range(4)]
        await asyncio.sleep(0)
        tasks.append(asyncio.create_task(work("b", "other")))
        await asyncio.sleep(0)
        assert order == ["0", "1", "other"]
        tasks[3].cancel()
        may_end.set()
        await asyncio.gather(*tasks, return_exceptions=True)
        assert order == ["0", "1", "other", "2"]
        # Nothing is kept of a key that has nothing under way.
        assert not shares._turns

    asyncio.run(run())


def test_long_reads_are_limited_for_a_key_and_in_all() -> None:
    reads = LongReads(3)
    ends = [reads.begin("a")]
    with pytest.raises(Refusal) as refused:
        reads.begin("a")
    assert (refused.value.status_code, (refused.value.headers or {})["Retry-After"]) == (429, "5")
    ends += [reads.begin("b"), reads.begin("c")]
    with pytest.raises(Refusal) as refused:
        reads.begin("d")
    assert refused.value.status_code == 503
    for end in ends:
        end()
    assert len(reads) == 0
    reads.begin("a")
