"""The identity of the database, which a restored backup, a failover or another server changes.

A backup carries the identity of the database that it was made from. Where it is restored, something differs.
`pg_restore` makes new tables, with new oids. Another cluster has another identifier. Recovery to a point in time,
and a standby that takes over, begin a new timeline. A copy of the files of a stopped server, or a snapshot of its
disk, changes nothing and is not noticed. Nor is a primary from before a failover that starts again; but a program
that has worked on its successor remembers a later timeline.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from datetime import datetime
from functools import cached_property
from typing import Any

import psycopg
from psycopg import errors
from sqlalchemy import Connection, TextClause, text

from notifier.domain.errors import ServiceUnavailable


@dataclass(frozen=True, slots=True)
class Identity:
    """What identifies a database. None: not known, and not compared."""

    #: Identifier of the cluster, given by initdb. None: our role may not call `pg_control_system()`.
    system_identifier: int | None
    #: Timeline of its log. Each recovery and each failover begins a new one.
    timeline: int | None
    database_oid: int | None
    #: The oid of the table `messages`.
    table_oid: int | None


@dataclass(slots=True)
class SeenTimeline:
    """The latest timeline that one engine has worked on. It belongs to the time when the stored identity was
    noted: accepting another database stores the identity anew, and the timeline begins from there."""

    _latest: dict[datetime, int] = field(default_factory=dict)

    def latest(self, noted_at: datetime | None) -> int | None:
        return None if noted_at is None else self._latest.get(noted_at)

    def note(self, noted_at: datetime | None, timeline: int | None) -> None:
        if noted_at is not None and timeline is not None:
            # One assignment, so that threads need no lock. If two assign at once, the lost one is noted again.
            self._latest = {noted_at: max(timeline, self._latest.get(noted_at, 0))}


@dataclass(frozen=True)
class IdentityCheck:
    #: None: no identity is stored.
    stored: Identity | None
    current: Identity
    trusts_failover: bool = False
    #: The latest timeline that this program has worked on. None: not known.
    seen_timeline: int | None = None

    @cached_property
    def differences(self) -> tuple[str, ...]:
        if self.stored is None:
            return ("no identity is stored",)
        stored, current = asdict(self.stored), asdict(self.current)
        if self.trusts_failover:
            stored["timeline"] = None
        found = [
            f"{_NAMES[name]} was {stored[name]} and is {current[name]}"
            for name in _NAMES
            if None not in (stored[name], current[name]) and stored[name] != current[name]
        ]
        if self.is_from_before:
            timelines = f"the timeline was {self.seen_timeline} and is {self.current.timeline}"
            found.append(f"{timelines}, as of a primary from before a failover, which must be off")
        return tuple(found)

    @property
    def is_from_before(self) -> bool:
        """Whether this program has seen a later timeline, so that another server has taken over from this one."""
        timeline = self.current.timeline
        return None not in (timeline, self.seen_timeline) and timeline < self.seen_timeline  # type: ignore[operator]

    @property
    def is_another(self) -> bool:
        return bool(self.differences)

    @property
    def in_words(self) -> str:
        if self.stored is None:
            return "the database does not say which one it is: run `notifier db upgrade`"
        return (
            f"the database is not the one this was ({'; '.join(self.differences)}), so a restored backup may hold "
            "what was sent long ago: run `notifier db after-restore`"
        )


_NAMES = {
    "system_identifier": "the cluster's identifier",
    "timeline": "the timeline",
    "database_oid": "the oid of the database",
    "table_oid": "the oid of its table messages",
}

_OIDS = (
    "(SELECT oid::bigint FROM pg_database WHERE datname = current_database()), "
    "to_regclass('messages')::oid::bigint"
)
# The timeline of the log, not of the last checkpoint, which comes minutes after a failover. A standby has no
# timeline of its own, and nothing can be written there.
_CONTROL = (
    "(SELECT system_identifier FROM pg_control_system()), CASE WHEN NOT pg_is_in_recovery() THEN "
    "('x' || substr(pg_walfile_name(pg_current_wal_lsn()), 1, 8))::bit(32)::bigint END"
)
_STORED = ", ".join(f"i.{field.name}" for field in fields(Identity))
_FROM = "FROM (VALUES (1)) AS one LEFT JOIN database_identity AS i ON true"
_WITH_CONTROL = f"SELECT i.noted_at, {_STORED}, {_CONTROL}, {_OIDS} {_FROM}"
_WITHOUT_CONTROL = f"SELECT i.noted_at, {_STORED}, NULL::bigint, NULL::bigint, {_OIDS} {_FROM}"

#: Raised if a managed database lacks these functions or forbids them.
_NOT_ALLOWED = (errors.InsufficientPrivilege, errors.FeatureNotSupported, errors.UndefinedFunction)


def judge(
    connection: psycopg.Connection[Any],
    *,
    with_control: bool = True,
    trusts_failover: bool = False,
    seen: SeenTimeline | None = None,
) -> IdentityCheck | None:
    """Compare the stored identity with the present one and with what was seen. None: the table for it is missing;
    an upgrade makes it.

    The connection is in autocommit, so a statement that fails leaves nothing behind. Without `with_control` only
    oids are compared.

    Raises:
        ServiceUnavailable: our role may not read the table.
    """
    try:
        row = _read(connection, with_control)
    except errors.UndefinedTable:
        return None
    except errors.InsufficientPrivilege as error:
        raise ServiceUnavailable(
            "the user of the database may not read database_identity: grant SELECT, INSERT and UPDATE on it"
        ) from error
    noted_at, *rest = row
    half = len(fields(Identity))
    stored = None if noted_at is None else Identity(*rest[:half])
    seen = seen or SeenTimeline()
    check = IdentityCheck(stored, Identity(*rest[half:]), trusts_failover, seen.latest(noted_at))
    if not check.is_another:
        seen.note(noted_at, check.current.timeline)
    return check


def _read(connection: psycopg.Connection[Any], with_control: bool) -> Any:
    if with_control:
        try:
            return connection.execute(_WITH_CONTROL, prepare=False).fetchone()
        except _NOT_ALLOWED:
            pass
    return connection.execute(_WITHOUT_CONTROL, prepare=False).fetchone()


_STORE = """
INSERT INTO database_identity AS i (id, system_identifier, timeline, database_oid, table_oid)
VALUES (1, :system_identifier, :timeline, :database_oid, :table_oid)
ON CONFLICT (id) DO """
_STORE_FIRST: TextClause = text(f"{_STORE} NOTHING")
_STORE_NEW: TextClause = text(
    f"{_STORE} UPDATE SET system_identifier = excluded.system_identifier, timeline = excluded.timeline, "
    "database_oid = excluded.database_oid, table_oid = excluded.table_oid, noted_at = now()"
)


def store_first(connection: Connection, current: Identity) -> None:
    """Store the identity, unless one is stored."""
    connection.execute(_STORE_FIRST, asdict(current))


def store_new(connection: Connection, current: Identity) -> None:
    connection.execute(_STORE_NEW, asdict(current))
