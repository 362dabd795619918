"""`notifier health` against the `/healthz` of a process."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import closing

import pytest

from notifier.cli import health
from notifier.telemetry.liveness import LIMIT_SECONDS, Liveness
from notifier.telemetry.server import MetricsServer
from tests.unit.cli.commandline import CommandLine


@pytest.fixture
def now() -> list[float]:
    return [0.0]


@pytest.fixture
def worker(now: list[float], monkeypatch: pytest.MonkeyPatch) -> Iterator[MetricsServer]:
    liveness = Liveness(clock=lambda: now[0])
    liveness.turned("tasks")
    server = MetricsServer("127.0.0.1", 0, "worker", liveness)
    monkeypatch.setenv("NOTIFIER_METRICS_PORT", str(server.port))
    yield server
    server.close()


@pytest.fixture
def command_line() -> CommandLine:
    return CommandLine({})


def test_a_program_whose_loops_turn_is_healthy(worker: MetricsServer, command_line: CommandLine) -> None:
    for arguments in (["worker"], []):
        answer = command_line("health", *arguments)
        assert (answer.code, answer.out.split()[0]) == (0, "healthy:")


def test_a_stalled_loop_is_named(worker: MetricsServer, command_line: CommandLine, now: list[float]) -> None:
    now[0] += LIMIT_SECONDS + 1
    answer = command_line("health", "worker")
    assert (answer.code, answer.out) == (1, "")
    assert "worker is stalled: tasks for 121 s" in answer.err


def test_a_stopped_program_is_not_healthy_because_the_api_beside_it_is(
    command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    api = MetricsServer("127.0.0.1", 0, "api", Liveness())
    monkeypatch.setenv("NOTIFIER_API_PORT", str(api.port))
    # The kernel takes connections for a stopped process as for this one, which never answers.
    with closing(api), socket.create_server(("127.0.0.1", 0)) as stopped:
        port = str(stopped.getsockname()[1])
        monkeypatch.setenv("NOTIFIER_METRICS_PORT", port)
        with monkeypatch.context() as impatient:
            impatient.setattr(health, "_ANSWER_SECONDS", 0.2)
            answer = command_line("health")
        assert (answer.code, answer.out) == (1, "")
        assert f"no answer within 0.2 s on port {port} (NOTIFIER_METRICS_PORT)" in answer.err
        stopped.close()
        answer = command_line("health")
        assert (answer.code, answer.out.strip()) == (0, f"healthy: the program on port {api.port}")


def test_another_program_and_nobody_are_unhealthy(
    worker: MetricsServer, command_line: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = command_line("health", "intake")
    assert (answer.code, "belongs to worker" in answer.err) == (1, True)
    with socket.create_server(("127.0.0.1", 0)) as bound:
        monkeypatch.setenv("NOTIFIER_METRICS_PORT", str(bound.getsockname()[1]))
    answer = command_line("health", "intake")
    assert (answer.code, "nothing answers" in answer.err) == (1, True)
    monkeypatch.delenv("NOTIFIER_METRICS_PORT")
    answer = command_line("health", "intake")
    assert (answer.code, "NOTIFIER_METRICS_PORT" in answer.err) == (2, True)
