"""What `notifier doctor` says about connections to PostgreSQL."""

from __future__ import annotations

import re

import pytest

from notifier.cli.connection_checks import judge_commits, judge_connections, judge_database_tls
from notifier.config.settings import Settings
from notifier.store.connection_limits import ConnectionLimits
from notifier.store.server_state import ServerState
from notifier.store.session_encryption import SessionEncryption


@pytest.mark.parametrize(
    ("allowed", "used", "fix"),
    [
        (197, 30, ""),
        (197, 160, "raise it, or put a pooler before PostgreSQL, before you start more programs"),
        (80, 5, "raise it, or lower NOTIFIER_WORKER_THREADS and NOTIFIER_API_THREADS"),
    ],
)
def test_what_one_of_each_program_needs_is_held_against_the_limit(allowed: int, used: int, fix: str) -> None:
    check = judge_connections(Settings(), ConnectionLimits("max_connections", allowed, used))
    said = f"{used} of {allowed} are in use, by max_connections; one of each program holds 89 at most"
    assert (check.detail, check.ok, check.fix) == (said, True, fix)


@pytest.mark.parametrize(
    ("state", "trusts", "ok", "words"),
    [
        (ServerState(True, "on", ""), False, True, "are kept on this server"),
        (ServerState(True, "on", "FIRST 1 (b)"), True, True, "are kept on this server and a standby"),
        (ServerState(True, "on", ""), True, True, "commits wait for no standby"),
        (ServerState(True, "local", "FIRST 1 (b)"), True, True, "commits wait for no standby"),
        (ServerState(True, "remote_write", "FIRST 1 (b)"), True, True, "commits wait for no standby"),
        (ServerState(True, "off", "FIRST 1 (b)"), True, False, "synchronous_commit is off"),
        (ServerState(False, "on", ""), False, False, "takes no writes"),
    ],
)
def test_what_a_commit_is_worth_is_told(state: ServerState, trusts: bool, ok: bool, words: str) -> None:
    (check,) = judge_commits(Settings(trust_failover=trusts), state)
    assert (check.ok, words in check.detail) == (ok, True)
    assert bool(check.fix) is ("kept" not in check.detail)


@pytest.mark.parametrize(
    ("host", "address", "is_encrypted", "sslmode", "words"),
    [
        ("/run/postgresql", "", False, "prefer", "not needed"),
        ("localhost", "::1", False, "prefer", "not needed"),
        ("db.example.com", "127.0.0.1", False, "prefer", "not needed"),
        ("db.example.com", "192.0.2.7", True, "verify-full", "db.example.com has a trusted certificate"),
        ("db.example.com", "fe80::7%eth0", True, "verify-ca", "has a trusted certificate"),
        (
            "db.example.com",
            "192.0.2.7",
            True,
            "require",
            "but nothing proves who answers: .* .sslmode=require",
        ),
        ("db.example.com", "192.0.2.7", True, "prefer", "no certificate is verified"),
        (
            "db.example.com",
            "192.0.2.7",
            False,
            "prefer",
            "is not encrypted: .* .sslmode=prefer",
        ),
    ],
)
def test_a_database_on_another_host_is_to_show_a_trusted_certificate(
    host: str, address: str, is_encrypted: bool, sslmode: str, words: str
) -> None:
    check = judge_database_tls(SessionEncryption(host, address, is_encrypted, sslmode))
    assert re.search(words, check.detail)
    assert check.ok
    assert ("sslmode=verify-full" in check.fix) is ("not needed" not in words and "trusted" not in words)
