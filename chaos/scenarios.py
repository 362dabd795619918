"""The list of scenarios, long and short."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from chaos import clocks, faults, feedback, months, names, poolers, provider_faults, restored
from chaos.faults import Fault
from chaos.load import Mix
from chaos.taps import CLAIM, RESULT, START, Point
from chaos.world import USUAL, BrokerName, Setup, World
from notifier.domain.statuses import Lane

#: In the urgent lane a lost task is noticed after half a minute, in the normal lane after two minutes.
_URGENT = Mix()
_BOTH = Mix(lanes={Lane.URGENT: 8, Lane.NORMAL: 2})
#: Half of the messages go through the outbox; its producers repeat nothing by themselves.
_OUTBOX = Mix(outbox=0.5, repeat=0.0)


@dataclass(frozen=True, slots=True)
class Scenario:
    """One fault under load."""

    name: str
    fault: Fault
    mix: Mix = _URGENT
    broker: BrokerName = "rabbitmq"
    setup: Setup = USUAL
    #: Minimum duration of the load, which also lasts as long as the fault.
    seconds: float = 8.0
    #: The fault destroys what only the broker held. That is lost, but nothing that had been accepted may be lost.
    loses_broker: bool = False
    #: The fault makes a relay publish again what the broker already has. That must happen, and do no harm.
    repeats_publishes: bool = False
    needs_disk: bool = False
    #: Nobody dies and no provider misbehaves, so no message may fail, or be taken for one whose worker is gone.
    harms_nobody: bool = False
    #: Everything is at rest this soon after the fault: before a lease ends, which would hide a problem. Seconds.
    rests_within: float | None = None
    #: What else must be right when everything is at rest; returns one line for each thing that is not.
    check: Callable[[World], list[str]] | None = None
    has_fault: bool = True


def _any_programs() -> list[Fault]:
    return [
        faults.kill("worker", 1, 0.6),
        faults.kill("intake", 1, 0.6),
        faults.kill("beat", 1, 0.6),
        faults.kill("relay", 1, 0.6),
        faults.freeze("worker", 4),
    ]


def _anything() -> list[Fault]:
    return [
        *_any_programs(),
        *(faults.kill_workers_at(point, 1, 0.2) for point in Point),
        faults.kill_relays_before_commit(1, 0.2),
        faults.cut_broker(2),
        faults.kill_rabbitmq(1),
        faults.alarm_rabbitmq(2),
        faults.terminate_backends(2),
        faults.stop_postgres(signal.SIGQUIT, 1),
        faults.hold_database(2),
        faults.lose_commit_answers(3),
        provider_faults.closing_after_data(2),
        provider_faults.refusing_for_now(2),
        provider_faults.silent(2),
        provider_faults.taking_few_connections(2),
        provider_faults.refusing_callbacks(2),
    ]


def _lost(words: bytes) -> Fault:
    return faults.lose_answers(words, 5, 3)


def _in_other_surroundings() -> list[Scenario]:
    return [
        Scenario(
            "clocks months ahead and behind", clocks.months_ahead, setup=clocks.STEPPED_CLOCKS, check=clocks.check
        ),
        Scenario("a slow name server", names.slow_names, setup=names.OWN_CALLERS, check=names.check),
        *(
            Scenario(name, poolers.restart(4), setup=poolers.before_postgres(how, settings))
            for name, how, settings in (
                ("pooler in transaction mode, refusing our options", "behind a pooler", poolers.refusing_options),
                (
                    "pooler in transaction mode, ignoring our options",
                    "behind another pooler",
                    poolers.ignoring_options,
                ),
                ("pooler that keeps prepared statements", "behind a third pooler", poolers.keeping_prepared),
            )
        ),
    ]


def long_form(load: float = 8.0) -> Sequence[Scenario]:
    """All faults: each alone, then randomly mixed."""
    return [
        Scenario("no fault", faults.nothing(load), _BOTH, has_fault=False),
        *(Scenario(f"worker killed {point}", faults.kill_workers_at(point, 5)) for point in Point),
        Scenario("worker killed at random", faults.kill("worker", 6)),
        Scenario("worker stopped longer than its lease", faults.freeze_beyond_lease),
        Scenario("intake killed", faults.kill("intake", 6)),
        Scenario("intake stopped for a while", faults.freeze("intake", 12)),
        Scenario("both Beats killed", faults.kill("beat", 8, 1.0)),
        Scenario("relay killed at random", faults.kill("relay", 8, 1.0), _OUTBOX),
        Scenario(
            "relay killed between publish and commit",
            faults.kill_relays_before_commit(6),
            _OUTBOX,
            repeats_publishes=True,
        ),
        Scenario("every program restarted in turn", faults.restart_in_turn, _BOTH),
        Scenario("RabbitMQ stopped", faults.stop_rabbitmq(5)),
        Scenario("RabbitMQ killed", faults.kill_rabbitmq(3)),
        Scenario("RabbitMQ alarmed", faults.alarm_rabbitmq(12)),
        Scenario("connections to RabbitMQ cut", faults.cut_broker(8)),
        Scenario("connections to RabbitMQ half-open", faults.freeze_broker(50), Mix(rate=25)),
        Scenario("PostgreSQL shut down at once", faults.stop_postgres(signal.SIGQUIT, 5)),
        Scenario("PostgreSQL killed", faults.stop_postgres(signal.SIGKILL, 2)),
        Scenario("PostgreSQL sessions terminated", faults.terminate_backends(12)),
        Scenario("network of PostgreSQL stands still", faults.hold_database(8)),
        Scenario("connections to PostgreSQL half-open", faults.freeze_database(15)),
        Scenario("answers to commits lost", faults.lose_commit_answers(15)),
        *(
            Scenario(f"answers to {name} lost, three in a row", _lost(words), harms_nobody=True, rests_within=15)
            for name, words in (("claims", CLAIM), ("starts", START), ("results", RESULT))
        ),
        Scenario("disk of PostgreSQL full", faults.fill_disk(8), needs_disk=True),
        Scenario("provider silent", provider_faults.silent(load)),
        Scenario("provider dripping", provider_faults.dripping(load)),
        Scenario("provider closing mid-data", provider_faults.closing_mid_data(load)),
        Scenario("provider closing after data", provider_faults.closing_after_data(load)),
        Scenario("provider answering 5xx", provider_faults.refusing(load)),
        Scenario("provider answering 421, 451, 452, 429", provider_faults.refusing_for_now(load)),
        Scenario("mail server taking two connections", provider_faults.taking_few_connections(load)),
        Scenario("messages and tasks delivered again", faults.repeat_tasks(load), Mix(repeat=0.6)),
        Scenario(
            "bounces, receipts and unsubscribes during kills, database away",
            feedback.feedback(24),
            check=feedback.check,
        ),
        Scenario(
            "a thousand idle connections",
            feedback.idle_connections(10),
            check=feedback.check,
            harms_nobody=True,
        ),
        Scenario("a month without partitions", months.month_without_partition(2), check=months.check),
        Scenario("a restored dump", restored.restored_backup),
        Scenario("endpoint of callbacks refusing", provider_faults.refusing_callbacks(load)),
        Scenario("anything, at random", faults.at_random(_anything(), 60), _BOTH),
        *_in_other_surroundings(),
        Scenario("Redis killed", faults.kill_valkey(3), broker="redis"),
        Scenario("Redis emptied", faults.flush_valkey(2), broker="redis", loses_broker=True),
        Scenario("programs killed on Redis", faults.at_random(_any_programs(), 12), broker="redis"),
        Scenario("connections to Redis cut", faults.cut_broker(8), broker="redis"),
    ]


def short_form(rate: float = _URGENT.rate) -> Sequence[Scenario]:
    """The most telling faults, briefly. Unknown outcomes take a minute to come to rest; the last scenarios run in
    that time.

    `rate`: messages per second.
    """
    calls = faults.in_turn(
        faults.kill_workers_at(Point.AFTER_ANSWER, 1, 1), faults.kill_workers_at(Point.DURING_CALL, 1, 1)
    )
    scenarios = [
        Scenario("RabbitMQ killed", faults.kill_rabbitmq(0.5), seconds=3),
        Scenario("worker killed during a call, and after one", calls, seconds=4),
        Scenario("provider closing after data", provider_faults.closing_after_data(3), seconds=3),
        Scenario("PostgreSQL shut down at once", faults.stop_postgres(signal.SIGQUIT, 1), seconds=3),
        Scenario("intake killed", faults.kill("intake", 3, 0.8), seconds=3),
        Scenario(
            "relay killed between publish and commit",
            faults.kill_relays_before_commit(2, 0.5),
            _OUTBOX,
            repeats_publishes=True,
            seconds=3,
        ),
        Scenario("answers to commits lost", faults.lose_commit_answers(5), seconds=3),
        Scenario("messages and tasks delivered again", faults.repeat_tasks(3), Mix(repeat=0.6), seconds=3),
    ]
    return [replace(scenario, mix=replace(scenario.mix, rate=rate)) for scenario in scenarios]
