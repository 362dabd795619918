"""The page of Swagger UI: from files of this machine alone, behind a policy that says so."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest

from notifier.api.routes.swagger_ui import make_router
from notifier.domain.errors import ConfigurationError


def test_the_page_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    for name in ("swagger-ui-bundle.js", "swagger-ui.css"):
        (tmp_path / name).write_text("")
    pages = {route.path: route.endpoint for route in make_router(tmp_path).routes}  # type: ignore[attr-defined]
    assert set(pages) == {"/docs", "/docs/swagger-ui-bundle.js", "/docs/swagger-ui.css"}
    page = asyncio.run(pages["/docs"]())
    addresses = re.findall(r'(?:src|href)="([^"]*)"', page.body.decode())
    assert set(addresses) == {"docs/swagger-ui-bundle.js", "docs/swagger-ui.css", "data:,"}
    policy = page.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; script-src 'self' 'sha256-")
    assert "http" not in policy


def test_a_folder_without_it_is_a_wrong_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="swagger-ui-dist"):
        make_router(tmp_path)
