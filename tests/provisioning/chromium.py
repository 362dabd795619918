"""The browser of this machine."""

from __future__ import annotations

import shutil

# The first has no windows, and takes a third of the processor time of the others.
_NAMES = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")
#: No sandbox of its own: tests run as root in containers. Nothing that calls home.
ARGUMENTS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


def find_chromium() -> str | None:
    """Its path; None: there is none on the PATH."""
    return next(filter(None, map(shutil.which, _NAMES)), None)
