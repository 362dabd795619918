"""Finds Prometheus and its checker of rules. If they are missing, Debian's package is installed without starting
its service."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from tests.provisioning.install import apt_install, can_apt_install
from tests.waiting import patient


def promtool(*arguments: str, folder: Path, given: str | None = None) -> str:
    """Run promtool in `folder`, with `given` on its standard input. Returns its output. Fails with the output if
    it found a problem; skips if promtool is missing."""
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
    """The path of `promtool` or `prometheus`; skips if it is missing."""
    if shutil.which(name) is None and can_apt_install():
        apt_install("prometheus")
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"needs {name}: run `sudo apt-get install prometheus` (macOS: `brew install prometheus`)")
    return found
