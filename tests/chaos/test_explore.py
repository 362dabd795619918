"""The explorer for a few seconds, and proof that it is able to fail: faults that are put back are found."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from chaos.explore.kept import KEPT
from chaos.explore.mutations import MUTATIONS
from chaos.explore.scenarios import SCENARIOS
from chaos.explore.search import parse
from chaos.explore.steps import Choice, Kind, Option, Step
from tests.profiles import full_only

ROOT = Path(__file__).parents[2]

pytestmark = pytest.mark.timeout(240)


def explore(postgres_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "chaos.explore", *arguments],
        cwd=ROOT,
        env={**os.environ, "NOTIFIER_TEST_DATABASE_URL": postgres_url},
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_promise_is_kept_in_every_order(postgres_url: str) -> None:
    done = explore(postgres_url, "--seconds", "4", "--processes", "1", "--only", "^(deliver-deliver|sms-twins)$")
    assert done.returncode == 0, done.stdout + done.stderr
    assert f"{len(KEPT)} schedules that broke a promise once keep it" in done.stdout


@full_only
def test_faults_that_are_put_back_are_found(postgres_url: str) -> None:
    names = ("claim-twice", "start-twice", "twins")
    only = f"^({'|'.join(names)})$"
    done = explore(postgres_url, "--prove", "--seconds", "60", "--processes", "1", "--only", only)
    assert done.returncode == 0, done.stdout + done.stderr
    for name in names:
        assert f"found  {name}" in done.stdout


def test_a_schedule_is_read_as_it_is_written() -> None:
    choices = [Choice("a"), Choice("b", Option.LOST), Choice("t"), Choice("z", Option.DIES_AFTER)]
    assert parse("".join(map(str, choices))) == choices


def test_steps_commute_unless_one_writes_what_the_other_uses() -> None:
    def step(reads: str, writes: str) -> Step:
        return Step(Kind.STATEMENT, "", frozenset(reads.split()), frozenset(writes.split()))

    assert step("notifications", "").commutes_with(step("notifications", "attempts"))
    assert not step("notifications", "").commutes_with(step("", "notifications"))
    assert not step("", "notifications").commutes_with(step("", "notifications"))


def test_names_are_unique_and_known() -> None:
    names = [scenario.name for scenario in SCENARIOS]
    assert len(names) == len(set(names))
    assert {mutation.scenario for mutation in MUTATIONS} <= set(names)
    assert {token.partition(":")[0] for token in KEPT} <= set(names)
