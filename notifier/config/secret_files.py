"""Secret files, as Docker, Kubernetes and systemd mount them: one folder with a file for each variable, named like
the variable."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from notifier.domain.errors import ConfigurationError

_FOLDER = "NOTIFIER_SECRETS_DIR"


def secrets_folder() -> Path:
    """`NOTIFIER_SECRETS_DIR`, otherwise /run/secrets, which need not exist."""
    return Path(os.environ.get(_FOLDER) or "/run/secrets")


def secret_files() -> list[Path]:
    """The files in the folder, by name.

    Raises:
        ConfigurationError: `NOTIFIER_SECRETS_DIR` names no folder, or the folder cannot be read.
    """
    folder = secrets_folder()
    try:
        if folder.is_dir():
            return sorted(folder.iterdir())
    except OSError as error:
        raise unreadable_secret(folder, error.strerror or type(error).__name__) from None
    if os.environ.get(_FOLDER):
        raise ConfigurationError(
            f"{_FOLDER} is {folder}, which is not a folder: name the folder with the secrets, or leave it out",
            setting=_FOLDER,
        )
    return []


def open_secrets() -> list[Path]:
    """Secret files that everybody on this machine can read.

    Files on a read-only file system do not count. Docker and Kubernetes mount them like that into a container
    whose only user is ours. Their modes there, often 0444, cannot be changed.
    """
    return [path for path in secret_files() if _is_open(path)]


def _is_open(path: Path) -> bool:
    if not hasattr(os, "statvfs"):
        return False  # on Windows the mode does not say who may read a file
    try:
        # In Kubernetes they are links.
        found = path.resolve(strict=True)
        is_reachable = all(folder.stat().st_mode & stat.S_IXOTH for folder in found.parents)
        is_readable = found.is_file() and bool(found.stat().st_mode & stat.S_IROTH)
        return is_reachable and is_readable and not os.statvfs(found).f_flag & os.ST_RDONLY
    except OSError:
        return False  # it is gone by now, or in a folder that this user may not enter


def read_secret(path: Path) -> str:
    """The file's text, without a byte order mark and without white space around it. Raises `ConfigurationError`,
    naming the file."""
    try:
        return path.read_text("utf-8-sig").strip()
    except OSError as error:
        raise unreadable_secret(path, error.strerror or type(error).__name__) from None
    except UnicodeError:
        raise unreadable_secret(path, "it is not UTF-8 text") from None


def unreadable_secret(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the secret {path} cannot be read ({why}): let this program's user read it as a file of UTF-8 text",
        setting=path.name.upper(),
    )
