"""The whole service through pgbouncer in transaction mode, which is killed and restarted under load.

    python examples/drills/pgbouncer.py

Needs pgbouncer: `apt-get install pgbouncer`. Its settings are those of docs/how-to/run-in-production.md.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import time
from pathlib import Path
from urllib.parse import quote
from urllib.request import urlopen

import psycopg
from service import PROGRAMS, SHORT_LEASE, Counts, running_drill, say, wait

from notifier.dev.machine import free_port, give, launcher, server_account
from notifier.dev.processes import ServerProcess

#: Debian puts it where root alone has its path.
_PATH = "/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin"
LACKS = "needs pgbouncer: `apt-get install pgbouncer`, `brew install pgbouncer`"
_ANSWERS_SECONDS = 20.0
_PORT = 6432
_SETTINGS = """\
[databases]
notifier = host={host} user=notifier
[pgbouncer]
unix_socket_dir = {folder}
listen_port = {port}
auth_type = any
pool_mode = transaction
default_pool_size = 40
max_client_conn = 500
ignore_startup_parameters = options
"""


def is_there() -> bool:
    return shutil.which("pgbouncer", path=_PATH) is not None


def drill() -> Counts:
    if not is_there():
        raise SystemExit(LACKS)
    port = free_port()
    with running_drill(environment={"NOTIFIER_API_PORT": str(port), **SHORT_LEASE}) as drill:
        folder = Path(drill.environment["NOTIFIER_DATA_DIR"])
        pooler = _pgbouncer(folder, drill.database_url)
        drill.record_url = drill.database_url
        drill.environment["NOTIFIER_DATABASE_URL"] = url = _url(folder)
        try:
            _start(pooler, url)
            drill.start(*PROGRAMS, "api")
            wait("the API is ready", lambda: _is_ready(port))
            with drill.load():
                drill.wait_for_more("the first mails arrive")
                seen = [name for name in drill.running if "database.pooled" in drill.log(name)]
                say(f"pgbouncer was noticed by {', '.join(seen)}")
                for how in (signal.SIGKILL, signal.SIGTERM):
                    _end(pooler, how)
                    say(f"pgbouncer got {how.name} with {len(drill.arrived())} mails sent")
                    time.sleep(2)
                    _start(pooler, url)
                    drill.wait_for_more("mails arrive again")
                    wait("the API is ready again", lambda: _is_ready(port))
                drill.command("db", "retention", "--now")
            wait("all mails are sent", lambda: drill.statuses() == {"sent": drill.published})
            drill.stop(*PROGRAMS, "api")
            return drill.count()
        finally:
            pooler.stop()


def _pgbouncer(folder: Path, database_url: str) -> ServerProcess:
    """One before the drill's PostgreSQL, on a socket in a folder of its own."""
    program = shutil.which("pgbouncer", path=_PATH)
    assert program is not None
    home, account = folder / "pgbouncer", server_account()
    give(home, account)
    configuration = home / "pgbouncer.ini"
    server = psycopg.conninfo.conninfo_to_dict(database_url)["host"]
    configuration.write_text(_SETTINGS.format(host=server, folder=home, port=_PORT))
    configuration.chmod(0o644)
    return ServerProcess(
        "pgbouncer",
        [program, configuration],
        log=folder / "pgbouncer.log",
        stop_plan=[(signal.SIGTERM, 5.0)],
        cwd=home,
        launch=launcher(account),
    )


def _url(folder: Path) -> str:
    return f"postgresql://notifier@/notifier?host={quote(str(folder / 'pgbouncer'), safe='')}&port={_PORT}"


def _start(pooler: ServerProcess, url: str) -> None:
    """Return when the database answers through it."""
    pooler.start()
    pooler.wait_until(lambda: _answers(url), _ANSWERS_SECONDS)


def _end(pooler: ServerProcess, how: signal.Signals) -> None:
    assert pooler.pid is not None
    os.kill(pooler.pid, how)
    pooler.stop()


def _answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=5).close()
    except psycopg.OperationalError:
        return False
    return True


def _is_ready(port: int) -> bool:
    try:
        with urlopen(f"http://127.0.0.1:{port}/readyz", timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


if __name__ == "__main__":
    sys.exit(not drill().is_good)
