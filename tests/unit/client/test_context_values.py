"""Dates, decimals and the like in a context: JSON that templates read, whatever way the message goes."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier import Channel, InvalidMessage, Lane, RecordingClient
from notifier.broker.batch_form import join
from notifier.client.context_values import MAX_DEPTH, as_json
from notifier.domain.validation import parse_body
from notifier.rendering import Renderer

ID = UUID("01a2047b-fb2a-7da5-858e-3be3814fe3b1")
TEMPLATE = """
description = "for a test"
[variables.day]
type = "date"
[variables.at]
type = "datetime"
[variables.total]
type = "money"
[variables.weight]
type = "number"
[variables.order]
type = "string"
[variables.size]
type = "string"
"""
BODY = "{{ day | date }}|{{ at | datetime }}|{{ total | money }}|{{ weight | number }}|{{ order }}|{{ size }}\n"


class Size(StrEnum):
    LARGE = "large"


class Day(Enum):
    FIRST = date(2026, 3, 5)


class Number(IntEnum):
    TWO = 2


def context_of(**context: Any) -> Any:
    """As the broker, an outbox and the API get it."""
    client = RecordingClient(producer="shop")
    client.send("hello", "ann@example.com", context=context)
    return json.loads(client.sent[0].message.encode())["context"]


def test_each_value_has_one_form_at_any_depth() -> None:
    at = datetime(2026, 3, 5, 14, 30, tzinfo=timezone(timedelta(hours=1)))
    found = context_of(
        day=date(2026, 3, 5),
        at=[at, at.astimezone(UTC), datetime(2026, 3, 5, 1, 2, 3, 400000, UTC)],
        total={"amount": Decimal("12.50"), "currency": "EUR"},
        numbers=[Decimal("1E+3"), Decimal("-0.00"), Decimal("0.000001")],
        order=ID,
        enums=[Size.LARGE, Day.FIRST, Number.TWO],
        plain={"text": "x", "n": 1, "f": 1.5, "yes": True, "list": [[1]]},
    )
    assert found == {
        "day": "2026-03-05",
        "at": ["2026-03-05T14:30:00+01:00", "2026-03-05T13:30:00Z", "2026-03-05T01:02:03.400000Z"],
        "total": {"amount": "12.50", "currency": "EUR"},
        "numbers": ["1000", "-0.00", "0.000001"],
        "order": str(ID),
        "enums": ["large", "2026-03-05", 2],
        "plain": {"text": "x", "n": 1, "f": 1.5, "yes": True, "list": [[1]]},
    }


def test_templates_read_these_forms(tmp_path: Path) -> None:
    folder = tmp_path / "email" / "order"
    folder.mkdir(parents=True)
    (folder / "template.toml").write_text(TEMPLATE)
    (folder / "subject.txt").write_text("x")
    (folder / "body.txt").write_text(BODY)
    context = context_of(
        day=Day.FIRST,
        at=datetime(2026, 3, 5, 14, 30, tzinfo=UTC),
        total={"amount": Decimal("12.50"), "currency": "EUR"},
        weight=Decimal("1.250"),
        order=ID,
        size=Size.LARGE,
    )
    renderer = Renderer(tmp_path)
    assert renderer.check_context(Channel.EMAIL, "order", context) == []
    text = renderer.render(Channel.EMAIL, "order", "en", context).text
    assert "5" in text.split("|")[0]
    assert "€12.50" in text
    assert text.endswith(f"|{ID}|large\n")


def test_what_has_no_form_is_a_fault_beside_the_others() -> None:
    client = RecordingClient(producer="shop")
    context = {"at": datetime(2026, 3, 5), "n": [Decimal("NaN")], "x": {"y": object()}}  # noqa: DTZ001 - that is it
    with pytest.raises(InvalidMessage) as refused:
        client.send("hello", "nobody", context=context)
    found = {fault.field: fault.code for fault in refused.value.faults}
    assert found == {
        "context.at": "bad_time",
        "context.n.0": "bad_number",
        "context.x.y": "wrong_type",
        "to": "not_an_address",
    }


def nested(levels: int, kind: type) -> Any:
    value: Any = "x"
    for _ in range(levels):
        value = [value] if kind is list else {"a": value}
    return value


def holding_itself() -> dict[str, Any]:
    looped: dict[str, Any] = {}
    # Twice: the ways through it double at each level.
    looped["x"] = looped["y"] = looped
    return looped


def faults_of(**context: Any) -> list[tuple[str, str]]:
    with pytest.raises(InvalidMessage) as refused:
        context_of(**context)
    return [(fault.field, fault.code) for fault in refused.value.faults]


@pytest.mark.parametrize("value", [nested(MAX_DEPTH, list), nested(5000, dict), holding_itself()], ids="abc")
def test_what_lies_too_deep_or_in_itself_is_refused(value: Any) -> None:
    assert faults_of(value=value) == [("context.value", "too_deep")]


@pytest.mark.parametrize("kind", [list, dict])
def test_the_service_reads_what_is_not_too_deep_in_a_batch_too(kind: type) -> None:
    client = RecordingClient(producer="shop")
    client.send("hello", "ann@example.com", context={"value": nested(MAX_DEPTH - 1, kind)})
    body = client.sent[0].message.encode()
    [entry, _] = parse_body(join([body, body]), Channel.EMAIL, Lane.NORMAL)
    assert entry.faults == ()


@pytest.mark.parametrize("digits", ["1E+1000000000000", "1E-1000000000000", "1" * 101, "0." + "1" * 101])
def test_a_decimal_of_countless_digits_is_refused(digits: str) -> None:
    assert faults_of(n=Decimal(digits)) == [("context.n", "bad_number")]
    assert len(context_of(n=Decimal("1E+99"))["n"]) == 100


@pytest.mark.parametrize("name", [1, None, b"x", ("a", 1), Number.TWO])
def test_a_name_that_is_no_text_is_refused_where_it_is(name: Any) -> None:
    found = faults_of(a=[{"b": {name: 1, "c": object()}}])
    assert found == [("context.a.0.b", "wrong_type"), ("context.a.0.b.c", "wrong_type")]


def test_an_enum_of_text_names_a_value() -> None:
    assert context_of(a={Size.LARGE: 1}) == {"a": {"large": 1}}


@pytest.mark.parametrize("number", [float("nan"), float("inf"), 2**64])
def test_what_is_no_number_of_json_is_refused(number: Any) -> None:
    assert faults_of(n=[number]) == [("context.n.0", "bad_number")]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(), JSON))
def test_what_is_json_stays_as_it_is(context: dict[str, Any]) -> None:
    found, faults = as_json(context)
    assert repr(found) == repr(context)
    assert faults == []
