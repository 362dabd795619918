from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

#: file → text; what is not given is filled in by the factory.
Files = dict[str, str]
MakeTemplate = Callable[..., Path]


@pytest.fixture
def make_template(tmp_path: Path) -> MakeTemplate:
    """Write a template below tmp_path: `make_template("email/hello", body="…", files={"fr/body.txt": "…"})`.

    Without `toml` it declares a `name` (string) and has one sample. Returns the folder of templates.
    """

    def make(
        name: str = "email/hello",
        *,
        toml: str | None = None,
        body: str = "Hello {{ name }}",
        html: str | None = None,
        files: Files | None = None,
    ) -> Path:
        declared = 'description = "A greeting."\n[variables]\nname = { type = "string" }\n'
        sample = '[[samples]]\nname = "plain"\ncontext = { name = "Ada" }\n'
        texts = {"template.toml": declared + sample if toml is None else toml, "body.txt": body}
        if name.startswith("email/"):
            texts["subject.txt"] = "Hello"
        if html is not None:
            texts["body.html"] = html
        for file, text in (texts | (files or {})).items():
            path = tmp_path / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, "utf-8")
        return tmp_path

    return make
