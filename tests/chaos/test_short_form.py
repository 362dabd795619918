"""The short form of the fault suite: nothing lost, nothing sent twice unrecorded, and nothing left running."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from chaos.scenarios import long_form, short_form
from notifier.dev.embedded.binaries import find_rabbitmq
from tests.profiles import is_full
from tests.provisioning.install import can_apt_install
from tests.waiting import patient

ROOT = Path(__file__).parents[2]

#: A server and a program, under a third of the load. The rest of the short form is for `.ci/run`.
QUICK = {"RabbitMQ killed", "worker killed during a call, and after one"}

pytestmark = pytest.mark.timeout(240)


# In a container or elsewhere it cannot be stopped and killed; the long form says so, too.
@pytest.mark.skipif(
    find_rabbitmq() is None and not can_apt_install(),
    reason="needs its own RabbitMQ: install rabbitmq-server",
)
def test_nothing_is_lost_and_nothing_sent_twice_unrecorded(tmp_path: Path) -> None:
    output = tmp_path / "latest.json"
    wanted = [scenario.name for scenario in short_form() if is_full() or scenario.name in QUICK]
    rate = () if is_full() else ("--rate", "20")
    pattern = "|".join(f"^{re.escape(name)}$" for name in wanted)
    done = subprocess.run(
        [sys.executable, "-m", "chaos", "--short", "--only", pattern, "--output", output, *rate],
        cwd=ROOT,
        env={**os.environ, "HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        check=False,
        timeout=patient(220),
    )
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-4000:]
    result = json.loads(output.read_text())
    assert [row["name"] for row in result["scenarios"]] == wanted
    for row in result["scenarios"]:
        assert (row["lost"], row["unrecorded_duplicates"], row["unlawful"]) == (0, 0, 0), row
        assert row["messages"] > 0
    assert left_over(tmp_path) == []


def test_names_of_scenarios_are_unique() -> None:
    for scenarios in (long_form(), short_form()):
        names = [scenario.name for scenario in scenarios]
        assert len(names) == len(set(names))


def test_every_scenario_is_in_the_table_of_the_docs() -> None:
    text = (ROOT / "docs" / "explanation" / "faults.md").read_text("utf-8")
    assert [scenario.name for scenario in long_form() if f"| {scenario.name} |" not in text] == []


def left_over(home: Path) -> list[str]:
    """Programs of this run that still run: they inherited its home."""
    return [
        " ".join(process.info["cmdline"] or ())
        for process in psutil.process_iter(["cmdline", "environ"])
        if (process.info["environ"] or {}).get("HOME") == str(home)
    ]
