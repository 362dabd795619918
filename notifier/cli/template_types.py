"""Turns text that people typed into the type that the template declares for the variable.

`valid_minutes=10` and a CSV cell are text, but JSON needs a number there. If the template is not available, or the
text does not fit its type, the text stays as it is and the service decides.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from pydantic_core import from_json

from notifier.domain.errors import NotFound, TemplateInvalid
from notifier.domain.statuses import Channel
from notifier.rendering import Renderer, Type

_WHOLE = re.compile(r"-?[0-9]{1,18}")
_BOOLEANS = {"true": True, "yes": True, "false": False, "no": False}


class VariableTypes:
    """The variable types of the templates in one folder."""

    def __init__(self, folder: Path) -> None:
        self._renderer = Renderer(folder)
        self._known: dict[tuple[Channel, str], Mapping[str, Type]] = {}

    def channel_of(self, template: object) -> Channel | None:
        """The only channel that has a template of this name; None: several have one, or none."""
        return self._renderer.channel_of(template)

    def typed(
        self, channel: Channel, template: object, context: Mapping[str, Any], texts: Collection[str]
    ) -> dict[str, Any]:
        """The context, with those of `texts` converted for which the template declares another type."""
        if not isinstance(template, str):
            return dict(context)
        types = self._types(channel, template)
        return {
            name: typed(value, types[name]) if name in texts and name in types else value
            for name, value in context.items()
        }

    def _types(self, channel: Channel, template: str) -> Mapping[str, Type]:
        if (channel, template) not in self._known:
            try:
                variables = self._renderer.template(channel, template).variables
            except (NotFound, TemplateInvalid):
                variables = {}
            self._known[channel, template] = {name: variable.type for name, variable in variables.items()}
        return self._known[channel, template]


def typed(text: Any, wanted: Type) -> Any:
    """The text as a value of that type, or unchanged."""
    if not isinstance(text, str):
        return text
    match wanted:
        case Type.INTEGER:
            return int(text) if _WHOLE.fullmatch(text) else text
        case Type.BOOLEAN:
            return _BOOLEANS.get(text.strip().lower(), text)
        case Type.LIST | Type.OBJECT | Type.MONEY:
            try:
                return from_json(text, allow_inf_nan=False)
            except ValueError:
                return text
        case _:
            # Numbers, dates, times and links are, or may be, text in JSON as well.
            return text
