"""docs/reference/cli.md knows every command and every option."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from notifier.cli.app import app

REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"
SHARED = {"--help", "-h", "--json"}


def commands(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, found in getattr(command, "commands", {}).items():
        if not hasattr(found, "commands") or found.invoke_without_command:
            yield f"{path} {name}", found
        yield from commands(found, f"{path} {name}")


COMMANDS = dict(commands(get_command(app), "notifier"))


def sections() -> dict[str, str]:
    parts = re.split(r"^## `(.+)`$", REFERENCE.read_text("utf-8"), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def shared_options() -> dict[str, str]:
    """What a section names in capitals: `PAGE` → the row about `--limit` and `--before`."""
    return dict(re.findall(r"^\| `([A-Z]+)` \| (.+) \|$", REFERENCE.read_text("utf-8"), flags=re.MULTILINE))


def test_every_command_has_a_section_and_every_section_a_command() -> None:
    assert set(sections()) == set(COMMANDS)


@pytest.mark.parametrize("name", COMMANDS)
def test_a_section_has_every_option_and_an_example(name: str) -> None:
    section = sections()[name]
    section += "".join(row for group, row in shared_options().items() if re.search(rf"\b{group}\b", section))
    options = {option for parameter in COMMANDS[name].params for option in parameter.opts if option[0] == "-"}
    missing = {option for option in options - SHARED if not re.search(rf"{option}\b", section)}
    assert not missing
    assert f"    $ {name}" in section or f"| {name}" in section
