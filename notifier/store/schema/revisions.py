"""Whether a database has the tables of this version. Without alembic: every program asks when it starts."""

from __future__ import annotations

import re

from sqlalchemy import Engine, text

from notifier.config.settings import bundled
from notifier.store.engine import transaction

_SCRIPT = re.compile(r"(\d{4})_\w+\.py")
_HAS_REVISION = text("SELECT to_regclass('alembic_version') IS NOT NULL")
_REVISION = text("SELECT version_num FROM alembic_version")


def revisions(engine: Engine) -> tuple[str | None, str]:
    """(revision of the database, newest revision of this version); None: it has no tables.

    Raises:
        ServiceUnavailable: if the database cannot be asked now.
    """
    with transaction(engine) as connection:
        has_one = connection.execute(_HAS_REVISION).scalar_one()
        current = connection.execute(_REVISION).scalar_one_or_none() if has_one else None
    return current, _ours()[-1]


def missing_upgrade(engine: Engine) -> str | None:
    """What this version lacks in the database, and the fix; None if its tables are as new as we, or newer.

    Raises:
        ServiceUnavailable: if the database cannot be asked now.
    """
    current, newest = revisions(engine)
    # Later versions only add, so this version works on their tables.
    is_of_later_version = current is not None and current not in _ours()
    if current == newest or is_of_later_version:
        return None
    has = f"is at revision {current}" if current else "has no tables"
    return f"the database {has}, this version needs {newest}: run `notifier db upgrade`"


def _ours() -> list[str]:
    """The revisions of this version, oldest first: a file's name begins with its revision."""
    names = (path.name for path in (bundled("migrations") / "versions").iterdir())
    return sorted(found[1] for name in names if (found := _SCRIPT.fullmatch(name)))
