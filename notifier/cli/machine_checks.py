"""What `notifier doctor` checks about the machine that it runs on: who may read the secrets, and its clock."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from notifier.cli.check_result import Check
from notifier.config.secret_files import open_secrets

if TYPE_CHECKING:
    from notifier.bootstrap import Services

#: Clocks may differ by this much; it takes a slow answer of the database, too. Seconds.
CLOCKS_AGREE = 5
#: From here on, others refuse us: an identity provider's sign-ins are judged with as much grace. Seconds.
CLOCKS_REFUSED = 60


def check_secrets() -> Iterator[Check]:
    """Whether somebody else on this machine can read the files of secrets."""
    found = open_secrets()
    if found:
        paths = ", ".join(map(str, found))
        files = " ".join(shlex.quote(str(path)) for path in found)
        fix = f"let the programs' user or group own them, then: chmod o= {files}"
        yield Check("secrets", True, f"everybody on this machine can read {paths}", fix)


def check_clock(services: Services) -> Iterator[Check]:
    """Whether this machine's clock is the database's."""
    from notifier.store.engine import database_now

    theirs = database_now(services.engine)
    yield judge_clock(datetime.now(UTC), theirs)


def judge_clock(ours: datetime, theirs: datetime) -> Check:
    """What is due goes by the database's clock alone. Ours dates logs and mails, and judges certificates and
    sign-ins."""
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
