"""Records are values, as dataclasses are."""

from __future__ import annotations

from dataclasses import replace

from notifier.domain.record import record


@record(frozen=True, slots=True)
class Place:
    name: str
    number: int = 1


def test_a_record_is_a_value() -> None:
    place = Place("a")
    assert place == Place("a", 1)
    assert len({place, Place("a"), Place("b")}) == 2
    assert replace(place, number=2) == Place("a", 2)
    assert not hasattr(place, "__dict__")
