"""podman with images, containers and networks of its own, for `make image-test`; nothing of them stays."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
NEEDED = ("podman", "buildah", "runc", "debootstrap")
#: What containers need to reach each other by name.
NETWORK = ("netavark", "aardvark-dns", "iptables")
#: A program has to start, and to stop, within this. Seconds.
PATIENCE = 90.0


def say(text: str) -> None:
    """One line of progress."""
    print(f"image-test: {text}", flush=True)


def run(
    command: Sequence[object],
    *,
    seconds: float = 900,
    env: Mapping[str, str] | None = None,
    folder: Path = ROOT,
) -> str:
    """The output of a command that must succeed."""
    done = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
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
        networks = f"--network-config-dir={self.folder}/networks"
        # Neither systemd nor crun is needed.
        return [
            "podman",
            *places,
            networks,
            "--cgroup-manager=cgroupfs",
            "--events-backend=file",
            "--runtime=runc",
        ]

    def __call__(self, *arguments: object, seconds: float = 900) -> str:
        return run([*self.command, *arguments], seconds=seconds)

    def fails(self, *arguments: object) -> str | None:
        """What it says if it fails; None: it succeeds."""
        command = [*self.command, *map(str, arguments)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        except subprocess.TimeoutExpired:
            return "no answer in time"
        return (done.stdout + done.stderr).strip() or "no reason given" if done.returncode else None

    def log(self, container: str) -> str:
        """What a container said, the end of it."""
        command = [*self.command, "logs", container]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=PATIENCE)
        return (done.stdout + done.stderr)[-4000:]

    def is_healthy(self, container: str) -> bool:
        """Its health check says so; not yet, or not in time on a busy machine. Fails once it has ended."""
        name, state = self("inspect", "--format={{.Name}} {{.State.Status}}", container).split()
        assert state == "running", f"{name} is {state}:\n{self.log(container)}"
        return self.fails("healthcheck", "run", container) is None

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
    missing += [name for name in NETWORK if not _is_installed(name)]
    if missing or os.geteuid():
        raise SystemExit(f"image-test needs root and, on Debian: apt-get install {' '.join([*NEEDED, *NETWORK])}")
    folder = Path(tempfile.mkdtemp(prefix="notifier-image-", dir="/var/tmp"))
    own = Podman(folder)
    try:
        yield own
    finally:
        own.fails("rm", "--all", "--force", "--depend", "--time=0")
        own.fails("network", "prune", "--force")
        subprocess.run(["umount", folder / "store" / "overlay"], capture_output=True, check=False)
        shutil.rmtree(folder, ignore_errors=True)


def _is_installed(name: str) -> bool:
    """Two of them are not on PATH."""
    return shutil.which(name) is not None or Path("/usr/lib/podman", name).exists()
