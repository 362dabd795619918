"""Files of secrets, as Docker, Kubernetes and systemd mount them: one folder, one file for each, named as the
variable."""

from __future__ import annotations

import os
import stat
from pathlib import Path

from notifier.domain.errors import ConfigurationError

_FOLDER = "NOTIFIER_SECRETS_DIR"


def secrets_folder() -> Path:
    """`NOTIFIER_SECRETS_DIR`, else /run/secrets, which need not be there."""
    return Path(os.environ.get(_FOLDER) or "/run/secrets")


def secret_files() -> list[Path]:
    """What is in the folder, by name.

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
    """Those that everybody on this machine can read.

    None of a read-only file system: as Docker and Kubernetes mount them into a container, whose only user we are.
    Their modes are what they are there, often 0444, and nobody could change them.
    """
    return [path for path in secret_files() if _is_open(path)]


def _is_open(path: Path) -> bool:
    if not hasattr(os, "statvfs"):
        return False  # Windows: who may read a file is not in its mode
    try:
        # Kubernetes' are links.
        found = path.resolve(strict=True)
        is_reachable = all(folder.stat().st_mode & stat.S_IXOTH for folder in found.parents)
        is_readable = found.is_file() and bool(found.stat().st_mode & stat.S_IROTH)
        return is_reachable and is_readable and not os.statvfs(found).f_flag & os.ST_RDONLY
    except OSError:
        return False  # gone meanwhile, or in a folder that this user may not look into


def read_secret(path: Path) -> str:
    """Its text, without a byte order mark, and white space around it. Raises `ConfigurationError`, naming it."""
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
