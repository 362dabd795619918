"""What the deployment files and their guide promise fits the programs."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

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


def test_the_rights_are_granted_by_whoever_owns_the_tables_and_in_compose_after_the_role_is_made() -> None:
    rights = (ROOT / "deploy" / "postgres" / "rights.sql").read_text("utf-8")
    # Only a superuser, or a role that may make roles, may do more than grant, and take back.
    assert re.findall(r"^\s*(CREATE|ALTER|DROP|SET)\b.*", rights, re.MULTILINE) == []
    # Programs that run never find a right missing between the two.
    for revoked in re.finditer(r"^REVOKE UPDATE\b|^(REVOKE\b.*)", rights, re.MULTILINE):
        assert revoked[1] is None
        assert rights.rindex("BEGIN;", 0, revoked.start()) > rights.rfind("COMMIT;", 0, revoked.start())
    assert rights.count("\nGRANT ") == rights.count(" TO notifier_app;") + rights.count(" TO notifier_auditor;")
    for file in (ROOT / "deploy" / "postgres").glob("*.sql"):
        assert "\\set ON_ERROR_STOP on\n" in file.read_text("utf-8"), file.name
    service = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]["rights"]
    assert service["command"] == ["--file=/app-role.sql", "--file=/rights.sql"]
    guide = (ROOT / "docs" / "how-to" / "run-in-production.md").read_text("utf-8")
    first_start = guide.partition("## First start")[2].partition("## Upgrade")[0]
    assert first_start.index("db upgrade") < first_start.index("rights.sql") < first_start.index("notifier doctor")


def test_every_container_of_compose_is_confined_and_knows_only_its_own_secrets() -> None:
    services = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))["services"]
    for name, service in services.items():
        assert service["read_only"], name
        assert service["cap_drop"] == ["ALL"], name
        assert "no-new-privileges:true" in service["security_opt"], name
        assert service["mem_limit"], name
        assert service["healthcheck"].get("disable") or service["healthcheck"]["test"], name
        assert re.search(r":(local|\d+\.\d+(\.\d+)?)$", service["image"]), name
    providers = {name for name, service in services.items() if "NOTIFIER_SMTP_URL" in service["environment"]}
    assert providers == {"worker-urgent", "worker-normal", "worker-bulk", "api"}
    owners = {name for name, service in services.items() if "${POSTGRES_PASSWORD" in str(service["environment"])}
    assert owners == {"postgres", "rights", "migrate", "retention"}
    assert "NOTIFIER_DATABASE_URL" not in services["beat"]["environment"]
