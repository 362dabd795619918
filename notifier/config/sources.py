"""Sources of settings, in the form that the settings library expects."""

from __future__ import annotations

from typing import Any

from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource

#: Here an empty value has a meaning: our messages name no user.
_MAY_BE_EMPTY = frozenset({"broker_user"})
#: Editors on Windows write it at the beginning of a file. It is invisible, and no setting begins with it.
_BYTE_ORDER_MARK = "\ufeff"


class FilledSource(PydanticBaseSettingsSource):
    """Another source without its empty values. An empty value counts as not set, so the next source is asked.

    The library's `env_ignore_empty` covers no secret files and knows no exceptions.
    """

    def __init__(self, settings_cls: type[BaseSettings], source: PydanticBaseSettingsSource) -> None:
        super().__init__(settings_cls)
        self._source = source

    def get_field_value(self, field: FieldInfo, field_name: str) -> tuple[Any, str, bool]:
        """Passes on what the other source says."""
        return self._source.get_field_value(field, field_name)

    def __call__(self) -> dict[str, Any]:
        """All values: field → value."""
        values = {name: _without_mark(value) for name, value in self._source().items()}
        return {name: value for name, value in values.items() if value != "" or name in _MAY_BE_EMPTY}


def _without_mark(value: Any) -> Any:
    is_marked = isinstance(value, str) and value.startswith(_BYTE_ORDER_MARK)
    return value.removeprefix(_BYTE_ORDER_MARK).strip() if is_marked else value
