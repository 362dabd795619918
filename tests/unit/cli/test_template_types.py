"""Text becomes what the template declares, or stays as it is."""

from __future__ import annotations

from typing import Any

import pytest

from notifier.cli.template_types import VariableTypes, typed
from notifier.domain.statuses import Channel
from notifier.rendering import Type
from tests.unit.cli.commandline import TEMPLATES


@pytest.mark.parametrize(
    ("text", "wanted", "value"),
    [
        ("10", Type.INTEGER, 10),
        ("ten", Type.INTEGER, "ten"),
        ("1.5", Type.INTEGER, "1.5"),
        ("yes", Type.BOOLEAN, True),
        ("False", Type.BOOLEAN, False),
        ("1", Type.BOOLEAN, "1"),
        ("[1, 2]", Type.LIST, [1, 2]),
        ('{"amount": "1", "currency": "EUR"}', Type.MONEY, {"amount": "1", "currency": "EUR"}),
        ("12 EUR", Type.MONEY, "12 EUR"),
        ("042137", Type.STRING, "042137"),
        ("12.50", Type.NUMBER, "12.50"),
        ("2026-11-22", Type.DATE, "2026-11-22"),
    ],
)
def test_text_becomes_a_value_of_the_declared_type(text: str, wanted: Type, value: Any) -> None:
    found = typed(text, wanted)
    assert (found, type(found)) == (value, type(value))


def test_only_bare_text_is_converted() -> None:
    context = {"code": "042137", "minutes": "10"}
    typist = VariableTypes(TEMPLATES)
    assert typist.typed(Channel.SMS, "code", context, {"code", "minutes"}) == {"code": "042137", "minutes": 10}
    assert typist.typed(Channel.SMS, "code", context, {"code"}) == context


def test_without_the_template_text_stays_text() -> None:
    context = {"minutes": "10"}
    for template in ("nosuch", None, 7):
        assert VariableTypes(TEMPLATES).typed(Channel.SMS, template, context, {"minutes"}) == context
