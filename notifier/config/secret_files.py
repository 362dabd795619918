"""Files of secrets, as Docker, Kubernetes and systemd mount them: one folder, one file for each, named as the
variable."""

from __future__ import annotations

import os
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
            f"{_FOLDER} is {folder}, where no folder is: name the one with the secrets, or leave it out",
            setting=_FOLDER,
        )
    return []


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
