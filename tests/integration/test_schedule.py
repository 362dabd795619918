"""What Beat sends, and that no machine's clock decides whether it counts. `e2e/test_clock.py` steps real ones."""

from __future__ import annotations

import time
from typing import Any

from celery import Celery
from pydantic import SecretStr

from notifier.broker import topology
from notifier.config.settings import Settings
from notifier.worker.app import make_app
from notifier.worker.names import DISPATCH, TICK_SECONDS
from tests.integration.test_worker import accept
from tests.support.brokers import amqp_connection
from tests.waiting import wait_until


def entries(app: Celery) -> list[dict[str, Any]]:
    return list(app.conf.beat_schedule.values())


def test_the_broker_measures_how_old_a_tick_is(database_url: str, amqp_url: str) -> None:
    app = make_app(Settings(database_url=SecretStr(database_url), broker_url=SecretStr(amqp_url)))
    with amqp_connection(amqp_url) as connection:
        for entry in entries(app):
            app.send_task(entry["task"], **entry["options"])
            message = connection.channel().basic_get(topology.MAINTENANCE, no_ack=True)
            # Celery's `expires` is a moment of the sender's clock.
            assert message.headers["expires"] is None
            assert 10_000 <= int(message.properties["expiration"]) <= 3_600_000
    app.close()


def test_all_entries_go_by_one_clock(redis_broker_url: str) -> None:
    app = make_app(Settings(broker_url=SecretStr(redis_broker_url)))
    (clock,) = {entry["schedule"].nowfun for entry in entries(app)}
    first, second = clock(), clock()
    assert first < second
    assert first.utcoffset() is not None
    app.close()


def test_ticks_that_come_all_at_once_are_one_sweep(database_url: str, redis_broker_url: str) -> None:
    app = make_app(Settings(database_url=SecretStr(database_url), broker_url=SecretStr(redis_broker_url)))
    sweep = app.tasks[DISPATCH]
    found: list[int] = []

    def were_within_half_a_tick() -> bool:
        begun = time.monotonic()
        sweep()
        accept(database_url)
        found[:] = [sweep() for _ in range(5)]
        return time.monotonic() - begun < TICK_SECONDS / 2

    # A slow machine needs another try.
    wait_until(were_within_half_a_tick, timeout=60, every=TICK_SECONDS)
    assert found == [0] * 5
    assert wait_until(sweep, timeout=10 * TICK_SECONDS) == 1
    app.close()
