"""Prometheus, and its own checker of rules. Where neither is, Debian's package is installed, and its service not
started."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.provisioning.install import apt_install, can_apt_install
from tests.waiting import patient


def promtool(*arguments: str, folder: Path, given: str | None = None) -> str:
    """Run it there, with `given` on its standard input. Returns what it said; fails with that if it found
    something, and skips where it is missing."""
    done = subprocess.run(
        [program("promtool"), *arguments],
        cwd=folder,
        input=given,
        capture_output=True,
        text=True,
        check=False,
        timeout=patient(30),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def program(name: str) -> str:
    """Path of `promtool` or `prometheus`; skips where it is missing."""
    if shutil.which(name) is None and can_apt_install():
        apt_install("prometheus")
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}: run `sudo apt-get install prometheus` (macOS: `brew install prometheus`)")
    return found
