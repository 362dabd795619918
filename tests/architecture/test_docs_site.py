"""The site that `make docs` builds from docs/, and the examples that the code must agree with."""

from __future__ import annotations

import json
import re
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest

from notifier.callbacks.payload import StatusCallback
from notifier.domain.statuses import FINAL_STATUSES, Reason

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
BUILD = runpy.run_path(str(DOCS / "build.py"))


def pages(entry: Any) -> list[str]:
    match entry:
        case str():
            return [entry]
        case dict():
            return [name for value in entry.values() for name in pages(value)]
        case _:
            return [name for one in entry for name in pages(one)]


def test_every_page_is_in_the_navigation_once() -> None:
    nav = tomllib.loads((DOCS / "zensical.toml").read_text("utf-8"))["project"]["nav"]
    written = [str(path.relative_to(DOCS)) for path in DOCS.rglob("*.md")]
    assert sorted(pages(nav)) == sorted([*written, *BUILD["GUESTS"]])


@pytest.mark.parametrize(
    ("written", "built"),
    [
        ("[x](../reference/cli.md#a)", "[x](../reference/cli.md#a)"),
        ("[`chaos/kills.py`](../../chaos/kills.py)", "`chaos/kills.py`"),
        ("[a receiver](../../chaos/kills.py)", "a receiver (`chaos/kills.py`)"),
        ("[new](../../CHANGELOG.md)", "[new](../CHANGELOG.md)"),
        ("## `[retry.<lane>]` now", "## `[retry.<lane>]` now { #retrylane-now }"),
        (
            "text\n- one\n  more\n\n  ```\n  a\n\n  # b\n  ```",
            "text\n\n- one\n    more\n\n    ```\n    a\n\n    # b\n    ```",
        ),
        ("1. one\n   - two\n\n     three", "1. one\n\n    - two\n\n        three"),
        ("```\n- no list\n# no heading\n```", "```\n- no list\n# no heading\n```"),
    ],
)
def test_a_page_is_changed_only_as_the_generator_needs_it(written: str, built: str) -> None:
    assert BUILD["page"](written, DOCS / "how-to" / "operate.md") == built


def test_a_page_beside_docs_links_into_it() -> None:
    assert BUILD["page"]("[s](docs/how-to/sizing.md)", ROOT / "CHANGELOG.md") == "[s](how-to/sizing.md)"


def test_the_shown_callbacks_are_what_the_code_writes() -> None:
    text = (DOCS / "reference" / "callbacks.md").read_text("utf-8")
    bodies = [
        StatusCallback.model_validate_json(body, strict=True)
        for body in re.findall(r"```json\n(.+?)```", text, re.DOTALL)
    ]
    shown = [json.loads(body) for body in re.findall(r"```json\n(.+?)```", text, re.DOTALL)]
    for body, written in zip(bodies, shown, strict=True):
        assert list(written["data"]) == list(type(body.data).model_fields)
        assert json.loads(body.model_dump_json()) == written
    assert {body.data.status for body in bodies} >= FINAL_STATUSES
    assert {body.data.reason for body in bodies} - {None} <= set(Reason)
