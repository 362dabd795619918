"""Finds Postfix's `smtp-sink`, the server that accepts every mail, and `smtp-source`, which shows how much it can
accept.

Both are in Debian's package `postfix`, whose mail service nobody wants here. If they are not installed, the
package is unpacked into a folder of ours: nothing is installed, no service starts, and root is not needed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

#: Kept between runs.
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "notifier-bench" / "postfix"
_SECONDS = 120


@dataclass(frozen=True, slots=True)
class Postfix:
    """Where the two programs are, and what they need to run."""

    sink: Path
    source: Path
    environment: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Absent:
    """Why something could not be measured."""

    why: str


def find_postfix(cache: Path = CACHE) -> Postfix | Absent:
    """The installed programs, or unpacked ones from earlier or from now."""
    sink, source = _installed("smtp-sink"), _installed("smtp-source")
    if sink and source:
        return Postfix(sink, source, os.environ)
    if not (cache / "usr/sbin/smtp-sink").exists():
        if not shutil.which("apt-get") or not shutil.which("dpkg"):
            return Absent("smtp-sink and smtp-source are not installed: they are part of Postfix")
        why = _unpack(cache)
        if why:
            return Absent(why)
    found = _unpacked(cache)
    return found if _runs(found) else Absent(f"smtp-source in {cache} does not run: a library is missing")


def _installed(name: str) -> Path | None:
    found = shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/lib/postfix/sbin")
    return Path(found) if found else None


def _unpack(cache: Path) -> str:
    """Unpack the package. Returns "" if it worked, otherwise why not."""
    downloads = cache.with_name("download")
    shutil.rmtree(downloads, ignore_errors=True)
    downloads.mkdir(parents=True)
    try:
        done = _run(["apt-get", "download", "postfix"], downloads)
        if done.returncode:
            return f"`apt-get download postfix` failed: {_last_line(done)}"
        (package,) = downloads.glob("postfix_*.deb")
        unfinished = cache.with_name("unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        done = _run(["dpkg", "-x", str(package), str(unfinished)], downloads)
        if done.returncode:
            return f"`dpkg -x {package.name}` failed: {_last_line(done)}"
        shutil.rmtree(cache, ignore_errors=True)
        unfinished.rename(cache)
    except (subprocess.TimeoutExpired, OSError, ValueError) as error:
        return f"the package postfix could not be unpacked: {type(error).__name__}"
    finally:
        shutil.rmtree(downloads, ignore_errors=True)
    return ""


def _unpacked(cache: Path) -> Postfix:
    environment = os.environ | {"LD_LIBRARY_PATH": str(cache / "usr/lib/postfix")}
    return Postfix(cache / "usr/sbin/smtp-sink", cache / "usr/sbin/smtp-source", environment)


def _runs(found: Postfix) -> bool:
    """Whether it prints its usage, and not the message of a linker that misses a library."""
    done = subprocess.run(
        [found.source], env=found.environment, capture_output=True, text=True, check=False, timeout=10
    )
    return "usage" in done.stderr


def _run(command: list[str], folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=_SECONDS,
        stdin=subprocess.DEVNULL,
    )


def _last_line(done: subprocess.CompletedProcess[str]) -> str:
    lines = (done.stderr or done.stdout).strip().splitlines()
    return lines[-1] if lines else "it said nothing"
