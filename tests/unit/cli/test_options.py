"""Options that several commands share."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import typer
from typer.testing import CliRunner

from notifier.cli.options import FilterOptions, grouped
from notifier.domain.statuses import Reason, Status


@dataclass(frozen=True)
class Fruit:
    """A group of two options."""

    kind: Annotated[str, typer.Option(help="Which.")] = "apple"
    number: Annotated[int, typer.Option("--number", "-n")] = 1


@dataclass(frozen=True)
class DriedFruit(Fruit):
    """A group that takes the options of another one."""

    number: Annotated[int, typer.Option("--slices")] = 9


def pick(*arguments: str) -> str:
    app = typer.Typer()

    @app.command()
    @grouped
    def command(basket: str, *, fruit: Fruit, fast: bool = False) -> None:
        """Picks."""
        print(basket, fruit.kind, fruit.number, fast)

    return CliRunner().invoke(app, arguments).output.strip()


def test_the_fields_of_a_group_are_options() -> None:
    assert pick("red") == "red apple 1 False"
    assert pick("red", "--kind", "pear", "-n", "2", "--fast") == "red pear 2 True"


def test_a_group_can_change_an_option_of_another_one() -> None:
    app = typer.Typer()

    @app.command()
    @grouped
    def command(*, fruit: DriedFruit) -> None:
        print(fruit.kind, fruit.number)

    assert CliRunner().invoke(app, ["--slices", "3"]).output == "apple 3\n"


def test_help_is_that_of_the_command_and_of_its_fields() -> None:
    shown = pick("--help")
    assert "Picks." in shown
    assert "Which." in shown


def test_conditions_are_read_into_one_filter() -> None:
    assert FilterOptions().is_empty()
    options = FilterOptions(producer="shop")
    assert not options.is_empty()
    found = options.filter(status=Status.FAILED, reason=Reason.EXPIRED)
    assert (found.producer, found.status, found.reason, found.template) == ("shop", "failed", "expired", None)
