"""Alert rules and dashboard: Prometheus takes them, their metrics exist, and each alert says what to do."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import yaml

from tests.support.promtool import promtool

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "prometheus"
RULES: list[dict[str, Any]] = yaml.safe_load((FOLDER / "alerts.yml").read_text("utf-8"))["groups"][0]["rules"]
PANELS = json.loads((ROOT / "deploy" / "grafana" / "notifier.json").read_text("utf-8"))["panels"]
QUERIES = [target["expr"] for panel in PANELS for target in panel.get("targets", ())]


def test_prometheus_takes_the_rules_and_each_fires_when_it_should() -> None:
    assert f"{len(RULES)} rules found" in promtool("check", "rules", "alerts.yml", folder=FOLDER)
    tests = yaml.safe_load((FOLDER / "alerts_test.yml").read_text("utf-8"))["tests"]
    fired = re.findall(r'alertname="(\w+)"', json.dumps(tests).replace("\\", ""))
    assert set(fired) == {rule["alert"] for rule in RULES}
    promtool("test", "rules", "alerts_test.yml", folder=FOLDER)


def test_prometheus_takes_every_query_of_the_dashboard(tmp_path: Path) -> None:
    queries = [query.replace("$__rate_interval", "1m") for query in QUERIES]
    rules = [{"record": f"panel:{number}", "expr": query} for number, query in enumerate(queries)]
    assert len(rules) > 20
    (tmp_path / "panels.yml").write_text(json.dumps({"groups": [{"name": "panels", "rules": rules}]}))
    promtool("check", "rules", "panels.yml", folder=tmp_path)


def test_every_metric_that_they_ask_for_exists() -> None:
    page = (ROOT / "docs" / "reference" / "metrics.md").read_text("utf-8")
    known = set(re.findall(r"`(notifier_\w+)`", page))
    asked = {
        name
        for query in (*QUERIES, *(rule["expr"] for rule in RULES))
        for name in re.findall(r"notifier_\w+", query)
    }
    assert {re.sub(r"_(bucket|sum|count)$", "", name) for name in asked} <= known


def test_every_alert_has_a_section_that_says_what_to_do() -> None:
    page = (ROOT / "docs" / "how-to" / "alerts.md").read_text("utf-8")
    sections = dict(re.findall(r"^## (Notifier\w+)\n(.*?)(?=^## |\Z)", page, re.MULTILINE | re.DOTALL))
    assert sorted(sections) == sorted(rule["alert"] for rule in RULES)
    for rule in RULES:
        assert rule["annotations"]["runbook"] == f"docs/how-to/alerts.md#{rule['alert'].lower()}"
        assert rule["labels"]["severity"] in ("page", "ticket")
        assert "- **Look**:" in sections[rule["alert"]]
        assert "- **Do**:" in sections[rule["alert"]]
