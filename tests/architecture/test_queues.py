"""No queue that nobody consumes, none consumed that nobody fills, and deployments that start every lane."""

from __future__ import annotations

from pathlib import Path

from notifier.broker import topology
from notifier.config.settings import Settings
from notifier.dev.programs import PROGRAMS
from notifier.domain.statuses import Channel, Lane
from notifier.worker.app import make_app

ROOT = Path(__file__).parents[2]


def test_every_pair_has_a_queue_for_producers_and_one_for_workers() -> None:
    pairs = {(channel, lane) for channel in Channel for lane in Lane}
    assert set(topology.pairs()) == pairs
    names = {topology.notify_queue_name(*pair) for pair in pairs} | {
        topology.deliver_queue_name(*pair) for pair in pairs
    }
    assert len(names) == 2 * len(pairs)


def test_celery_knows_exactly_the_queues_of_the_topology() -> None:
    app = make_app(Settings(broker_url="redis://127.0.0.1:1/0"))
    expected = {topology.deliver_queue_name(*pair) for pair in topology.pairs()}
    expected |= {topology.MAINTENANCE, topology.CALLBACKS}
    assert {queue.name for queue in app.conf.task_queues} == expected
    assert app.conf.accept_content == ["json"]
    for entry in app.conf.beat_schedule.values():
        assert entry["options"]["queue"] == topology.MAINTENANCE
        assert entry["task"] in app.tasks


def test_up_starts_a_worker_for_every_lane() -> None:
    started = [argument for arguments in PROGRAMS.values() for argument in arguments[-1].split(",")]
    assert {str(lane) for lane in Lane} <= set(started)


def test_deliveries_and_callbacks_run_in_processes_of_their_own() -> None:
    workers = [set(arguments) for arguments in PROGRAMS.values() if arguments[0] == "worker"]
    assert all("--no-callbacks" in options or "urgent" in options for options in workers)
    assert ("callbacks", "run") in PROGRAMS.values()
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    assert compose.count("command: [worker, ") == compose.count("command: [worker, --no-callbacks, ")
    assert "command: [callbacks, run]" in compose


def test_compose_starts_a_worker_for_every_lane() -> None:
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    for lane in Lane:
        assert f"--lanes, {lane}" in compose or f'"--lanes", "{lane}"' in compose or f"--lanes {lane}" in compose
