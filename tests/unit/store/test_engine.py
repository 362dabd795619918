"""What a URL of the database may say."""

from __future__ import annotations

import pytest

from notifier.domain.errors import ConfigurationError
from notifier.store.connection_pool import unfit
from notifier.store.database_url import database_url
from notifier.store.engine import make_engine


@pytest.mark.parametrize(
    ("servers", "hosts", "ports"),
    [
        ("a,b", "a,b", "5432,5432"),
        ("a:5432,b:5433", "a,b", "5432,5433"),
        ("10.0.0.5:5433,b", "10.0.0.5,b", "5433,5432"),
        ("[::1]:5433,[::2]", "::1,::2", "5433,5432"),
        ("%2Frun%2Fa,%2Frun%2Fb", "/run/a,/run/b", "5432,5432"),
        ("%2frun%2fa:5433", "/run/a", "5433"),
    ],
)
def test_a_url_may_name_several_servers_and_sockets_as_libpq_has_it(servers: str, hosts: str, ports: str) -> None:
    url = f"postgresql://app:p%2Cw@{servers}/notifier?target_session_attrs=read-write"
    engine = make_engine(url)
    arguments = engine.dialect.create_connect_args(engine.url)[1]
    assert (arguments["host"], arguments["port"], arguments["dbname"]) == (hosts, ports, "notifier")
    assert (arguments["user"], arguments["password"]) == ("app", "p,w")
    assert arguments["target_session_attrs"] == "read-write"


@pytest.mark.parametrize("servers", ["a:port", "a:1:2,b", "a,b:c", "[::1,b"])
def test_what_is_no_server_is_refused_without_the_password(servers: str) -> None:
    with pytest.raises(ConfigurationError, match="not one of PostgreSQL") as caught:
        database_url(f"postgresql://app:secret@{servers}/notifier")
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("version", "encoding", "problem"),
    [
        (150_000, "UTF8", None),
        (180_006, None, None),
        (140_012, "UTF8", "the server is PostgreSQL 14: 15 or newer is needed"),
        (170_000, "LATIN1", "the database's encoding is LATIN1, which cannot hold every text"),
    ],
)
def test_a_server_that_will_not_do_is_named(version: int, encoding: str | None, problem: str | None) -> None:
    assert (unfit(version, encoding) or "").startswith(problem or "")
    assert (unfit(version, encoding) is None) == (problem is None)
