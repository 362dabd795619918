"""`make examples`: every page of the documentation, block after block as a reader pastes them, on one service.

Not part of `make test`, which runs the README alone (`test_up.py`). What is not run has its reason in
`docs/blocks.toml`; the last lines count both.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from notifier.dev.machine import free_port, make_temporary_folder
from tests.support.pages import LISTED, PAGES, PageRun, blocks_of, readers_values
from tests.support.up import Up


class Terminal(NamedTuple):
    """One into which the lines of `up` were pasted."""

    environment: dict[str, str]
    values: dict[str, str]


COUNTED: Counter[str] = Counter()


@pytest.fixture(scope="module")
def terminal() -> Iterator[Terminal]:
    folder = make_temporary_folder()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NOTIFIER_API_PORT", str(free_port()))
        with Up(folder) as up:
            yield Terminal(up.environment, readers_values(up))
    shutil.rmtree(folder)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if any(block.is_code for block in blocks_of(page))], ids=lambda page: page.name
)
def test_the_blocks_of_a_page_run_in_order(terminal: Terminal, page: Path, tmp_path: Path) -> None:
    ran, left = PageRun(tmp_path, terminal.environment, terminal.values).run(page)
    COUNTED["ran"] += ran
    COUNTED["not run"] += left


def test_what_was_counted() -> None:
    every = [block for page in PAGES for block in blocks_of(page)]
    data = Counter(block.language or "output" for block in every if not block.is_code)
    print(f"\nblocks that ran: {COUNTED['ran']}; that did not, {COUNTED['not run']}:")
    for page, entries in LISTED["not_run"].items():
        for start, why in entries.items():
            print(f"  {page}: {start.splitlines()[0]}: {why}")
    print("only checked, or shown:", ", ".join(f"{count} {kind}" for kind, count in data.most_common()))
    assert COUNTED.total() == sum(block.is_code for block in every)
