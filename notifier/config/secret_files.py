"""Files of secrets, as Docker, Kubernetes and systemd mount them: one folder, one file for each, named as the
variable."""

from __future__ import annotations

import os
from pathlib import Path

from notifier.domain.errors import ConfigurationError


def secrets_folder() -> Path:
    """`NOTIFIER_SECRETS_DIR`, else /run/secrets. It need not be there."""
    return Path(os.environ.get("NOTIFIER_SECRETS_DIR") or "/run/secrets")


def read_secret(path: Path) -> str:
    """Its text, without white space around it. Raises `ConfigurationError`, naming the file."""
    try:
        return path.read_text("utf-8").strip()
    except OSError as error:
        raise unreadable_secret(path, error.strerror or type(error).__name__) from None
    except UnicodeError:
        raise unreadable_secret(path, "it is not UTF-8 text") from None


def unreadable_secret(path: Path, why: str) -> ConfigurationError:
    return ConfigurationError(
        f"the secret {path} cannot be read ({why}): let this program's user read it as a file of UTF-8 text",
        setting=path.name.upper(),
    )
