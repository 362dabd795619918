"""`make package`: the wheel in fresh environments, as an operator and a producer install it.

Every program runs from an environment that holds requirements/production.txt and the wheel, and nothing of the
checkout, on RabbitMQ and on a Redis-protocol broker; a mail goes through each. A second environment holds what
the wheel without extras brings, and publishes to both. So a dependency that only the tools of this checkout bring,
and a file that is not in the wheel, are found here.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from notifier.dev.machine import free_port
from notifier.dev.smtp_server import running_mail_server
from tests.provisioning.commands import run_in_order
from tests.provisioning.databases import Databases
from tests.provisioning.services import Services
from tests.waiting import patient, wait_until

ROOT = Path(__file__).parents[2]
#: A program has to start, and to stop, within this. Seconds.
PATIENCE = 60.0

_PUBLISH = """
import sys
from notifier import Client
with Client(sys.argv[1], producer="shop", timeout_seconds=20) as client:
    context = {"customer_name": "Ann", "order_id": "1", "carrier": "PX", "items": []}
    context["tracking_url"] = "https://t.example.com/1"
    handle = client.send("order_shipped", to="ann@example.com", context=context, idempotency_key="package")
print(handle.id)
"""


def main() -> int:
    """Run it all; 0 if everything worked."""
    return run_in_order(_check_wheel)


def _check_wheel() -> int:
    with tempfile.TemporaryDirectory(prefix="notifier-package-") as name:
        folder = Path(name)
        services = Services(say)
        services.prepare(["postgres", "rabbitmq", "redis"])
        try:
            wheel = build(folder)
            service = install(folder / "service", ["--require-hashes", "--no-deps", "-r", production()], wheel)
            producer = install(folder / "producer", [], wheel)
            databases = Databases(services.postgres_url())
            brokers = {
                "RabbitMQ": services.amqp_server().make_vhost(),
                "Redis": services.redis_server().make_database(),
            }
            for kind, url in brokers.items():
                check(kind, service, producer, databases.make_empty(), url, folder)
        finally:
            services.stop()
    say("the wheel works: every program, on both brokers")
    return 0


def say(text: str) -> None:
    """One line of progress."""
    print(f"package: {text}", flush=True)


def production() -> str:
    """The lock file of the image."""
    return str(ROOT / "requirements" / "production.txt")


def build(folder: Path) -> Path:
    """The wheel of this checkout."""
    say("building the wheel")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder], cwd=ROOT)
    [wheel] = folder.glob("*.whl")
    return wheel


def install(folder: Path, arguments: list[str], wheel: Path) -> Path:
    """The Python of a new environment with the wheel; without `arguments`, with what the wheel itself asks for."""
    say(f"installing it into a fresh environment: {folder.name}")
    run(["sh", ROOT / "requirements" / "make-venv.sh", folder])
    python = folder / "bin" / "python"
    pip: list[str | Path] = [python, "-m", "pip", "--disable-pip-version-check", "-qq"]
    if arguments:
        run([*pip, "install", *arguments])
    run([*pip, "install", *(["--no-deps", "--no-index"] if arguments else []), wheel])
    run([*pip, "check"])
    return python


def check(kind: str, service: Path, producer: Path, database_url: str, broker_url: str, folder: Path) -> None:
    """Every program on one broker, and one mail through it."""
    home = folder / kind
    home.mkdir()
    with running_mail_server() as mail:
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(home),
            "NOTIFIER_DATA_DIR": str(home),
            "NOTIFIER_DATABASE_URL": database_url,
            "NOTIFIER_BROKER_URL": broker_url,
            "NOTIFIER_SMTP_URL": f"smtp://127.0.0.1:{mail.port}?starttls=never",
            "NOTIFIER_EMAIL_FROM": "shop@example.com",
            "NOTIFIER_HASH_KEY": "a key of sixteen or more",
            "NOTIFIER_BOUNCE_ADDRESS": "bounces@example.com",
            "NOTIFIER_API_PORT": str(free_port()),
        }
        notifier: list[str | Path] = [service, "-m", "notifier"]
        run([*notifier, "db", "upgrade"], cwd=home, env=environment)
        with programs(service, environment, home) as running:
            id_ = run([producer, "-c", _PUBLISH, broker_url], cwd=home, env={"PATH": environment["PATH"]})

            def is_sent() -> bool:
                found = json.loads(run([*notifier, "search", "--json"], cwd=home, env=environment))
                return [(one["id"], one["status"]) for one in found] == [(id_.strip(), "sent")]

            def is_ready() -> bool:
                for name, process in running.items():
                    assert process.poll() is None, f"{name} ended by itself:\n{log_of(home, name)}"
                return answers_ready(f"http://127.0.0.1:{environment['NOTIFIER_API_PORT']}")

            wait_until(is_sent, PATIENCE, every=0.5)
            assert len(mail.messages) == 1
            wait_until(is_ready, PATIENCE, every=0.1)
        for name in running:
            text = log_of(home, name)
            assert "Traceback" not in text, f"{name}:\n{text}"
    say(f"{kind}: {', '.join(running)}: each started, a mail went through, each stopped")


def answers_ready(url: str) -> bool:
    """Whether the API there takes requests; it may still be starting when the others have sent a mail."""
    try:
        with urllib.request.urlopen(f"{url}/readyz", timeout=patient(10)) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@contextmanager
def programs(
    python: Path, environment: Mapping[str, str], home: Path
) -> Iterator[dict[str, subprocess.Popen[bytes]]]:
    """Every program of the service, started, and stopped with SIGTERM."""
    notifier = [str(python), "-m", "notifier"]
    commands = {
        "intake": [*notifier, "intake"],
        "worker": [*notifier, "worker"],
        "beat": [*notifier, "beat"],
        "api": [*notifier, "api"],
        "bounces": [*notifier, "bounces", "--listen", f"127.0.0.1:{free_port()}"],
        "flower": [
            *(str(python), "-m", "celery", "--app", "notifier.worker.app", "flower"),
            *("--address=127.0.0.1", f"--port={free_port()}"),
        ],
    }
    running: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, command in commands.items():
            with (home / f"{name}.log").open("wb") as log:
                running[name] = subprocess.Popen(
                    command, cwd=home, env=dict(environment), stdin=subprocess.DEVNULL, stdout=log, stderr=log
                )
        try:
            yield running
        except BaseException:
            for name in running:
                print(f"--- {name}:\n{log_of(home, name)}", file=sys.stderr)
            raise
        for process in running.values():
            process.send_signal(signal.SIGTERM)
        for name, process in running.items():
            code = process.wait(patient(PATIENCE))
            assert code in (0, -signal.SIGTERM), f"{name} ended with {code}:\n{log_of(home, name)}"
    finally:
        for process in running.values():
            process.kill()
            process.wait()


def log_of(home: Path, name: str) -> str:
    """What a program said."""
    return (home / f"{name}.log").read_text("utf-8", errors="replace")[-4000:]


def run(command: list[str | Path], cwd: Path | None = None, env: Mapping[str, str] | None = None) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        env=None if env is None else dict(env),
        capture_output=True,
        text=True,
        check=False,
        timeout=patient(600),
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout


if __name__ == "__main__":
    sys.exit(main())
