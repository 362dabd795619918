"""When a median holds, and what a mail costs, out of the rounds."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pytest

from bench.service import Notifier
from bench.subjects import Subject
from bench.throughput import HOLDS_TO, Measurement, Rates, take_turns
from bench.usage import Usage


def rates(*values: float) -> Rates:
    return Rates([Measurement(value, 100, 1.0, True, {}) for value in values])


def test_median_holds_as_far_as_one_round_moves_it() -> None:
    assert rates(100, 100, 100).holds_to == 0
    # Without the least one the median is 226, without the most one 202.
    assert rates(221, 183, 231).holds_to == pytest.approx(226 / 202 - 1)
    assert rates(100).holds_to == math.inf


def test_one_far_round_of_five_does_not_move_the_median() -> None:
    assert rates(100, 101, 99, 100, 300).holds_to < HOLDS_TO


def measured(series: Mapping[str, Sequence[float]]) -> dict[str, Rates]:
    """Three rounds, and more where needed, of subjects whose rates are given."""

    def measure_one(subject: Subject, so_far: Rates) -> Measurement:
        return Measurement(series[subject.name][len(so_far.rates)], 100, 1.0, True, {})

    return take_turns([Notifier(name=name) for name in series], 3, measure_one, lambda _: None)


def test_only_who_is_unsteady_has_more_rounds() -> None:
    found = measured({"steady": [100.0] * 9, "unsteady": [100.0, 150, 200, 160, 155, 150, 150, 150, 150]})
    assert len(found["steady"].rates) == 3
    assert 3 < len(found["unsteady"].rates) < 9
    assert found["unsteady"].holds_to <= HOLDS_TO


def test_rounds_have_an_end() -> None:
    found = measured({"wild": [10.0**number for number in range(9)]})
    assert len(found["wild"].rates) == 9


def test_costs_of_a_mail_are_medians_of_whole_rounds() -> None:
    rounds = [
        Measurement(1, 100, 1, True, {"intake": Usage(cpu_seconds=seconds)}, (1000.0 * seconds, 10))
        for seconds in (1.0, 2.0, 9.0)
    ]
    rounds.append(Measurement(1, 100, 1, False, {"intake": Usage(cpu_seconds=99)}, (9e9, 10)))
    found = Rates(rounds)
    assert found.cpu_us() == {"intake": 20_000}
    assert found.written() == (20, 0.1)
