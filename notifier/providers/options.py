"""Reading a provider's options: strings from notifier.toml, turned into what the provider needs, or refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from urllib.parse import urlsplit

from notifier.domain.errors import ConfigurationError

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class Options:
    """The table of one provider. Each option is taken once; `finish` refuses what nobody took."""

    def __init__(self, provider: str, values: Mapping[str, str]) -> None:
        self._provider = provider
        self._left = dict(values)
        self._known: list[str] = []

    def take(self, key: str) -> str | None:
        """The option, or None where it is absent or empty."""
        self._known.append(key)
        return self._left.pop(key, "").strip() or None

    def require(self, key: str, meaning: str) -> str:
        """The option.

        Raises:
            ConfigurationError: if it is absent; `meaning` says what to put there.
        """
        value = self.take(key)
        if value is None:
            raise self.wrong(key, f"is missing: set it to {meaning}")
        return value

    def whole_number(self, key: str, *, default: int, low: int, high: int) -> int:
        """A whole number within `low` … `high`.

        Raises:
            ConfigurationError: if it is not.
        """
        value = self.take(key)
        if value is None:
            return default
        if not value.isdecimal() or not low <= int(value) <= high:
            raise self.wrong(key, f"must be a whole number from {low} to {high}")
        return int(value)

    def boolean(self, key: str, *, default: bool) -> bool:
        """`true` or `false` (also yes, no, 1, 0, in any case).

        Raises:
            ConfigurationError: for anything else.
        """
        value = self.take(key)
        if value is None:
            return default
        if value.lower() not in _BOOLEANS:
            raise self.wrong(key, "must be true or false")
        return _BOOLEANS[value.lower()]

    def file(self, key: str) -> Path | None:
        """The path of a file that exists.

        Raises:
            ConfigurationError: if there is none.
        """
        value = self.take(key)
        if value is None:
            return None
        path = Path(value).expanduser()
        if not path.is_file():
            raise self.wrong(key, f"names {value}, which is not a file")
        return path

    def url(self, key: str) -> str | None:
        """A base URL of http or https, without a slash at its end.

        Raises:
            ConfigurationError: if it is none, or has a query or a fragment.
        """
        value = self.take(key)
        if value is None:
            return None
        parts = urlsplit(value)
        if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
            raise self.wrong(key, "must be a URL like https://notify.example.com")
        return value.rstrip("/")

    def finish(self) -> None:
        """Say that every known option was taken.

        Raises:
            ConfigurationError: if others are left.
        """
        if self._left:
            unknown = ", ".join(sorted(self._left))
            raise self.wrong(unknown, f"is not an option; there are {', '.join(self._known)}")

    def wrong(self, key: str, problem: str) -> ConfigurationError:
        """The error to raise about `key`. `problem` must not repeat a value: it may be a secret."""
        return ConfigurationError(f"provider {self._provider}: {key} {problem}", setting=key)
