"""What `notifier doctor` checks about the machine that it runs on: who may read the secrets, and its clock."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from notifier.cli.check_result import Check
from notifier.config.secret_files import open_secrets


def check_secrets() -> Iterator[Check]:
    """Whether somebody else on this machine can read the files of secrets."""
    found = open_secrets()
    if found:
        paths = ", ".join(map(str, found))
        files = " ".join(shlex.quote(str(path)) for path in found)
        fix = f"let the programs' user or group own them, then: chmod o= {files}"
        yield Check("secrets", True, f"everybody on this machine can read {paths}", fix)
