from __future__ import annotations

import asyncio

from notifier.callbacks.slots import FairSlots


async def settled() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


class Calls:
    """Calls that hold their slots until they are told to end."""

    def __init__(self, slots: FairSlots) -> None:
        self._slots = slots
        self.begun: list[str] = []
        self._ends: list[asyncio.Event] = []
        self.tasks: list[asyncio.Task[None]] = []

    async def begin(self, producer: str, count: int = 1) -> None:
        self.tasks += [asyncio.create_task(self._call(producer)) for _ in range(count)]
        await settled()

    async def _call(self, producer: str) -> None:
        async with self._slots.hold(producer):
            self.begun.append(producer)
            self._ends.append(end := asyncio.Event())
            await end.wait()

    async def end(self, count: int) -> None:
        for event in self._ends[:count]:
            event.set()
        del self._ends[:count]
        await settled()


def test_a_producer_holds_no_more_than_its_slots_and_another_goes_at_once() -> None:
    async def run() -> None:
        calls = Calls(FairSlots(10, 4))
        await calls.begin("slow", 20)
        await calls.begin("fast")
        assert calls.begun == ["slow"] * 4 + ["fast"]
        await calls.end(2)
        assert calls.begun[5:] == ["slow"] * 2
        await calls.end(99)
        for _ in range(5):
            await calls.end(99)
        assert all(task.done() for task in calls.tasks)

    asyncio.run(run())


def test_when_all_slots_are_taken_the_next_goes_to_who_has_none() -> None:
    async def run() -> None:
        calls = Calls(FairSlots(4, 4))
        await calls.begin("slow", 8)
        await calls.begin("other", 3)
        await calls.begin("fast")
        await calls.end(3)
        assert calls.begun[:6] == ["slow"] * 4 + ["other", "fast"]
        for _ in range(4):
            await calls.end(99)
        assert all(task.done() for task in calls.tasks)

    asyncio.run(run())


def test_who_leaves_while_waiting_or_calling_takes_no_slot_along() -> None:
    async def run() -> None:
        calls = Calls(FairSlots(1, 1))
        await calls.begin("a")
        await calls.begin("b", 2)
        calls.tasks[1].cancel()
        await settled()
        calls.tasks[0].cancel()
        await settled()
        assert calls.begun == ["a", "b"]
        # Its turn comes in the moment in which it leaves.
        await calls.begin("c", 2)
        calls.tasks[2].cancel()
        await asyncio.sleep(0)
        calls.tasks[3].cancel()
        await settled()
        assert calls.begun == ["a", "b", "c"]
        assert not calls.tasks[4].done()
        calls.tasks[4].cancel()
        await settled()

    asyncio.run(run())
