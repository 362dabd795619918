"""Puts notifications into a state that they would otherwise reach only through many statements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import UUID

from sqlalchemy import Connection, Table, text, update

from notifier.store.schema.notifications import State, StoredMessage


def set_columns(connection: Connection, ids: Sequence[UUID], **columns: Any) -> None:
    """Set columns of `messages` or `states`. A text "sql: …" is an expression."""
    tables: tuple[Any, ...] = (StoredMessage.__table__, State.__table__)
    for table in tables:
        _set(connection, table, ids, {name: value for name, value in columns.items() if name in table.c})
    unknown = [name for name in columns if not any(name in table.c for table in tables)]
    assert not unknown, unknown


def _set(connection: Connection, table: Table, ids: Sequence[UUID], columns: dict[str, Any]) -> None:
    values = {
        name: text(value.removeprefix("sql:")) if isinstance(value, str) and value.startswith("sql:") else value
        for name, value in columns.items()
    }
    if values:
        connection.execute(update(table).where(table.c.id.in_(ids)).values(values))
