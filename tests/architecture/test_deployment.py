"""What the deployment files and their guide promise fits the programs."""

from __future__ import annotations

import re
from pathlib import Path

from notifier.config.database_pools import most_connections
from notifier.config.settings import Settings

ROOT = Path(__file__).parents[2]
#: PostgreSQL keeps these for its superuser (`superuser_reserved_connections`).
RESERVED = 3


def test_postgres_of_compose_has_room_for_every_program() -> None:
    compose = (ROOT / "docker-compose.yml").read_text("utf-8")
    each = most_connections(Settings())
    workers = len(re.findall(r"command: \[worker,", compose))
    most = sum(each.values()) + (workers - 1) * each["worker"]
    allowed = re.search(r"max_connections=(\d+)", compose)
    assert allowed is not None
    assert workers == 3
    assert f"hold up to {most} connections" in compose
    assert most + RESERVED < int(allowed[1])


def test_the_guide_lets_a_proxy_pass_on_every_route_that_people_and_providers_reach() -> None:
    guide = (ROOT / "docs" / "how-to" / "run-in-production.md").read_text("utf-8")
    sources = "".join(path.read_text("utf-8") for path in (ROOT / "notifier" / "api").rglob("*.py"))
    paths = set(re.findall(r"""@router\.\w+\(\s*f?"(/[^"]*)\"""", sources))
    inside = {"/healthz", "/readyz", "/metrics"}
    # Nor is the page for developers meant for everybody.
    outside = {f"/{path.split('/')[1]}/" for path in paths - inside} - {"/docs/"}
    assert outside >= {"/v1/", "/webhooks/", "/u/"}
    assert {path for path in outside if f"`{path}`" not in guide} == set()
