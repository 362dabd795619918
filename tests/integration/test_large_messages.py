"""Messages on RabbitMQ that are far too large, and batches that take long: neither costs the intake its memory or
its connection."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

import pytest
from amqp.exceptions import PreconditionFailed

from notifier.domain.message import MAX_BODY_BYTES
from notifier.intake import Received
from notifier.intake.rabbitmq import AmqpReader
from notifier.store.acceptance import KEPT_BODY_BYTES
from notifier.store.search import Filter
from tests.integration.test_intake import World, encode, publish_when_ready, reading, world
from tests.support.brokers import amqp_connection, publish_raw
from tests.waiting import patient, wait_until

__all__ = ["world"]

MIB = 1024 * 1024


def resident_bytes() -> int:
    """Of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def test_what_is_far_too_large_is_rejected_with_its_size_and_never_held_in_memory(
    world: World, amqp_url: str
) -> None:
    # All that RabbitMQ 4 lets through: its own limit is 16 MiB.
    large = b'{"x": "' + b"y" * (15 * MIB) + b'"}'
    taken: list[Received] = []
    with reading(amqp_url, taken.extend):
        publish_when_ready(amqp_url, "sms.bulk", encode())
        wait_until(lambda: taken)
    for number in range(12):
        publish_raw(amqp_url, "email.bulk", encode(idempotency_key=str(number)))
        publish_raw(amqp_url, "email.bulk", large)
    publish_raw(amqp_url, "email.bulk", encode(idempotency_key="last"))
    before, most = resident_bytes(), 0
    with reading(amqp_url, world.intake.process):

        def is_recorded() -> bool:
            nonlocal most
            most = max(most, resident_bytes())
            return len(world.audit.rejected(limit=100)) == 12 and len(world.audit.search(Filter())) == 13

        wait_until(is_recorded, timeout=60, every=0.02)
    assert most - before < 60 * MIB
    for row in world.audit.rejected(limit=100):
        assert [fault["code"] for fault in row.faults] == ["too_large"]
        assert row.faults[0]["problem"] == f"{len(large)} bytes"
        assert (row.body_size, row.body) == (len(large), large[:KEPT_BODY_BYTES])


def test_what_rabbitmq_itself_refuses_costs_its_producer_the_channel_and_nobody_else_anything(
    world: World, amqp_url: str
) -> None:
    """RabbitMQ 4 takes 16 MiB, and 3.x takes 128: there the intake rejects the same message."""
    with reading(amqp_url, world.intake.process), amqp_connection(amqp_url) as connection:
        publish_when_ready(amqp_url, "email.bulk", encode(idempotency_key="before"))
        is_refused = int(connection.server_properties["version"].partition(".")[0]) >= 4
        outcome = pytest.raises(PreconditionFailed, match="17825792 is larger than configured max size 16777216")
        with outcome if is_refused else nullcontext():
            publish_raw(amqp_url, "email.bulk", b"y" * (17 * MIB))
        publish_raw(amqp_url, "email.bulk", encode(idempotency_key="after"))
        wait_until(lambda: len(world.audit.search(Filter())) == 2, timeout=20)
        wait_until(lambda: len(world.audit.rejected()) == (0 if is_refused else 1))
    assert {found.idempotency_key for found in world.audit.search(Filter())} == {"before", "after"}


@pytest.mark.parametrize("size", [KEPT_BODY_BYTES, MAX_BODY_BYTES, MAX_BODY_BYTES + 1])
def test_a_body_up_to_the_limit_comes_whole(amqp_url: str, size: int) -> None:
    came: list[Received] = []
    with reading(amqp_url, came.extend):
        publish_when_ready(amqp_url, "email.normal", b"x" * size)
        publish_raw(amqp_url, "email.normal", b"behind")
        wait_until(lambda: len(came) == 2, timeout=20)
    assert came[0].size == size
    assert len(came[0].body) == (size if size <= MAX_BODY_BYTES else KEPT_BODY_BYTES)
    assert came[1].body == b"behind"


def test_no_more_is_taken_than_a_batch_of_bytes(amqp_url: str) -> None:
    sizes: list[int] = []

    def handle(batch: Sequence[Received]) -> None:
        sizes.append(sum(len(received.body) for received in batch))

    with reading(amqp_url, lambda batch: None):
        publish_when_ready(amqp_url, "email.bulk", b"")
    for _ in range(70):
        publish_raw(amqp_url, "email.bulk", b"x" * MIB)
    with reading(amqp_url, handle):
        wait_until(lambda: sum(sizes) == 70 * MIB, timeout=30)
    assert max(sizes) <= 33 * MIB


def test_a_batch_that_takes_long_does_not_come_again(amqp_url: str) -> None:
    """Longer than RabbitMQ waits for a sign of life, with more waiting than the socket holds."""
    came: list[bytes] = []
    stop, began, is_done = threading.Event(), threading.Event(), threading.Event()

    def handle(batch: Sequence[Received]) -> None:
        came.extend(received.body[:4] for received in batch if received.lane == "normal")
        if b"slow" in came and not began.is_set():
            began.set()
            assert not is_done.wait(6)

    thread = threading.Thread(target=AmqpReader(amqp_url, heartbeat_seconds=1).run, args=(handle, stop))
    thread.start()
    try:
        publish_when_ready(amqp_url, "email.normal", b"slow")
        wait_until(began.is_set, timeout=20)
        for number in range(30):
            publish_raw(amqp_url, "email.normal", json.dumps(number + 1000).encode() + b" " * (900 * 1024))
        wait_until(lambda: len(came) == 31, timeout=40)
    finally:
        stop.set()
        thread.join(timeout=patient(20))
    assert sorted(came) == sorted([b"slow", *(str(number + 1000).encode() for number in range(30))])
