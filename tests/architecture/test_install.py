"""Nobody is sent to PyPI for notifier: there, the name is another project's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
_PLACES = (
    *ROOT.glob("*.md"),
    *(ROOT / "docs").rglob("*.md"),
    *(path for path in (ROOT / "examples").rglob("*") if path.suffix in (".md", ".py", ".sh", ".mjs")),
    *(ROOT / "notifier").rglob("*.py"),
    *(path for path in (ROOT / "deploy").rglob("*") if path.is_file() and path.suffix != ".json"),
    *(ROOT / name for name in ("Dockerfile", "Makefile", "docker-compose.yml", "notifier.toml")),
)
#: A command that installs, to the end of its line or code span.
_INSTALL = re.compile(r"\b(?:pipx?|uv|poetry|pdm)\b[^\n`|]*?\b(?<!un)(?:install|add)\b[^\n`|]*")
#: By its name, so from an index: not a path, not an address.
_BY_NAME = re.compile(r"(?<![\w./:@-])notifier(?:\[[\w, ]*\])?(?=[\s'\"=<>~!;]|$)")


def from_an_index(text: str) -> list[str]:
    """The commands that would take notifier from PyPI, alone or beside an index of one's own."""
    commands = [found.group() for found in _INSTALL.finditer(text.replace("\\\n", " "))]
    return [line for line in commands if _BY_NAME.search(line) and " --index-url " not in line]


@pytest.mark.parametrize(
    ("line", "is_wrong"),
    [
        ("pip install 'notifier[http]'", True),
        ("run `pip install notifier celery` first", True),
        ("uv add notifier", True),
        ("pip install --extra-index-url https://x.example.com/simple notifier==1", True),
        ("pip install --index-url https://x.example.com/simple 'notifier[http]==0.1.0'", False),
        ("pip install './notifier-0.1.0-py3-none-any.whl[http]'", False),
        ("/opt/notifier/bin/pip install '/src/notifier[http]'", False),
        ("pip uninstall notifier", False),
    ],
)
def test_a_command_that_asks_an_index_is_seen(line: str, is_wrong: bool) -> None:
    assert bool(from_an_index(line)) is is_wrong


def test_no_text_tells_to_install_notifier_from_an_index() -> None:
    wrong = {str(path.relative_to(ROOT)): from_an_index(path.read_text("utf-8")) for path in _PLACES}
    assert {path: lines for path, lines in wrong.items() if lines} == {}
