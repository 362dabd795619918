"""Bringing to a machine what it lacks: RabbitMQ in a container, or Debian's packages."""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

_COMPOSE_FILE = Path(__file__).with_name("compose.yml")
_POLICY = Path("/usr/sbin/policy-rc.d")


def docker_engine_answers() -> bool:
    """A client alone is not enough, and an old one has no `compose`."""
    if shutil.which("docker") is None:
        return False
    return all(
        subprocess.run(command, capture_output=True, check=False, timeout=30).returncode == 0
        for command in (["docker", "compose", "version"], ["docker", "info"])
    )


def start_container() -> tuple[str, Callable[[], None]]:
    """URL of a RabbitMQ in a container of its own, and how to end it.

    The one server that stays if the test process is killed with SIGKILL: `docker ps` shows it as notifier-test-….
    """
    password = secrets.token_urlsafe(16)
    compose = ["docker", "compose", "-p", f"notifier-test-{secrets.token_hex(4)}", "-f", str(_COMPOSE_FILE)]
    environment = {**os.environ, "RABBITMQ_PASSWORD": password}

    def run(*arguments: str) -> str:
        done = subprocess.run(
            [*compose, *arguments], env=environment, capture_output=True, text=True, check=False, timeout=600
        )
        if done.returncode:
            raise RuntimeError(f"docker compose {arguments[0]} failed: {done.stderr.strip()}")
        return done.stdout.strip()

    def stop() -> None:
        run("down", "--volumes", "--timeout", "1")

    try:
        run("up", "--detach", "--wait")
        address = run("port", "rabbitmq", "5672")
    except BaseException:
        with contextlib.suppress(RuntimeError):
            stop()
        raise
    return f"amqp://notifier:{password}@{address}/%2F", stop


def can_apt_install() -> bool:
    """Root on Debian or a descendant."""
    return os.geteuid() == 0 and shutil.which("apt-get") is not None and Path("/etc/debian_version").exists()


def apt_install_rabbitmq() -> None:
    """Install the package without starting the system's service, which is not ours to run."""
    apt_install("rabbitmq-server")


def apt_install(package: str) -> None:
    """Install a package of Debian; a service in it is not started.

    Raises:
        RuntimeError: with apt's last words.
    """
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with _one_at_a_time(), _no_service_starts():
        for command in (
            ["apt-get", "update"],
            ["apt-get", "install", "-y", "--no-install-recommends", package],
        ):
            done = subprocess.run(
                command,
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                check=False,
            )
            if done.returncode:
                raise RuntimeError(f"{' '.join(command)} failed:\n{done.stdout[-2000:]}")


@contextlib.contextmanager
def _one_at_a_time() -> Iterator[None]:
    """Test processes run side by side, and apt refuses the second one."""
    # apt's own folder, so that no file of ours stays.
    lock = os.open("/etc/apt", os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


@contextlib.contextmanager
def _no_service_starts() -> Iterator[None]:
    """Debian's packages ask this script whether they may start what they install; 101 is no."""
    if _POLICY.exists():
        yield
        return
    _POLICY.write_text("#!/bin/sh\nexit 101\n", "ascii")
    _POLICY.chmod(0o755)
    try:
        yield
    finally:
        _POLICY.unlink()
