from __future__ import annotations

from typing import Any

import pytest
from babel import Locale

from notifier.domain.template_variables import ValueRefused
from notifier.rendering import filters
from notifier.rendering.filters import ALLOWED, writing_in

EUROS = {"amount": "1234.50", "currency": "EUR"}
AFTERNOON = "2026-03-05T14:30:00+01:00"


def _in(locale: str, name: str, *arguments: Any) -> str:
    with writing_in(Locale.parse(locale)):
        return str(ALLOWED[name](*arguments))


@pytest.mark.parametrize(
    ("locale", "filter_name", "arguments", "expected"),
    [
        ("en", "money", (EUROS,), "€1,234.50"),
        ("fr", "money", (EUROS,), "1\u202f234,50\u00a0€"),
        ("zh_Hans", "money", (EUROS,), "€1,234.50"),
        ("en", "money", (12, "JPY"), "¥12"),
        ("en", "money", ({"amount": 0.1, "currency": "EUR"},), "€0.10"),
        ("en", "number", ("1234567.5",), "1,234,567.5"),
        ("fr", "number", (1234567.5,), "1\u202f234\u202f567,5"),
        ("en", "percent", (0.2,), "20%"),
        ("fr", "percent", (0.055,), "5,5\u00a0%"),
        ("en", "date", ("2026-03-05",), "March 5, 2026"),
        ("en_GB", "date", ("2026-03-05", "full"), "Thursday, 5 March 2026"),
        ("fr", "date", ("2026-08-05", "full"), "mercredi 5 août 2026"),
        ("zh_Hans", "date", ("2026-03-05", "day"), "3月5日周四"),
        ("en", "date", ("2026-03-05T23:30:00-08:00",), "March 5, 2026"),
        ("fr", "time", (AFTERNOON,), "14:30"),
        ("en", "time", (AFTERNOON,), "2:30\u202fPM"),
        ("fr", "time", (AFTERNOON, "America/New_York"), "08:30"),
        ("fr", "datetime", (AFTERNOON,), "5 mars 2026, 14:30"),
        ("zh_Hans", "datetime", (AFTERNOON, "day"), "3月5日周四 14:30"),
        ("fr", "datetime", ("2026-03-05T23:30:00Z", "long", "Europe/Paris"), "6 mars 2026, 00:30"),
    ],
)
def test_filters_write_in_the_locale_of_the_reader(
    locale: str, filter_name: str, arguments: tuple[Any, ...], expected: str
) -> None:
    assert _in(locale, filter_name, *arguments) == expected


def test_the_same_instant_at_two_offsets_shows_two_clocks() -> None:
    # Equal as datetimes, so a cache keyed by them would show the first clock twice.
    assert _in("fr", "time", "2026-03-05T14:30:00+01:00") == "14:30"
    assert _in("fr", "time", "2026-03-05T13:30:00Z") == "13:30"


@pytest.mark.parametrize(
    ("filter_name", "arguments"),
    [
        ("money", ("hunter2",)),
        ("money", ({"amount": "hunter2", "currency": "EUR"},)),
        ("money", ({"amount": "1", "currency": "hunter2"},)),
        ("money", ("1", "hunter2")),
        ("number", (True,)),
        ("number", (float("nan"),)),
        ("number", (10**30,)),
        ("number", ("٣",)),
        ("date", ("2026-02-30",)),
        ("date", (["hunter2"],)),
        ("date", ("2026-03-05", "hunter2?")),
        ("time", ("14:30",)),
        ("time", (AFTERNOON, "Mars/Olympus")),
        ("datetime", ("2026-03-05T14:30:00",)),
    ],
)
def test_filters_refuse_other_values_without_repeating_them(filter_name: str, arguments: tuple[Any, ...]) -> None:
    with pytest.raises(ValueRefused) as caught:
        _in("en", filter_name, *arguments)
    if "hunter2?" not in arguments:  # the style stands in the template, not in the context
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("name", ["attr", "safe", "tojson", "format", "center", "indent", "batch", "random"])
def test_filters_that_are_a_danger_are_not_there(name: str) -> None:
    assert name not in ALLOWED


def test_a_filter_outside_of_a_rendering_has_no_locale() -> None:
    with pytest.raises(LookupError):
        filters.money(EUROS)
