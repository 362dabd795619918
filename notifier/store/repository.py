"""The base of all repositories: an engine, and statements in transactions of their own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, Executable, Select

from notifier.store.engine import database_now, transaction
from notifier.store.rows import from_row

_Record = TypeVar("_Record")
_Values = Mapping[str, Any] | None


class Repository:
    """Thread-safe, because it holds only the engine and keys.

    Every method raises `ServiceUnavailable` if the database cannot be used now.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    def now(self) -> datetime:
        """The present time by the database's clock, which is asked every few seconds."""
        return database_now(self._engine)

    def _rows(self, query: Executable, values: _Values = None, *, is_one_statement: bool = False) -> Sequence[Any]:
        with self._reading(query, is_one_statement) as connection:
            return connection.execute(query, values).all()

    def _records(self, record: type[_Record], query: Executable, values: _Values = None) -> list[_Record]:
        return [from_row(record, row) for row in self._rows(query, values)]

    def _scalar(self, query: Executable, values: _Values = None, *, is_one_statement: bool = False) -> Any:
        """The single value of the single row."""
        with self._reading(query, is_one_statement) as connection:
            return connection.execute(query, values).scalar_one()

    def _reading(self, query: Executable, is_one_statement: bool) -> AbstractContextManager[Connection]:
        # A Select is built from what somebody filters by; a text is always the same statement.
        return transaction(
            self._engine, is_one_statement=is_one_statement, plans_by_values=isinstance(query, Select)
        )

    def _execute(self, statement: Executable, values: _Values = None, *, is_one_statement: bool = False) -> int:
        """Returns the number of rows written."""
        with transaction(self._engine, is_one_statement=is_one_statement) as connection:
            result: Any = connection.execute(statement, values)
            return int(result.rowcount)

    def _execute_in_pages(self, statement: Executable, values: Mapping[str, Any], limit: int) -> int:
        """Execute it in one transaction after another until fewer than `limit` rows are written. Returns the total
        number of rows."""
        total = 0
        while True:
            count = self._execute(statement, {**values, "limit": limit})
            total += count
            if count < limit:
                return total
