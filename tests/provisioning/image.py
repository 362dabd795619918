"""`make image-test`: the image and docker-compose.yml, as production runs them. For root on Debian, with podman.

Every program runs as a user without a name, on a read-only root, without capabilities. Its health check has
to say that it works, that it hangs once it is stopped, and that it works again; SIGTERM has to end it in order. A
mail goes through. Then the programs of the compose file run under podman-compose, with the servers of this machine
instead of the images of PostgreSQL and RabbitMQ. Where no registry of images can be reached, a stand-in for the
official image of Python is made of Debian's packages; it is kept in .venv.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit
from urllib.request import urlopen

import yaml

from notifier.dev.machine import free_port
from notifier.dev.smtp_server import MailServer, running_mail_server
from tests.provisioning.commands import run_in_order
from tests.provisioning.databases import Databases
from tests.provisioning.services import Services
from tests.waiting import wait_until

ROOT = Path(__file__).parents[2]
IMAGE = "localhost/notifier:local"
NEEDED = ("podman", "buildah", "runc", "debootstrap")
COMPOSE = "podman-compose==1.6.0"
#: A user that the image does not know, in root's group, as OpenShift has it.
ANYBODY = "1000650000:0"
#: The largest image, in bytes.
MOST_BYTES = 215_000_000
#: A program has to start, and to stop, within this. Seconds.
PATIENCE = 90.0
CONFINED = ("--read-only", "--tmpfs=/tmp", "--cap-drop=all", "--security-opt=no-new-privileges")
#: Limits are named, because a container has no right to raise them to those that podman asks for.
LIMITS = ("--ulimit=nofile=4096:4096", "--ulimit=nproc=4096:4096", "--network=host", "--health-interval=disable")

PROGRAMS: Mapping[str, Sequence[str]] = {
    "intake": ["intake"],
    "worker": ["worker", "--no-callbacks"],
    "callbacks": ["callbacks", "run"],
    "beat": ["beat"],
    "bounces": ["bounces", "--listen", "127.0.0.1:{port}"],
    "api": ["api"],
}


def main() -> int:
    """Run it all; 0 if everything worked."""
    return run_in_order(_check_image)


def say(text: str) -> None:
    """One line of progress."""
    print(f"image-test: {text}", flush=True)


def run(command: Sequence[object], *, seconds: float = 900, env: Mapping[str, str] | None = None) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=ROOT,
        env=None if env is None else dict(env),
        capture_output=True,
        text=True,
        check=False,
        timeout=seconds,
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))} failed:\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    return done.stdout.strip()


@dataclass(frozen=True)
class Podman:
    """podman with images and containers of its own, in a folder that is removed at the end."""

    folder: Path

    @property
    def command(self) -> list[str]:
        places = [f"--root={self.folder}/store", f"--runroot={self.folder}/run", "--storage-driver=overlay"]
        # Neither systemd nor crun is needed.
        return ["podman", *places, "--cgroup-manager=cgroupfs", "--events-backend=file", "--runtime=runc"]

    def __call__(self, *arguments: object, seconds: float = 900) -> str:
        return run([*self.command, *arguments], seconds=seconds)

    def fails(self, *arguments: object) -> str | None:
        """What it says if it fails; None: it succeeds."""
        command = [*self.command, *map(str, arguments)]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        return (done.stdout + done.stderr).strip() or "no reason given" if done.returncode else None

    def wrapper(self) -> Path:
        """A program that is this podman, for podman-compose."""
        path = self.folder / "podman"
        path.write_text(f'#!/bin/sh\nexec {" ".join(self.command)} "$@"\n')
        path.chmod(0o755)
        return path


@contextmanager
def podman() -> Iterator[Podman]:
    """Its own store, removed with everything in it."""
    missing = [name for name in NEEDED if shutil.which(name) is None]
    if missing or os.geteuid():
        raise SystemExit(f"image-test needs root and, on Debian: apt-get install {' '.join(NEEDED)}")
    folder = Path(tempfile.mkdtemp(prefix="notifier-image-", dir="/var/tmp"))
    own = Podman(folder)
    try:
        yield own
    finally:
        own.fails("rm", "--all", "--force", "--time=0")
        own.fails("system", "reset", "--force")
        subprocess.run(["umount", folder / "store" / "overlay"], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def build(own: Podman) -> None:
    """The image, on the official Python or on a stand-in."""
    begun = time.monotonic()
    options = ["--isolation=chroot", "--network=host", "--format=docker", "--quiet", "--tag", IMAGE]
    base = next(line.partition("=")[2] for line in _dockerfile() if line.startswith("ARG PYTHON_IMAGE="))
    try:
        reason = own.fails("pull", "--quiet", base)
    except subprocess.TimeoutExpired:
        reason = "no answer"
    if reason is not None:
        base = "localhost/python:stand-in"
        say("no registry of images can be reached: Python's official image has a stand-in of Debian's packages")
        own("import", "--change=ENV PATH=/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", _stand_in(), base)
    own("build", *options, "--pull=never", f"--build-arg=PYTHON_IMAGE={base}", ".")
    [found] = json.loads(own("image", "inspect", IMAGE))
    size = found["Size"]
    assert size <= MOST_BYTES, f"{size} bytes are more than {MOST_BYTES}"
    assert found["Config"]["User"] == "10001:10001"
    assert found["Healthcheck"]["Test"] == ["CMD", "notifier", "health"]
    say(f"built on {base} in {time.monotonic() - begun:.0f} s: {size / 1e6:.0f} MB")


def _dockerfile() -> list[str]:
    return (ROOT / "Dockerfile").read_text("utf-8").splitlines()


def _stand_in() -> Path:
    """An archive for `podman import`, made once for each Python."""
    homes = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")).glob("versions/3.12.*")
    python = max(homes, default=Path(sys.base_prefix))
    kept = ROOT / ".venv" / f"image-base-{python.name}.tar"
    if not kept.exists():
        say(f"making it with the Python of {python.name}, once: three minutes")
        begun = kept.with_suffix(".begun")
        run(["sh", ROOT / "tests" / "provisioning" / "image_base.sh", begun, python])
        begun.rename(kept)
    return kept


class SocketFolder:
    """A database of this machine, for containers: where it listens in a folder only, that is mounted into them."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.volumes: list[str] = []
        folder = Path(dict(parse_qsl(urlsplit(url).query)).get("host", ""))
        if folder.is_absolute():
            for path in (folder, *folder.glob(".s.PGSQL.*")):
                path.chmod(0o777)
            self.volumes.append(f"{folder}:/run/database")
            self.url = f"{url.partition('?')[0]}?host=/run/database"

    @property
    def options(self) -> list[str]:
        """For `podman run`."""
        return [f"--volume={volume}" for volume in self.volumes]


class Container:
    """A program that runs detached."""

    def __init__(self, own: Podman, name: str, environment: Mapping[str, str], sockets: SocketFolder) -> None:
        self.name, self._podman = name, own
        arguments = [part.format(port=free_port()) for part in PROGRAMS[name]]
        self.ports = {"NOTIFIER_METRICS_PORT": str(free_port()), "NOTIFIER_API_PORT": str(free_port())}
        given = [f"--env={key}={value}" for key, value in {**environment, **self.ports}.items()]
        options = ["--detach", f"--user={ANYBODY}", "--pull=never", *CONFINED, *LIMITS, *sockets.options, *given]
        self.id = own("run", *options, IMAGE, *arguments).splitlines()[-1]

    def unhealthy(self) -> str | None:
        """What its health check says; None: it is healthy."""
        return self._podman.fails("healthcheck", "run", self.id)

    def is_healthy(self) -> bool:
        """Its health check says so; not yet, or not in time on a busy machine. Fails once it has ended."""
        is_running = self._podman("inspect", "--format={{.State.Running}}", self.id) == "true"
        assert is_running, f"{self.name} ended:\n{self.log()}"
        return self.unhealthy() is None

    def check(self) -> str:
        """Healthy; not while it is stopped; healthy again; ended by SIGTERM. Returns what it took."""
        begun = time.monotonic()
        wait_until(self.is_healthy, PATIENCE, every=1)
        started = time.monotonic() - begun
        self._podman("kill", "--signal=STOP", self.id)
        assert self.unhealthy() is not None, f"{self.name} hangs, and its health check does not say so"
        self._podman("kill", "--signal=CONT", self.id)
        wait_until(self.is_healthy, PATIENCE, every=1)
        return f"{self.name}: healthy after {started:.0f} s, unhealthy while it hung"

    def stop(self) -> str:
        """Ended by SIGTERM, in order."""
        begun = time.monotonic()
        self._podman("stop", "--time=60", self.id)
        code = self._podman("inspect", "--format={{.State.ExitCode}}", self.id)
        assert code == "0", f"{self.name} ended with {code}:\n{self.log()}"
        assert "Traceback" not in self.log(), self.log()
        return f"{self.name} {time.monotonic() - begun:.1f} s"

    def log(self) -> str:
        """What it said, the end of it."""
        command = [*self._podman.command, "logs", self.id]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        return (done.stdout + done.stderr)[-4000:]


def check_programs(own: Podman, environment: Mapping[str, str], sockets: SocketFolder, mail: MailServer) -> None:
    """Every program, each confined."""
    given = [f"--env={key}={value}" for key, value in environment.items()]
    command = ["run", "--rm", f"--user={ANYBODY}", *CONFINED, *LIMITS, *sockets.options, *given, IMAGE]
    say(own(*command, "--version").splitlines()[-1])
    own(*command, "db", "upgrade")
    containers = [Container(own, name, environment, sockets) for name in PROGRAMS]
    with ThreadPoolExecutor(2) as pool:
        for line in pool.map(Container.check, containers):
            say(line)
        [api] = [container for container in containers if container.name == "api"]
        with urlopen(f"http://127.0.0.1:{api.ports['NOTIFIER_API_PORT']}/readyz", timeout=PATIENCE) as answer:
            assert answer.status == 200
        own(*command, "send", "order_shipped", "ann@example.com", "--context", json.dumps(_CONTEXT))
        wait_until(lambda: len(mail.messages) == 1, PATIENCE)
        say("a mail went through")
        say(f"SIGTERM ended each in order: {', '.join(pool.map(Container.stop, containers))}")


_CONTEXT = {"customer_name": "Ann", "order_id": "1", "carrier": "PX", "items": []}
_CONTEXT["tracking_url"] = "https://t.example.com/1"


def _check_image() -> int:
    begun = time.monotonic()
    services = Services(say)
    services.prepare(["postgres", "rabbitmq"])
    try:
        with podman() as own, running_mail_server() as mail:
            build(own)
            sockets = SocketFolder(Databases(services.postgres_url()).make_empty())
            environment = {
                "NOTIFIER_DATABASE_URL": sockets.url,
                "NOTIFIER_BROKER_URL": services.amqp_server().make_vhost(),
                "NOTIFIER_SMTP_URL": f"smtp://127.0.0.1:{mail.port}?starttls=never",
                "NOTIFIER_EMAIL_FROM": "shop@example.com",
                "NOTIFIER_HASH_KEY": "a key of sixteen or more",
                "NOTIFIER_BOUNCE_ADDRESS": "bounces@example.com",
            }
            check_programs(own, environment, sockets, mail)
            check_compose(own, environment, sockets)
    finally:
        services.stop()
    say(f"all of it works, in {time.monotonic() - begun:.0f} s")
    return 0


def check_compose(own: Podman, environment: Mapping[str, str], sockets: SocketFolder) -> None:
    """docker-compose.yml under podman-compose: its programs, on the servers of this machine and on its network."""
    tools = own.folder / "compose"
    run([sys.executable, "-m", "venv", tools])
    run([tools / "bin" / "pip", "--disable-pip-version-check", "-qq", "install", COMPOSE])
    passwords = ("POSTGRES_PASSWORD", "POSTGRES_APP_PASSWORD", "RABBITMQ_PASSWORD")
    secrets = {**dict.fromkeys(passwords, "secret"), "NOTIFIER_HASH_KEY": environment["NOTIFIER_HASH_KEY"]}
    known = {"PATH": f"{tools}/bin:{os.environ['PATH']}", "HOME": str(own.folder), **secrets}
    tool = [tools / "bin" / "podman-compose", "--podman-path", own.wrapper(), "--in-pod=0", "--file"]
    services = yaml.safe_load(run([*tool, ROOT / "docker-compose.yml", "config"], env=known))["services"]
    say(f"podman-compose reads the compose file: {len(services)} services")
    compose = [*tool, _on_this_machine(own.folder, environment, sockets)]
    running = [name for name in services if name in ("api", "beat", "callbacks", "intake") or "worker-" in name]
    run([*compose, "run", "--rm", "--no-deps", "migrate"], env=known)
    run([*compose, "up", "--detach", "--no-deps", *running], env=known)
    ids = own("ps", "--quiet", "--filter=status=running").split()
    assert len(ids) == len(running), f"{len(ids)} of {running} run"
    for container in ids:
        wait_until(lambda id_=container: own.fails("healthcheck", "run", id_) is None, PATIENCE, every=1)
    say(f"healthy under podman-compose, as the file confines them: {', '.join(running)}")
    run([*compose, "down", "--timeout=60"], env=known)


def _on_this_machine(folder: Path, environment: Mapping[str, str], sockets: SocketFolder) -> Path:
    """docker-compose.yml with the network and the servers of this machine."""
    content = yaml.safe_load((ROOT / "docker-compose.yml").read_text("utf-8"))
    for service in content["services"].values():
        service.pop("build", None)
        service.pop("ports", None)
        service.pop("env_file", None)
        given = {key: value for key, value in environment.items() if key in service["environment"]}
        ports = {"NOTIFIER_METRICS_PORT": str(free_port()), "NOTIFIER_API_PORT": str(free_port())}
        service["environment"] = service["environment"] | given | ports  # several share one
        service["network_mode"] = "host"
        service["ulimits"] = {"nofile": {"soft": 4096, "hard": 4096}, "nproc": 4096}
        own = [volume.replace("./", f"{ROOT}/") for volume in service.get("volumes", [])]
        service["volumes"] = own + sockets.volumes
    path = folder / "compose.yml"
    path.write_text(yaml.safe_dump(content), "utf-8")
    return path


if __name__ == "__main__":
    sys.exit(main())
