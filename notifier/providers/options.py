"""Reads and validates a provider's options: the strings in its table of notifier.toml."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, ClassVar, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, ValidationError

from notifier.domain.errors import ConfigurationError

_BOOLEANS = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}


class ProviderOptions(BaseModel):
    """The model of one provider's table. A field's description says what to put there, and is part of the error.

    `public_url`, `message_id_domain` and `api_base` default to the settings if the table does not have them.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    #: Options that are needed to verify the provider's webhooks.
    needed_by_webhooks: ClassVar[tuple[str, ...]] = ("public_url",)

    @classmethod
    def read(cls, provider: str, values: Mapping[str, str]) -> Self:
        """Read the table of `provider`. An empty value counts as missing.

        Raises:
            ConfigurationError: an option is missing, wrong or unknown; the text names it, but never repeats its
                value.
        """
        known = cls.names()
        given = {key: value.strip() for key, value in values.items() if value.strip() or key not in known}
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            wrong = error.errors(include_url=False, include_input=False)
            key = str(wrong[0]["loc"][0])
            match wrong[0]["type"]:
                case "missing":
                    problem = f"is missing: set it to {cls.names()[key]}"
                case "extra_forbidden":
                    key = ", ".join(sorted(str(each["loc"][0]) for each in wrong))
                    problem = f"is not an option; there are {', '.join(known)}"
                case _:
                    problem = str(wrong[0].get("ctx", {}).get("error", wrong[0]["msg"]))
            raise ConfigurationError(f"provider {provider}: {key} {problem}", setting=key) from None

    @classmethod
    def names(cls) -> dict[str, str]:
        """Every option, in order, with its description."""
        return {field.alias or name: field.description or "" for name, field in cls.model_fields.items()}

    @property
    def missing_for_webhooks(self) -> str | None:
        """The first missing option without which no webhook can be verified; None if there is none."""
        return next((name for name in self.needed_by_webhooks if not getattr(self, name)), None)


def _boolean(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    if value.lower() not in _BOOLEANS:
        raise ValueError("must be true or false")
    return _BOOLEANS[value.lower()]


def _file(value: Path) -> Path:
    path = value.expanduser()
    if not path.is_file():
        raise ValueError(f"names {value}, which is not a file")
    return path


def _url(value: str) -> str:
    parts = urlsplit(value)
    if parts.scheme not in ("http", "https") or not parts.netloc or parts.query or parts.fragment:
        raise ValueError("must be a URL like https://notify.example.com")
    return value.rstrip("/")


def whole_number(low: int, high: int) -> BeforeValidator:
    """Annotation for a whole number from `low` to `high`."""

    def read(value: Any) -> Any:
        text = str(value)
        if not text.isdecimal() or not low <= int(text) <= high:
            raise ValueError(f"must be a whole number from {low} to {high}")
        return int(text)

    return BeforeValidator(read)


def matching(is_right: Callable[[str], object], meaning: str) -> AfterValidator:
    """Annotation for a text that must be `meaning`, such as "an ASCII domain like example.com"."""

    def read(value: str) -> str:
        if not is_right(value):
            raise ValueError(f"must be {meaning}")
        return value

    return AfterValidator(read)


#: `true` or `false`; also yes, no, 1, 0, in any case.
Boolean = Annotated[bool, BeforeValidator(_boolean)]
#: The path of a file that exists.
ExistingFile = Annotated[Path, AfterValidator(_file)]
#: A base URL with http or https, without a slash at the end.
BaseUrl = Annotated[str, AfterValidator(_url)]
