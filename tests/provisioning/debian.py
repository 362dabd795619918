"""A Debian beside the machine's own, for other versions of servers and of Python: made by debootstrap, once.

It is a folder in the user's cache. A program that runs in it sees that folder as the whole disk, and in it this
checkout, which it can only read; it has a `/tmp`, a `/dev/shm` and process ids of its own. What it leaves running
ends with it. The network is the machine's: servers listen on 127.0.0.1. Nothing is installed on the machine.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.provisioning.services import MissingService

CHECKOUT = Path(__file__).parents[2]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "notifier-tests"
#: In the Debian: the checkout, and the virtual environment of its tests.
INSIDE, VENV = Path("/srv/notifier"), Path("/opt/notifier")
NEEDED = ("debootstrap", "setpriv", "unshare", "chroot")
_MAKE_SECONDS, _INSTALL_SECONDS = 3600.0, 3600.0

#: Own mounts and process ids need no cleaning: they are gone with their last process. `unshare` ignores Ctrl-C and
#: SIGTERM, so it ends with whoever started it.
_OWN = ("setpriv", "--pdeathsig=KILL", "unshare", "--mount", "--pid", "--fork", "--kill-child")
_ENTER = """
root=$1; shift
mount -t proc proc "$root/proc"
mount --bind /dev "$root/dev"
mount -t tmpfs -o mode=1777 tmpfs "$root/dev/shm"
mount -t tmpfs -o mode=1777 tmpfs "$root/tmp"
mount --bind "$CHECKOUT" "$root$INSIDE"
mount -o remount,bind,ro "$root$INSIDE"
exec chroot "$root" "$@"
"""
#: What a Debian of packages alone does not know of this machine: names of hosts, and whose certificates to trust.
_OF_THE_MACHINE = ("etc/hosts", "etc/resolv.conf", "etc/ssl/certs/ca-certificates.crt")
_PROXIES = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


@dataclass(frozen=True, slots=True)
class Debian:
    """One release, with the packages that are named here and those that they need."""

    release: str
    packages: tuple[str, ...]

    @property
    def root(self) -> Path:
        """Its folder. Other packages make another one."""
        known = hashlib.sha256(" ".join(self.packages).encode()).hexdigest()[:8]
        return CACHE / f"debian-{self.release}-{known}"

    def make(self, say: Callable[[str], None]) -> None:
        """Make it if it is not there, and install the tests' Python packages into it if they are not those of this
        checkout.

        Raises:
            MissingService: it cannot be had on this machine; the text says why.
        """
        missing = [name for name in NEEDED if shutil.which(name) is None]
        if os.geteuid() or missing:
            needs = f"{', '.join(missing)} (apt-get install debootstrap)" if missing else "root"
            raise MissingService(f"Debian's {self.release} is made by debootstrap, which needs {needs}")
        CACHE.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(self.root.with_suffix(".lock")):
            if not self.root.exists():
                say(f"making Debian's {self.release} in {self.root}, once: about three minutes")
                self._bootstrap()
            for name in _OF_THE_MACHINE:
                if Path("/", name).exists():
                    shutil.copyfile(Path("/", name), self.root / name)
            self._install(say)

    def command(self, command: Sequence[str], environment: Mapping[str, str]) -> list[str]:
        """What to run on the machine so that this runs in the checkout there, as root. Nothing of the caller's
        environment comes along."""
        given = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "LANG": "C.UTF-8", **environment}
        inside = f"cd {INSIDE} && exec {shlex.join(command)}"
        assignments = [f"{name}={value}" for name, value in given.items()]
        places = [f"CHECKOUT={CHECKOUT}", f"INSIDE={INSIDE}"]
        entering = ["env", *places, "sh", "-euc", _ENTER, "enter", str(self.root)]
        return [*_OWN, *entering, "env", "-i", *assignments, "sh", "-c", inside]

    def _bootstrap(self) -> None:
        begun = self.root.with_suffix(".begun")
        shutil.rmtree(begun, ignore_errors=True)
        packages = f"--include={','.join(('ca-certificates', *self.packages))}"
        _run(
            [*_OWN, "debootstrap", "--variant=minbase", packages, self.release, str(begun), _mirror()],
            f"debootstrap of {self.release} failed",
            _MAKE_SECONDS,
        )
        for archive in (begun / "var/cache/apt/archives").glob("*.deb"):
            archive.unlink()
        for place in (INSIDE, VENV):
            (begun / place.relative_to("/")).mkdir(parents=True, exist_ok=True)
        begun.rename(self.root)

    def _install(self, say: Callable[[str], None]) -> None:
        """By the hashes of requirements/, as on the machine itself."""
        locks = [CHECKOUT / "requirements" / name for name in ("dev.txt", "build.txt")]
        files = [*locks, CHECKOUT / "pyproject.toml"]
        wanted = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
        stamp = self.root / VENV.relative_to("/") / "installed"
        if stamp.exists() and stamp.read_text("ascii") == wanted:
            return
        say(f"installing the tests' packages there ({self.release})")
        pip = f"{VENV}/bin/python -m pip --disable-pip-version-check -qq install --no-compile"
        hashed = " ".join(f"-r {INSIDE / path.relative_to(CHECKOUT)}" for path in locks)
        script = (
            f"python3 -m venv --clear {VENV} && {pip} --require-hashes --no-deps {hashed} && "
            f"{pip} --no-deps --no-build-isolation --no-index --editable {INSIDE}"
        )
        _run(
            self.command(["sh", "-c", script], _of_pip()),
            f"the tests' packages could not be installed into Debian's {self.release}",
            _INSTALL_SECONDS,
        )
        stamp.write_text(wanted, "ascii")


def _mirror() -> str:
    """The one that this machine's apt is configured for."""
    sources = [Path("/etc/apt/sources.list"), *Path("/etc/apt/sources.list.d").glob("*")]
    for path in sources:
        text = path.read_text("utf-8", errors="replace") if path.is_file() else ""
        found = re.search(r"^(?:URIs:|deb(?: \[[^\]]*\])?) (https?://\S+/debian)/?(?:\s|$)", text, re.MULTILINE)
        if found:
            return found[1]
    raise MissingService("no mirror of Debian is configured in /etc/apt")


def _of_pip() -> dict[str, str]:
    """Where this machine's pip finds packages; and the certificates, which are copied."""
    shown = subprocess.run(
        ["python3", "-m", "pip", "config", "get", "global.index-url"], capture_output=True, text=True, check=False
    )
    index = os.environ.get("PIP_INDEX_URL") or shown.stdout.strip()
    found = {name: value for name in _PROXIES if (value := os.environ.get(name))}
    found["PIP_CERT"] = f"/{_OF_THE_MACHINE[-1]}"
    return found | ({"PIP_INDEX_URL": index} if index else {})


def _run(command: Sequence[str], failure: str, seconds: float) -> None:
    try:
        done = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        raise MissingService(f"{failure}: not done within {seconds:.0f} s") from None
    if done.returncode:
        raise MissingService(f"{failure}: {' / '.join(done.stdout.strip().splitlines()[-3:])}")


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Two runs at once would make it in the same folder."""
    with path.open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
