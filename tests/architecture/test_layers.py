"""The layers of the house, checked by import-linter; what a producer imports, checked by running it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from importlinter.cli import lint_imports

import notifier

ROOT = Path(__file__).parents[2]

#: Nothing of these may come along when a producer imports notifier.
WORKER_PACKAGES = (
    "celery",
    "sqlalchemy",
    "alembic",
    "psycopg",
    "twilio",
    "aiohttp",
    "aiosmtplib",
    "jinja2",
    "typer",
    "structlog",
    "prometheus_client",
    "email_validator",
)


#: What a producer does, where only what `pip install notifier` brings can be imported.
_PRODUCER = """
import sys
from importlib.metadata import packages_distributions, requires
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

allowed, waiting = set(), ["notifier"]
while waiting:
    name = canonicalize_name(waiting.pop())
    if name not in allowed:
        allowed.add(name)
        wanted = map(Requirement, requires(name) or ())
        waiting += [one.name for one in wanted if one.marker is None or one.marker.evaluate({"extra": ""})]
homes = packages_distributions()

class NotInstalled:
    @staticmethod
    def find_spec(name, path=None, target=None):
        found = homes.get(name.partition(".")[0], ())
        if found and not allowed.intersection(map(canonicalize_name, found)):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled)
from notifier import *
from notifier import Client, ConfigurationError, PublishFailed, RecordingClient

client = RecordingClient(producer="shop")
handle = client.send("hello", "ann@example.com", context={"price": 1.5}, idempotency_key="order-1")
client.send_many([{"to": "+15550100123", "idempotency_key": "order-2"}], channel="sms", template="code")
for url in ("amqp://127.0.0.1:1//", "redis://127.0.0.1:1/0"):
    try:
        Client(url, producer="shop", timeout_seconds=1).send("hello", "ann@example.com")
    except PublishFailed:
        pass
try:
    handle.status()
except ConfigurationError as error:
    assert "[http]" in str(error) or "NOTIFIER_API_URL" in str(error), error
"""


def test_layers_import_downward_only(monkeypatch, capsys) -> None:  # type: ignore[no-untyped-def]
    monkeypatch.chdir(ROOT)
    # Its set-up of logging would disable every logger of this process.
    monkeypatch.setattr("importlinter.cli.logging_config.dictConfig", lambda _config: None)
    broken = lint_imports(config_filename=str(ROOT / "pyproject.toml"), no_cache=True)
    assert broken == 0, capsys.readouterr().out


def test_a_producer_loads_no_worker_package() -> None:
    program = "import sys; from notifier import *; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint(WORKER_PACKAGES)
    assert "kombu" in loaded


def test_the_packages_of_a_producer_are_enough_for_one() -> None:
    done = subprocess.run([sys.executable, "-c", _PRODUCER], capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stderr


def test_no_program_that_runs_loads_what_upgrades_the_tables() -> None:
    """0.2 s of each start, and 7 MB of each process, for what runs once a version."""
    program = "import sys, notifier.bootstrap, notifier.worker.run, notifier.api; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    loaded = {name.partition(".")[0] for name in done.stdout.split()}
    assert loaded.isdisjoint(("alembic", "mako"))
    assert "sqlalchemy" in loaded


def test_a_search_loads_nothing_that_it_does_not_need() -> None:
    """Neither the broker nor metrics, a seventh of its time; nor rich and the tables of others, a fifth."""
    program = "import sys, notifier.cli.operator_services, notifier.store.search; print(*sys.modules, sep='\\n')"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=ROOT)
    modules = done.stdout.split()
    loaded = {name.partition(".")[0] for name in modules}
    assert loaded.isdisjoint(("kombu", "prometheus_client", "jinja2", "celery", "rich"))
    assert "sqlalchemy" in loaded
    tables = {name for name in modules if name.startswith("notifier.store.schema.")}
    assert tables - {f"notifier.store.schema.{name}" for name in ("table_locks", "partitions", "revisions")} == {
        "notifier.store.schema.base",
        "notifier.store.schema.notifications",
    }


def test_the_public_names_are_these() -> None:
    assert notifier.__all__ == sorted(notifier.__all__, key=lambda name: (name.islower(), name))
    assert all(hasattr(notifier, name) for name in notifier.__all__)


def test_every_module_says_what_it_is() -> None:
    for path in (ROOT / "notifier").rglob("*.py"):
        text = path.read_text("utf-8").lstrip()
        assert not text or text.startswith(('"""', 'r"""')), f"{path.relative_to(ROOT)} has no docstring"


def test_no_two_rooms_know_queue_names() -> None:
    """`topology` is the only home of the names of queues."""
    for path in (ROOT / "notifier").rglob("*.py"):
        if path.name != "topology.py":
            text = path.read_text("utf-8")
            assert '"deliver.email' not in text, path
            assert '"notify.email' not in text, path
            assert '"notify.sms' not in text, path
