"""Serves Swagger UI at `/docs`, from a local folder, if NOTIFIER_API_DOCS names one.

The page loads nothing from other hosts, and its security policy forbids it. Requests made there need a key.
"""

from __future__ import annotations

import base64
import hashlib
import re
from pathlib import Path

from fastapi import APIRouter, Response
from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import FileResponse, HTMLResponse

from notifier.domain.errors import ConfigurationError

_SCRIPT, _STYLE = "swagger-ui-bundle.js", "swagger-ui.css"
_INLINE = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


def make_router(folder: Path) -> APIRouter:
    """`folder` is the npm package swagger-ui-dist, version 5 or later.

    Raises:
        ConfigurationError: the files of Swagger UI are not in it.
    """
    for name in (_SCRIPT, _STYLE):
        if not (folder / name).is_file():
            raise ConfigurationError(
                f"NOTIFIER_API_DOCS: {folder} has no {name}: name the folder of npm's package swagger-ui-dist",
                setting="NOTIFIER_API_DOCS",
            )
    router = APIRouter(include_in_schema=False)
    page = _page()

    @router.get("/docs")
    async def docs() -> Response:
        return page

    @router.get(f"/docs/{_SCRIPT}")
    async def script() -> Response:
        return FileResponse(folder / _SCRIPT, media_type="text/javascript")

    @router.get(f"/docs/{_STYLE}")
    async def style() -> Response:
        return FileResponse(folder / _STYLE, media_type="text/css")

    return router


def _page() -> HTMLResponse:
    # Relative addresses without a leading slash also work below a path of a proxy.
    page = get_swagger_ui_html(
        openapi_url="openapi.json",
        title="notifier",
        swagger_js_url=f"docs/{_SCRIPT}",
        swagger_css_url=f"docs/{_STYLE}",
        swagger_favicon_url="data:,",
    )
    hashes = [
        base64.b64encode(hashlib.sha256(text).digest()).decode() for text in _INLINE.findall(bytes(page.body))
    ]
    scripts = " ".join(["'self'", *(f"'sha256-{one}'" for one in hashes)])
    page.headers["Content-Security-Policy"] = (
        f"default-src 'none'; script-src {scripts}; style-src 'self' 'unsafe-inline'; img-src 'self' data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return page
