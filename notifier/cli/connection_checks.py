"""Checks of `notifier doctor` on PostgreSQL itself: sessions, TLS, connections, rights, commits."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from notifier.cli.check_result import Check
from notifier.config.database_pools import most_connections

if TYPE_CHECKING:
    from notifier.bootstrap import Services
    from notifier.config.settings import Settings
    from notifier.store.connection_limits import ConnectionLimits
    from notifier.store.schema.rights import MissingRights
    from notifier.store.server_state import ServerState
    from notifier.store.session_encryption import SessionEncryption

#: If at least this share of connections is in use, the next program may find none.
NEARLY_ALL = 0.8


def check_all_sessions(services: Services) -> Iterator[Check]:
    """Whether sessions have the settings that programs ask for; otherwise, how programs work behind a pooler
    without them."""
    from notifier.store.engine import check_sessions, who_and_where
    from notifier.store.session_options import role_statements

    session = check_sessions(services.engine)
    if session is None or not session.wrong:
        yield Check(
            "sessions", True, "have the options that programs ask for" if session is None else session.in_words
        )
        return
    fix = f"for fewer round trips, run once: {' '.join(role_statements(*who_and_where(services.engine)))}"
    yield Check("sessions", True, session.in_words, f"{fix} then have the pooler reconnect")


def check_database_tls(services: Services) -> Iterator[Check]:
    from notifier.store.session_encryption import session_encryption

    yield judge_database_tls(session_encryption(services.engine))


def judge_database_tls(session: SessionEncryption) -> Check:
    name = "database TLS"
    if session.is_on_this_machine:
        return Check(name, True, "is not needed: the database is on this machine")
    if session.is_verified:
        return Check(name, True, f"{session.host} has a trusted certificate (sslmode={session.sslmode})")
    if session.is_encrypted:
        problem = "is encrypted, but nothing proves who answers: no certificate is verified"
    else:
        problem = "is not encrypted: others can read and change people's data on the way"
    fix = (
        "add sslmode=verify-full&sslrootcert=/etc/ssl/certs/ca-certificates.crt to the parameters of "
        "NOTIFIER_DATABASE_URL, or the file of your own authority"
    )
    return Check(name, True, f"the session with {session.host} {problem} (sslmode={session.sslmode})", fix)


def check_connections(services: Services) -> Iterator[Check]:
    from notifier.store.connection_limits import connection_limits

    yield judge_connections(services.settings, connection_limits(services.engine))


def judge_connections(settings: Settings, limits: ConnectionLimits) -> Check:
    most = sum(most_connections(settings).values())
    said = (
        f"{limits.used} of {limits.allowed} are in use, by {limits.name}; one of each program holds {most} at most"
    )
    fix = ""
    if most > limits.allowed:
        fix = "raise it, or lower NOTIFIER_WORKER_THREADS and NOTIFIER_API_THREADS"
    elif limits.used >= NEARLY_ALL * limits.allowed:
        fix = "raise it, or put a pooler before PostgreSQL, before you start more programs"
    return Check("connections", True, said, fix)


def judge_rights(missing: MissingRights) -> Check:
    """Whether the programs' role has the rights that it needs on each table."""
    if not missing.grants:
        return Check("rights", True, f"{missing.role} has what the programs need")
    more = f" and {len(missing.tables) - 3} more" if len(missing.tables) > 3 else ""
    said = f"{missing.role} lacks rights on {', '.join(missing.tables[:3])}{more}: what uses them fails"
    return Check("rights", False, said, f"as the owner of the tables: {' '.join(missing.grants)}")


def check_commits(services: Services) -> Iterator[Check]:
    from notifier.store.server_state import server_state

    yield from judge_commits(services.settings, server_state(services.engine))


def judge_commits(settings: Settings, state: ServerState) -> Iterator[Check]:
    """Whether the server accepts writes, and keeps what it confirms."""
    if not state.takes_writes:
        said = "the server takes no writes: it is a standby, or default_transaction_read_only is on"
        fix = "let NOTIFIER_DATABASE_URL lead to the primary: postgresql://…@a,b/notifier?target_session_attrs=read-write"
        yield Check("commits", False, said, fix)
    elif not state.is_durable:
        said = "synchronous_commit is off: a crash loses confirmed writes, and sends messages again"
        yield Check("commits", False, said, "turn it on, for this role or for the server")
    elif settings.trust_failover and not state.waits_for_standby:
        said = "NOTIFIER_TRUST_FAILOVER is true, but commits wait for no standby"
        fix = (
            "set synchronous_standby_names and synchronous_commit = on, or unset it; right only where the storage "
            "itself is replicated before a commit ends"
        )
        yield Check("commits", True, said, fix)
    else:
        where = "on this server and a standby" if state.waits_for_standby else "on this server"
        yield Check("commits", True, f"are kept {where}")
