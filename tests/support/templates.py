"""Small templates, for tests that are about something else."""

from __future__ import annotations

from pathlib import Path


def write_templates(root: Path) -> Path:
    """Write two templates below `root`: email/hello (a variable `name`) and sms/code (a variable `code`, held)."""
    mail = root / "email" / "hello"
    mail.mkdir(parents=True)
    (mail / "template.toml").write_text(
        'description = "says hello"\n[variables.name]\ntype = "string"\n'
        '[[samples]]\nname = "one"\ncontext = { name = "Ann" }\n'
    )
    (mail / "subject.txt").write_text("Hello {{ name }}")
    (mail / "body.txt").write_text("Hello {{ name }},\nyours, the shop.\n")
    (mail / "body.html").write_text("<p>Hello <b>{{ name }}</b></p>")
    text = root / "sms" / "code"
    text.mkdir(parents=True)
    (text / "template.toml").write_text(
        'description = "a code"\n[variables.code]\ntype = "string"\nsecret = true\n'
        '[[samples]]\nname = "one"\ncontext = { code = "123456" }\n'
    )
    (text / "body.txt").write_text("Your code is {{ code }}.")
    return root


def write_template(root: Path, name: str, properties: str) -> None:
    """Write one more mail template without variables, with these lines in its template.toml."""
    folder = root / "email" / name
    folder.mkdir(parents=True)
    (folder / "template.toml").write_text(f'description = "for a test"\n{properties}\n')
    (folder / "subject.txt").write_text("Something")
    (folder / "body.txt").write_text("Something happened.\n")
