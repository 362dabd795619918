"""The tables `[callbacks.<producer>]` of notifier.toml, and references `${NAME}` to variables or secret files."""

from __future__ import annotations

import base64
import binascii
import os
import re
from ipaddress import ip_address
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, SecretStr

from notifier.config.secret_files import read_secret, secrets_folder
from notifier.domain.errors import ConfigurationError
from notifier.domain.statuses import FINAL_STATUSES, Status

#: Length of a secret (https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md).
#: Bytes.
MIN_SECRET_BYTES, MAX_SECRET_BYTES = 24, 64
SECRET_PREFIX = "whsec_"  # noqa: S105 - what every secret begins with

_REFERENCE = re.compile(r"\$\{([A-Z][A-Z0-9_]*)\}")


def expand(owner: str, key: str, value: str) -> str:
    """The value with each `${NAME}` replaced from the environment, or from the file of this name in the secrets
    folder. `owner` and `key` say where the value is, for errors.

    Raises:
        ConfigurationError: a reference names neither, its value is empty, or a file cannot be read.
    """

    def replace(match: re.Match[str]) -> str:
        found = os.environ.get(match[1])
        if not found and (path := secrets_folder() / match[1]).exists():
            found = read_secret(path)
        if not found:
            raise ConfigurationError(
                f"{owner}: {key} refers to ${{{match[1]}}}, which is not set or empty; set it, add a file of this "
                f"name to the secrets folder ({secrets_folder()}), or remove the option from notifier.toml",
                setting=match[1],
            )
        return found

    return _REFERENCE.sub(replace, value)


def references(text: str) -> set[str]:
    """The names of all `${NAME}` in the text."""
    return set(_REFERENCE.findall(text))


class CallbackTable(BaseModel):
    """Where a producer is notified, and with what callbacks are signed."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    #: An https URL; unset: only messages with their own callback_url have callbacks.
    url: Annotated[str, Field(max_length=2000)] | None = None
    #: One or two secrets `whsec_…`. During a rotation, each callback is signed with both.
    secrets: Annotated[tuple[SecretStr, ...], Field(min_length=1, max_length=2)]
    #: Statuses, in addition to the final ones, of which the producer is notified, such as ["sent"].
    statuses: tuple[Status, ...] = ()

    @property
    def told(self) -> tuple[Status, ...]:
        """Every status of which the producer is notified."""
        return tuple(status for status in Status if status in FINAL_STATUSES or status in self.statuses)

    def keys(self, producer: str) -> tuple[bytes, ...]:
        """The keys with which callbacks are signed; the first secret's first. Raises `ConfigurationError`."""
        owner = f"callbacks of {producer}"
        return tuple(_key(owner, expand(owner, "secrets", secret.get_secret_value())) for secret in self.secrets)


def _key(owner: str, secret: str) -> bytes:
    try:
        key = base64.b64decode(secret.removeprefix(SECRET_PREFIX), validate=True)
    except (binascii.Error, ValueError):
        key = b""
    if not secret.startswith(SECRET_PREFIX) or not MIN_SECRET_BYTES <= len(key) <= MAX_SECRET_BYTES:
        raise ConfigurationError(
            f"{owner}: a secret is not {SECRET_PREFIX} and {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes in "
            "base64; "
            f'make one: echo "{SECRET_PREFIX}$(openssl rand -base64 32)"',
            setting="secrets",
        )
    return key


def read_name_servers(text: str) -> tuple[tuple[str, int], ...]:
    """Read addresses, with or without a port, separated by commas. Raises `ValueError`."""
    return tuple(_name_server(one.strip()) for one in text.split(",") if one.strip())


def _name_server(text: str) -> tuple[str, int]:
    host, _, port = text.rpartition(":") if re.search(r"(^[^:]+|\]):\d+$", text) else (text, "", "53")
    try:
        address = str(ip_address(host.removeprefix("[").removesuffix("]")))
        number = int(port)
    except ValueError:
        number = 0
    if not 0 < number < 65536:
        raise ValueError(f"{text!r} is not an address: write it as 10.0.0.2, 10.0.0.2:5353 or [2001:db8::2]:5353")
    return address, number
