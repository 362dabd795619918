"""Converts the URL of the database into the form that SQLAlchemy takes."""

from __future__ import annotations

import re

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

from notifier.domain.errors import ConfigurationError

#: libpq's form: postgresql://user:password@a:5432,b:5433/name?…, and a socket's folder as %2Frun%2Fpostgresql.
_SEVERAL_SERVERS = re.compile(
    r"(?P<start>\w+://(?:[^/?]*@)?)(?P<servers>[^/?@]*(?:,|%2[Ff])[^/?@]*)(?P<path>/[^?]*)?(?:\?(?P<query>.*))?"
)
_SERVER = re.compile(r"\[(?P<v6>[^]]*)\](?::(?P<v6_port>\d+))?|(?P<host>[^:]*)(?::(?P<port>\d+))?")


def _with_servers_in_query(url: str) -> str:
    """Move several servers into the query, as SQLAlchemy wants them: postgresql://user:password@/name?host=a,b&…

    Raises ValueError: one of them is not host:port.
    """
    several = _SEVERAL_SERVERS.fullmatch(url)
    if several is None:
        return url
    servers = [_SERVER.fullmatch(server) for server in several["servers"].split(",")]
    if not all(servers):
        raise ValueError("not host:port")
    hosts = ",".join(one["host"] or one["v6"] or "" for one in servers if one)
    ports = ",".join(one["port"] or one["v6_port"] or "5432" for one in servers if one)
    others = f"&{several['query']}" if several["query"] else ""
    return f"{several['start']}{several['path'] or '/'}?host={hosts}&port={ports}{others}"


def database_url(url: str) -> URL:
    """The URL with our driver in it. It may name several servers.

    Raises:
        ConfigurationError: it is not a PostgreSQL URL. The text holds no part of the URL.
    """
    try:
        parsed = make_url(_with_servers_in_query(url))
    except (ArgumentError, ValueError):
        parsed = None
    if parsed is None or parsed.get_backend_name() not in ("postgresql", "postgres"):
        raise ConfigurationError(
            "the database URL is not one of PostgreSQL: write postgresql://user:password@host:5432/name",
            setting="NOTIFIER_DATABASE_URL",
        )
    return parsed.set(drivername="postgresql+psycopg")
