from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from notifier.domain.template_variables import Shape, check_values, completed, faults_of, read_number
from notifier.rendering import Type, Variable

GOOD: dict[Type, list[Any]] = {
    Type.STRING: ["", "a"],
    Type.INTEGER: [0, -3, 2**63],
    Type.NUMBER: [0, 1.5, "12.50", "-3"],
    Type.BOOLEAN: [True, False],
    Type.LIST: [[], [1]],
    Type.OBJECT: [{}, {"a": 1}],
    Type.DATE: ["2026-03-05", "2024-02-29"],
    Type.DATETIME: ["2026-03-05T14:30:00Z", "2026-03-05t14:30:00.5+01:00", "2026-03-05 14:30:00-08:00"],
    Type.MONEY: [{"amount": "12.50", "currency": "EUR"}, {"amount": 3, "currency": "CNY"}],
    Type.URL: ["https://shop.example.com/a?b=c#d", "HTTP://example.com"],
    Type.HTML: ["", "<p>a</p>"],
}
BAD: dict[Type, list[Any]] = {
    Type.STRING: [1, True, [], {}],
    Type.HTML: [1, True, [], {}],
    Type.INTEGER: [1.0, True, "1", []],
    Type.NUMBER: [True, "a", "1e5", "1,5", "", []],
    Type.BOOLEAN: [0, "true"],
    Type.LIST: [{}, "a", 1],
    Type.OBJECT: [[], "a"],
    Type.DATE: ["2026-02-30", "05.03.2026", "2026-3-5", 20260305, []],
    Type.DATETIME: ["2026-03-05", "2026-03-05T14:30:00", "2026-03-05T25:30:00Z", 1, None.__class__],
    Type.MONEY: [
        "12.50",
        {"amount": "12.50"},
        {"amount": "x", "currency": "EUR"},
        {"amount": 1, "currency": "eur"},
    ],
    Type.URL: [
        "javascript:alert(1)",
        "data:text/html,x",
        "https://",
        "https:///a",
        "https://?a",
        "https://a b",
        'https://a"onclick',
        "/a",
        1,
    ],
}


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind in GOOD for value in GOOD[kind]])
def test_a_value_of_the_type_is_accepted(kind: Type, value: Any) -> None:
    assert list(faults_of(Variable(type=kind), value, "context.x")) == []


@pytest.mark.parametrize(("kind", "value"), [(kind, value) for kind in BAD for value in BAD[kind]])
def test_a_value_of_another_type_is_one_fault(kind: Type, value: Any) -> None:
    (fault,) = faults_of(Variable(type=kind), value, "context.x")
    assert (fault.field, fault.code) == ("context.x", "wrong_type")
    assert fault.fix


@pytest.mark.parametrize("kind", [Type.INTEGER, Type.NUMBER])
@pytest.mark.parametrize("value", [2**64, -(2**64), 10**4000, 1e30, float("nan"), float("inf")])
def test_a_number_that_no_template_can_write_is_refused(kind: Type, value: Any) -> None:
    (fault,) = faults_of(Variable(type=kind), value, "context.x")
    assert (fault.field, fault.code, fault.fix) == ("context.x", "bad_number", "Send it as a string")


@pytest.mark.parametrize("value", [2**64 - 1, -(2**63), 1e19, 0.1])
def test_every_number_that_is_accepted_can_be_written(value: Any) -> None:
    assert list(faults_of(Variable(type=Type.NUMBER), value, "context.x")) == []
    assert read_number(value).is_finite()


@pytest.mark.parametrize("year", ["0001", "9999"])
def test_a_time_that_another_time_zone_may_not_have_is_refused(year: str) -> None:
    for kind, value in ((Type.DATE, f"{year}-01-01"), (Type.DATETIME, f"{year}-01-01T00:00:00+14:00")):
        (fault,) = faults_of(Variable(type=kind), value, "context.x")
        assert fault.code == "wrong_type"


def test_every_type_is_tried() -> None:
    assert set(GOOD) == set(BAD) == set(Type)


@given(
    st.sampled_from(Type),
    st.recursive(st.none() | st.booleans() | st.floats() | st.text(), st.lists, max_leaves=5),
)
def test_judging_a_value_never_raises_and_never_repeats_it(kind: Type, value: Any) -> None:
    marked = f"hunter2{value}"
    for judged in (value, marked, {"amount": marked, "currency": marked}):
        assert "hunter2" not in " ".join(map(str, faults_of(Variable(type=kind), judged, "context.x")))


ITEMS = Variable.model_validate(
    {
        "type": "list",
        "of": {
            "type": "object",
            "fields": {"name": {"type": "string"}, "note": {"type": "string", "required": False}},
        },
    }
)


def test_faults_name_the_place_inside_of_lists_and_objects() -> None:
    context = {"items": [{"name": "a"}, {"name": 1}, {}, "b", None]}
    found = [(fault.field, fault.code) for fault in check_values({"items": ITEMS}, context, "context")]
    assert found == [
        ("context.items.1.name", "wrong_type"),
        ("context.items.2.name", "missing_variable"),
        ("context.items.3", "wrong_type"),
        ("context.items.4", "wrong_type"),
    ]


def test_null_is_missing_and_what_nobody_declared_is_tolerated() -> None:
    (fault,) = check_values({"name": Variable(type=Type.STRING)}, {"name": None, "surplus": 1}, "context")
    assert (fault.field, fault.code) == ("context.name", "missing_variable")


def test_optional_values_are_filled_in_at_every_depth_without_touching_the_context() -> None:
    optional = Variable(type=Type.INTEGER, required=False, default=3)
    context = {"items": [{"name": "a"}], "surplus": 1}
    full = completed({"items": ITEMS, "count": optional}, context)
    assert full == {"items": [{"name": "a", "note": None}], "count": 3, "surplus": 1}
    assert context == {"items": [{"name": "a"}], "surplus": 1}


_PLAIN: list[Any] = [value for values in (*GOOD.values(), *BAD.values()) for value in values] + [1e300, None]


def _shapes() -> st.SearchStrategy[Shape]:
    kinds = [kind for kind in Type if kind is not Type.HTML]  # which is only for whole variables
    plain = st.builds(Shape, type=st.sampled_from(kinds), required=st.booleans())
    return st.recursive(
        plain,
        lambda inner: st.one_of(
            st.builds(Shape, type=st.just(Type.LIST), of=inner),
            st.builds(Shape, type=st.just(Type.OBJECT), fields=st.dictionaries(st.sampled_from("ab"), inner)),
        ),
        max_leaves=4,
    )


_VALUES = st.recursive(
    st.sampled_from(_PLAIN),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("ab"), inner, max_size=2),
    max_leaves=6,
)


@given(_shapes(), _VALUES.filter(lambda value: value is not None))
def test_what_fits_is_what_has_no_faults(shape: Shape, value: Any) -> None:
    assert shape.fits(value) is (not list(faults_of(shape, value, "context")))
