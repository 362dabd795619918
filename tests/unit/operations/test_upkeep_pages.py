"""The pages that list the steps of upkeep know all of them."""

from __future__ import annotations

import re
from pathlib import Path

from notifier.operations.upkeep import DAILY_AT

DOCS = Path(__file__).parents[3] / "docs"
QUOTED = re.compile(r"`(\w+)`")


def test_the_table_of_operators_has_every_step_at_its_time() -> None:
    upkeep = (DOCS / "how-to/operate.md").read_text("utf-8").split("## Upkeep\n", 1)[1].split("\n## ", 1)[0]
    rows = re.findall(r"^\| (`.+?`) \| (\d\d:\d\d) \|", upkeep, flags=re.MULTILINE)
    shown = {step: at for steps, at in rows for step in QUOTED.findall(steps)}
    assert shown == {step: f"{at:%H:%M}" for step, at in DAILY_AT.items()}


def test_the_page_of_metrics_has_every_step() -> None:
    metrics = (DOCS / "reference/metrics.md").read_text("utf-8")
    [listed] = re.findall(r"^Steps: (.+?)\n\n", metrics, flags=re.MULTILINE | re.DOTALL)
    assert set(QUOTED.findall(listed)) == set(DAILY_AT)
