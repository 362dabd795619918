"""Alembic's entry point. It runs on the connection that `notifier db upgrade` hands over. If a developer calls
`alembic`, it opens one of its own from NOTIFIER_DATABASE_URL."""

from __future__ import annotations

import re
from typing import Any

from alembic import context
from sqlalchemy import Connection, create_engine
from sqlalchemy.pool import NullPool

from notifier.config.settings import load_settings
from notifier.store.database_url import database_url
from notifier.store.schema.all_tables import Base

_PARTITION = re.compile(r"_(y\d{4}m\d{2}|default)$")


def _include(_object: Any, name: str | None, kind: str, reflected: bool, _compare_to: Any) -> bool:
    """Leave out partitions, which come from `store.schema.partitions`, not from the models."""
    return not (kind == "table" and reflected and name and _PARTITION.search(name))


def _run(connection: Connection) -> None:
    context.configure(connection=connection, target_metadata=Base.metadata, include_object=_include)
    with context.begin_transaction():
        context.run_migrations()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    engine = create_engine(database_url(load_settings().require("database_url")), poolclass=NullPool)
    with engine.begin() as own:
        _run(own)
