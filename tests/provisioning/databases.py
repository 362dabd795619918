"""A fresh, migrated database per test: copied from a template that is migrated once."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import Iterator
from typing import Self
from urllib.parse import urlsplit, urlunsplit

import psycopg
from psycopg import sql


class Databases:
    """The databases of one test session on one PostgreSQL server.

    Within `with` one connection makes and drops them all: a new one costs nearly as much as a database.
    """

    def __init__(self, admin_url: str) -> None:
        self._admin_url = admin_url
        # Not shared with other sessions on the same server, which may be at another revision.
        self._prefix = f"notifier_test_{secrets.token_hex(4)}"
        self._template: str | None = None
        self._count = 0
        self._connection: psycopg.Connection | None = None

    def __enter__(self) -> Self:
        self._connection = self._connect()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
        if self._connection:
            self._connection.close()
            self._connection = None

    def make(self) -> str:
        """URL of a new database at the newest revision."""
        if self._template is None:
            self._template = self._make_template()
        self._count += 1
        name = f"{self._prefix}_{self._count}"
        # Copies files instead of writing every page to the log as well, which is twice as fast.
        self._execute("CREATE DATABASE {} TEMPLATE {} STRATEGY FILE_COPY", name, self._template)
        return with_database(self._admin_url, name)

    def drop(self, url: str) -> None:
        """Drop it, whoever is still connected."""
        self._execute("DROP DATABASE IF EXISTS {} WITH (FORCE)", database_of(url))

    def close(self) -> None:
        """Drop the template; the server may be somebody else's."""
        if self._template:
            self.drop(with_database(self._admin_url, self._template))
            self._template = None

    def make_empty(self) -> str:
        """URL of a new database without any table, for tests of the migrations."""
        self._count += 1
        name = f"{self._prefix}_{self._count}_empty"
        self._execute("CREATE DATABASE {}", name)
        return with_database(self._admin_url, name)

    def copy(self, url: str) -> str:
        """URL of a copy of this database, which nobody is connected to meanwhile."""
        self._count += 1
        name = f"{self._prefix}_{self._count}_copy"
        with self._connected() as connection:
            connection.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
                [database_of(url)],
            )
        self._execute("CREATE DATABASE {} TEMPLATE {}", name, database_of(url))
        return with_database(self._admin_url, name)

    def _make_template(self) -> str:
        # Here, because conftest is also for tests that need no database and should not wait for these packages.
        from notifier.store.schema.upgrade import upgrade

        name = f"{self._prefix}_template"
        self._execute("CREATE DATABASE {}", name)
        upgrade(with_database(self._admin_url, name))
        # Every copy of it is another database: none of them is to be taken for a restored one.
        with psycopg.connect(_plain(with_database(self._admin_url, name)), autocommit=True) as connection:
            connection.execute(
                "UPDATE database_identity SET system_identifier = NULL, timeline = NULL, database_oid = NULL, "
                "table_oid = NULL"
            )
        return name

    @contextlib.contextmanager
    def _connected(self) -> Iterator[psycopg.Connection]:
        if self._connection:
            yield self._connection
        else:
            with self._connect() as connection:
                yield connection

    def _connect(self) -> psycopg.Connection:
        return psycopg.connect(_plain(self._admin_url), autocommit=True)

    def _execute(self, statement: str, *names: str) -> None:
        with self._connected() as connection:
            connection.execute(sql.SQL(statement).format(*map(sql.Identifier, names)))


def with_database(url: str, name: str) -> str:
    """The same server, another database."""
    # By hand: urlunsplit drops the empty host of a URL whose host is a Unix socket in the query.
    parts = urlsplit(url)
    rest = urlunsplit(("", "", "", parts.query, ""))
    return f"{parts.scheme}://{parts.netloc}/{name}{rest}"


def database_of(url: str) -> str:
    """The name of the database in a URL."""
    return urlsplit(url).path.removeprefix("/")


def _plain(url: str) -> str:
    """psycopg itself does not know SQLAlchemy's `postgresql+driver`."""
    scheme, rest = url.split("://", 1)
    return f"{scheme.split('+')[0]}://{rest}"
