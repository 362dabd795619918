"""The faults: each takes the world, misbehaves for a while, and returns. `World.heal` undoes what it left."""

from __future__ import annotations

import signal
import time
from collections.abc import Callable

from chaos.taps import Budget, Point, kill_at, kill_before_commit, lose_commits, lose_in_a_row
from chaos.world import LEASE_SECONDS, World
from notifier.config.settings import Settings
from notifier.worker.app import make_app
from notifier.worker.tasks import task_publisher
from tests.waiting import Deadline

Fault = Callable[[World], None]


def nothing(seconds: float) -> Fault:
    """No fault, for comparison."""
    return lambda world: world.pause(seconds)


# Programs.


def kill(kind: str, times: int, gap_seconds: float = 1.5) -> Fault:
    """kill -9 of some program of that kind, at arbitrary moments."""

    def fault(world: World) -> None:
        for _ in range(times):
            world.pause(gap_seconds * world.rng.uniform(0.5, 1.5))
            world.running_fleet.kill(world.rng.choice(world.running_fleet.names(kind)))

    return fault


def kill_workers_at(point: Point, times: int, gap_seconds: float = 2.5) -> Fault:
    """kill -9 of a worker that is at this point of a provider call."""

    def fault(world: World) -> None:
        budget = Budget(times, 0.2, gap_seconds, world.rng)
        tap = kill_at(point, budget, world.running_fleet.kill_by_port)
        world.mail_link.tap = world.sms_link.tap = tap
        _wait_for(lambda: budget.is_done, world, times * (gap_seconds + 8))

    return fault


def kill_relays_before_commit(times: int, gap_seconds: float = 1.5) -> Fault:
    """kill -9 of a relay whose rows the broker has confirmed but that has not deleted them yet."""

    def fault(world: World) -> None:
        budget = Budget(times, 0.7, gap_seconds, world.rng)
        world.outbox_link.tap = kill_before_commit(budget, world.running_fleet.kill_by_port)
        _wait_for(lambda: budget.is_done, world, times * (gap_seconds + 8))

    return fault


def freeze(kind: str, seconds: float) -> Fault:
    """SIGSTOP of one program, and SIGCONT after `seconds`."""

    def fault(world: World) -> None:
        world.pause(2)
        world.running_fleet.freeze(world.rng.choice(world.running_fleet.names(kind)))
        world.pause(seconds)
        world.running_fleet.thaw()

    return fault


def freeze_beyond_lease(world: World) -> None:
    """SIGSTOP of a worker until others have taken its messages, then SIGCONT: it finds that it has lost them."""
    freeze("worker", LEASE_SECONDS + 8)(world)


def restart_in_turn(world: World) -> None:
    """SIGTERM to every program, one after the other, as in an upgrade."""
    for name in list(world.running_fleet.pids):
        world.running_fleet.kill(name, signal.SIGTERM)
        world.pause(1.5)


# Brokers.


def stop_rabbitmq(seconds: float) -> Fault:
    """RabbitMQ shuts down in order, and comes back."""

    def fault(world: World) -> None:
        world.pause(1.5)
        world.rabbit.stop_node()
        world.strike()
        world.pause(seconds)
        world.rabbit.start_node()

    return fault


def kill_rabbitmq(seconds: float) -> Fault:
    """kill -9 of RabbitMQ."""

    def fault(world: World) -> None:
        world.pause(1.5)
        world.rabbit.kill_node()
        world.strike()
        world.pause(seconds)
        world.rabbit.start_node()

    return fault


def alarm_rabbitmq(seconds: float) -> Fault:
    """The memory alarm: RabbitMQ reads nothing more from publishers."""

    def fault(world: World) -> None:
        world.pause(1.5)
        world.rabbit.alarm(on=True)
        world.strike()
        world.pause(seconds)
        world.rabbit.alarm(on=False)

    return fault


def cut_broker(times: int) -> Fault:
    """Every connection to the broker is closed, again and again."""

    def fault(world: World) -> None:
        for _ in range(times):
            world.pause(world.rng.uniform(0.3, 1.2))
            world.broker_link.cut()
            world.strike()

    return fault


def freeze_broker(seconds: float) -> Fault:
    """Every connection to the broker becomes half-open; new ones work."""

    def fault(world: World) -> None:
        world.pause(1.5)
        world.broker_link.freeze()
        world.strike()
        world.pause(seconds)

    return fault


def kill_valkey(seconds: float) -> Fault:
    """kill -9 of the Redis-protocol server."""

    def fault(world: World) -> None:
        assert world.valkey is not None
        world.pause(2)
        world.valkey.kill()
        world.strike()
        world.pause(seconds)
        world.valkey.start()

    return fault


def flush_valkey(times: int) -> Fault:
    """FLUSHALL: queues, bindings and unfinished tasks are gone, as after a failover to an empty replica."""

    def fault(world: World) -> None:
        import redis

        assert world.valkey is not None
        for _ in range(times):
            world.pause(3)
            with redis.Redis.from_url(world.valkey.url) as client:
                client.flushall()
                world.strike()
        world.pause(2)

    return fault


# The database.


def stop_postgres(number: signal.Signals, seconds: float) -> Fault:
    """SIGQUIT (immediate shutdown) or SIGKILL, then a start with recovery."""

    def fault(world: World) -> None:
        world.pause(1.5)
        world.postgres.kill(number)
        world.strike()
        world.pause(seconds)
        world.postgres.start()

    return fault


def terminate_backends(times: int, gap_seconds: float = 0.6) -> Fault:
    """pg_terminate_backend of every session, again and again."""

    def fault(world: World) -> None:
        for _ in range(times):
            world.pause(gap_seconds)
            world.strike(world.postgres.terminate_backends())

    return fault


def hold_database(seconds: float) -> Fault:
    """The database's network stands still, for existing and new connections, and then continues."""

    def fault(world: World) -> None:
        world.pause(1.5)
        for link in world.database_links:
            link.hold()
        world.strike()
        world.pause(seconds)
        for link in world.database_links:
            link.heal()

    return fault


def freeze_database(seconds: float) -> Fault:
    """Every connection to the database becomes half-open; new ones work."""

    def fault(world: World) -> None:
        world.pause(1.5)
        for link in world.database_links:
            link.freeze()
        world.strike()
        world.pause(seconds)
        for link in world.database_links:
            link.heal()

    return fault


def lose_commit_answers(times: int) -> Fault:
    """Transactions commit, but their connections break before the answer."""

    def fault(world: World) -> None:
        budget = Budget(times, 0.15, 0.3, world.rng)
        for link in world.database_links:
            link.tap = lose_commits(link, budget)
        _wait_for(lambda: budget.is_spent, world, times * 2.0)
        world.strike(budget.struck)

    return fault


def lose_answers(words: bytes, bursts: int, in_a_row: int) -> Fault:
    """A statement of the workers is executed but its answer is lost, several times in a row, repetitions
    included."""

    def fault(world: World) -> None:
        budget = Budget(bursts, 0.5, 1.5, world.rng)
        world.database_link.tap = lose_in_a_row(world.database_link, words, budget, in_a_row)
        _wait_for(lambda: budget.is_spent, world, bursts * 6.0)
        world.strike(budget.struck * in_a_row)

    return fault


def fill_disk(seconds: float) -> Fault:
    """The database's disk is completely full."""

    def fault(world: World) -> None:
        assert world.disk is not None
        world.pause(1.5)
        world.disk.fill()
        world.strike()
        world.pause(seconds)
        world.disk.free()

    return fault


# Repeated tasks.


def repeat_tasks(seconds: float) -> Fault:
    """Every deliver task comes three more times, while the first is in progress and afterwards."""

    def fault(world: World) -> None:
        assert world.broker is not None
        settings = Settings(broker_url=world.broker_url(world.broker))
        publish = task_publisher(make_app(settings))
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            for message in world.running_load.recent(20):
                for _ in range(3):
                    publish(message.channel, message.lane, [message.id])
                world.strike(3)
            world.pause(0.1)

    return fault


def in_turn(*faults: Fault) -> Fault:
    """These faults, one after the other."""

    def fault(world: World) -> None:
        for one in faults:
            one(world)

    return fault


def at_random(faults: list[Fault], seconds: float) -> Fault:
    """Any of these faults, one after the other, in an order that the seed decides."""

    def fault(world: World) -> None:
        ends_at = time.monotonic() + seconds
        while time.monotonic() < ends_at:
            world.rng.choice(faults)(world)

    return fault


def _wait_for(done: Callable[[], bool], world: World, deadline_seconds: float) -> None:
    deadline = Deadline(deadline_seconds)
    while not done() and not deadline.is_over():
        world.pause(0.05)
