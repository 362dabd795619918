"""Shows HTML that producers' templates made, in frames: nothing in it runs, and nothing is loaded from
elsewhere."""

from __future__ import annotations

import re
from collections.abc import Mapping
from enum import StrEnum

from fastapi.responses import HTMLResponse

from notifier.console.pages import HEADERS

#: `sandbox` without exceptions: no scripts, no forms, an origin of its own. Mails bring their own styles.
FRAME_POLICY = (
    "sandbox; default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'; base-uri 'none'; "
    "frame-ancestors 'self'"
)
FRAME_HEADERS: Mapping[str, str] = {
    **HEADERS,
    "Content-Security-Policy": FRAME_POLICY,
    "X-Frame-Options": "SAMEORIGIN",
    "Referrer-Policy": "no-referrer",
}


class Theme(StrEnum):
    """The theme of the reader's mail program."""

    LIGHT = "light"
    DARK = "dark"


_ALWAYS, _NEVER = "(min-width: 0)", "(max-width: 0)"
_MEDIA = re.compile(r"\(\s*prefers-color-scheme\s*:\s*(light|dark)\s*\)", re.IGNORECASE)
_BOTH = re.compile(r"(color-scheme\s*:\s*)light dark", re.IGNORECASE)


def framed(html: str, theme: Theme) -> HTMLResponse:
    """The mail as a mail program in this theme shows it, whatever the browser's theme is."""
    html = _MEDIA.sub(lambda media: _ALWAYS if media[1].lower() == theme else _NEVER, html)
    return HTMLResponse(_BOTH.sub(rf"\g<1>{theme}", html), headers=dict(FRAME_HEADERS))
