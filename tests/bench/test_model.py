"""The model of limits: what it predicts, what it is fitted on, and what its table says."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bench import cores, model, scaling
from bench.model import Costs, Host, Layout

COSTS = Costs(
    cpu_us={"workers": 200, "intake": 50, "postgresql": 100, "rabbitmq": 30, "mail_server": 20},
    wal_bytes=4000,
    transactions=0.03,
    disk_bytes=400e6,
    disk_flushes=2000,
)
ALL = Layout([Host(2, model.PARTS)])


def test_cores_of_one_host_are_shared_by_all_parts() -> None:
    found = model.predict(COSTS, ALL)
    assert found.rate == pytest.approx(2e6 / 400)
    assert found.limit == "cores for everything"


def test_the_least_limit_is_the_rate() -> None:
    hosts = [Host(4, ["postgresql"]), Host(1, ["rabbitmq"]), Host(8, ["workers", "intake"], 10)]
    assert model.predict(COSTS, Layout(hosts)).limit == "cores for rabbitmq"
    assert model.predict(replace(COSTS, disk_bytes=4e6), Layout(hosts)).rate == 1000
    assert model.predict(replace(COSTS, disk_flushes=3), Layout(hosts)).rate == pytest.approx(100)
    assert model.predict(replace(COSTS, process=0.5), Layout(hosts, workers=1)).rate == 2500


def test_cells_multiply_the_rate_and_not_the_limits() -> None:
    one, four = model.predict(COSTS, ALL), model.predict(COSTS, replace(ALL, cells=4))
    assert four.rate == 4 * one.rate
    assert four.limits == one.limits


def test_fitted_costs_give_back_what_they_are_fitted_on() -> None:
    fitted = model.fit(COSTS, cores=2, rate=4000, rate_of_one_worker=3000)
    (two, one) = model.check(fitted, {(2, 2): 4000, (2, 1): 3000})
    assert (two["predicted"], one["predicted"]) == (4000, 3000)
    assert (two["off_by"], one["off_by"]) == (0, 0)


def test_check_puts_a_prediction_beside_what_it_was_not_fitted_on() -> None:
    fitted = model.fit(COSTS, cores=2, rate=4000, rate_of_one_worker=3000)
    (row,) = model.check(fitted, {(1, 4): 2500})
    assert row["predicted"] == 2000
    assert row["off_by"] == pytest.approx(-0.2)


def test_table_has_each_check_and_each_size() -> None:
    fitted = model.fit(COSTS, cores=2, rate=4000, rate_of_one_worker=3000)
    text = model.table(
        {
            "costs": model.as_json(fitted),
            "fitted_on": [[2, 2], [2, 1]],
            "checks": model.check(fitted, {(2, 2): 4000, (1, 4): 2500}),
        }
    )
    assert "| 2 cores, 2 workers | 4 000 | 4 000 | +0%, fitted |" in text
    assert "| 1 core, 4 workers | 2 500 | 2 000 | -20% |" in text
    assert all(f"| {name} |" in text for name in model.SIZES)


def test_disk_is_measured_and_left_clean(tmp_path: Path) -> None:
    assert scaling.flushes_a_second(tmp_path, 8192, 0.05) > 0
    assert list(tmp_path.iterdir()) == []


@pytest.mark.skipif(not cores.available(), reason="this system does not pin processes")
def test_cores_are_given_back() -> None:
    before = cores.available()
    with cores.only(1, []):
        assert cores.available() == 1
    assert cores.available() == before
