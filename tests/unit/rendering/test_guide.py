"""docs/how-to/templates.md shows a template that works, and names everything that there is."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from notifier.config.settings import bundled
from notifier.domain.statuses import Channel
from notifier.rendering import Renderer, Type, check_templates
from notifier.rendering.filters import ALLOWED, STYLES

GUIDE = Path(__file__).parents[3].joinpath("docs/how-to/templates.md").read_text("utf-8")
FILES = ("template.toml", "subject.txt", "body.txt", "body.html")
#: Second names of filters that the guide names by their first.
ALIASES = {"d", "e", "forceescape"}


@pytest.fixture
def example(tmp_path: Path) -> Path:
    """The files of the guide's example, with the layout that ships."""
    shutil.copytree(bundled("templates") / "email" / "_layout", tmp_path / "email" / "_layout")
    folder = tmp_path / "email" / "table_ready"
    folder.mkdir()
    blocks = re.findall(r"```(?:toml|jinja)\n(.*?)```", GUIDE, re.DOTALL)
    for file, block in zip(FILES, blocks, strict=False):
        (folder / file).write_text(re.sub(r"^   ", "", block, flags=re.MULTILINE), "utf-8")
    return tmp_path


def test_the_example_of_the_guide_is_right(example: Path) -> None:
    assert [str(problem) for problem in check_templates(example)] == []


def test_the_example_of_the_guide_renders(example: Path) -> None:
    renderer = Renderer(example)
    for sample in renderer.template(Channel.EMAIL, "table_ready").samples:
        rendered = renderer.render(Channel.EMAIL, "table_ready", "en-GB", sample.context)
        assert "Your table is ready at 19:30 on Thursday, 5 March 2026." in rendered.text


def test_the_guide_names_every_type_filter_and_style() -> None:
    words = set(re.findall(r"`([a-z_]+)`|\| ([a-z]+)", GUIDE))
    named = {word for pair in words for word in pair}
    assert {*Type, *ALLOWED, *STYLES} - ALIASES <= named
