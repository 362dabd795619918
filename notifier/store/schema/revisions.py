"""Checks whether a database has the tables of this version; every program does at its start. Without alembic."""

from __future__ import annotations

import re

from sqlalchemy import Connection, Engine, text

from notifier.config.settings import bundled
from notifier.store.engine import transaction

_SCRIPT = re.compile(r"(\d{4})_\w+\.py")
_HAS_REVISION = text("SELECT to_regclass('alembic_version') IS NOT NULL")
_REVISION = text("SELECT version_num FROM alembic_version")
#: The last table that was added before the first release.
_HAS_EVERY_TABLE = text("SELECT to_regclass('states') IS NOT NULL")

#: Before the first release these led to the tables that 0001 makes now. No later revision has such a number.
UNRELEASED = frozenset(f"{number:04}" for number in range(2, 19))


def revisions(engine: Engine) -> tuple[str | None, str]:
    """The revision of the database, and the newest revision of this version. None: the database has no tables.

    Raises:
        ServiceUnavailable: the database cannot be used now.
    """
    with transaction(engine) as connection:
        return _current(connection), _ours()[-1]


def missing_upgrade(engine: Engine) -> str | None:
    """What the database lacks, and the fix. None: its tables are of this version, or newer.

    Raises:
        ServiceUnavailable: the database cannot be asked now.
    """
    ours = _ours()
    with transaction(engine) as connection:
        current = _current(connection)
        unreleased = unreleased_tables(connection, current)
    if unreleased is not None:
        return unreleased
    # Later versions only add to the tables, so this version works with them.
    is_of_later_version = current is not None and current not in ours
    if current == ours[-1] or is_of_later_version:
        return None
    has = f"is at revision {current}" if current else "has no tables"
    return f"the database {has}, this version needs {ours[-1]}: run `notifier db upgrade`"


def unreleased_tables(connection: Connection, current: str | None) -> str | None:
    """What to do if the tables are from before the first release. None: they are not."""
    is_unreleased = current in UNRELEASED
    if current == "0001":
        is_unreleased = not connection.execute(_HAS_EVERY_TABLE).scalar_one()
    if not is_unreleased:
        return None
    return (
        f"the database has tables from before the first release (revision {current}), which cannot be upgraded: "
        "use a new, empty database, or delete the data folder of `notifier up`"
    )


def _current(connection: Connection) -> str | None:
    if not connection.execute(_HAS_REVISION).scalar_one():
        return None
    current: str | None = connection.execute(_REVISION).scalar_one_or_none()
    return current


def _ours() -> list[str]:
    """Our revisions, oldest first. A file's name begins with its revision."""
    names = (path.name for path in (bundled("migrations") / "versions").iterdir())
    return sorted(found[1] for name in names if (found := _SCRIPT.fullmatch(name)))
