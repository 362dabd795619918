"""Prometheus's own checker of rules. Where none is installed, Debian's package is; its service is not started."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.provisioning.install import apt_install, can_apt_install
from tests.waiting import patient


def promtool(*arguments: str, folder: Path) -> str:
    """Run it there. Returns what it said; fails with that if it found something, and skips where it is missing."""
    if shutil.which("promtool") is None and can_apt_install():
        apt_install("prometheus")
    program = shutil.which("promtool")
    if program is None:
        pytest.skip("needs promtool: run `sudo apt-get install prometheus` (macOS: `brew install prometheus`)")
    done = subprocess.run(
        [program, *arguments], cwd=folder, capture_output=True, text=True, check=False, timeout=patient(30)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout
