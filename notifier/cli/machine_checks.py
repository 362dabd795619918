"""Checks of `notifier doctor` on this machine: who can read the secrets, and its clock."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from notifier.cli.check_result import Check
from notifier.config.secret_files import open_secrets

if TYPE_CHECKING:
    from notifier.bootstrap import Services

#: How much clocks may differ; includes a slow answer of the database. Seconds.
CLOCKS_AGREE = 5
#: From this difference on, others refuse us: an identity provider's sign-ins are accepted with this tolerance.
#: Seconds.
CLOCKS_REFUSED = 60


def check_secrets() -> Iterator[Check]:
    """Whether anybody else on this machine can read the secret files."""
    found = open_secrets()
    if found:
        paths = ", ".join(map(str, found))
        files = " ".join(shlex.quote(str(path)) for path in found)
        fix = f"let the programs' user or group own them, then: chmod o= {files}"
        yield Check("secrets", True, f"everybody on this machine can read {paths}", fix)


def check_clock(services: Services) -> Iterator[Check]:
    """Whether this machine's clock agrees with the database's."""
    from notifier.store.engine import database_now

    theirs = database_now(services.engine)
    yield judge_clock(datetime.now(UTC), theirs)


def judge_clock(ours: datetime, theirs: datetime) -> Check:
    """Whether the clocks agree. Due times depend on the database's clock only. Ours dates logs and mails, and is
    used to check certificates and sign-ins."""
    apart = (ours - theirs).total_seconds()
    if abs(apart) <= CLOCKS_AGREE:
        return Check("clock", True, f"this machine's and the database's agree to {CLOCKS_AGREE} s")
    side = "ahead of" if apart > 0 else "behind"
    said = (
        f"this machine's is {abs(apart):.0f} s {side} the database's: {ours:%Y-%m-%d %H:%M:%S} against "
        f"{theirs:%Y-%m-%d %H:%M:%S} UTC"
    )
    fix = "run NTP on both machines: timedatectl set-ntp true"
    return Check("clock", abs(apart) < CLOCKS_REFUSED, said, fix)
