"""Every block of code in the documentation is right as far as that can be seen without running it.

Commands parse, Python compiles and imports what exists, JSON, TOML and YAML parse, and messages keep to the
contract. What cannot be, says so on the line before it: `<!-- not checked: why -->`.
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import shlex
import subprocess
import textwrap
import tomllib
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import typer
import yaml
from typer.main import get_command

from notifier.cli.app import app
from notifier.domain.message import Message
from tests.support.pages import LISTED, stale_entries

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

_BLOCK = re.compile(
    r"^(?: *<!-- not checked: (?P<why>[^\n]+) -->\n\n?)?"
    r"(?P<indent> *)```(?P<language>\S*)[^\n]*\n(?P<code>.*?)^(?P=indent)```",
    re.MULTILINE | re.DOTALL,
)
#: What stands for a value of the reader's own.
_PLACEHOLDERS = {"ID": "01a2047b-fb2a-7da5-858e-3be3814fe3b0", "JOB": "01a2047b-fb2a-7da5-858e-3be3814fe3b0"}
#: The base of everything that is wrong with a command line.
_CLICK_EXCEPTION: type[Exception] = typer.BadParameter.__mro__[2]
#: Packages of readers, which the service does not need.
_THEIRS = {"myapp", "shop"}


class Block(NamedTuple):
    page: str
    language: str
    code: str

    def __str__(self) -> str:
        return f"{self.page}:\n{self.code}"


def blocks(*languages: str) -> list[Block]:
    return [
        # "{…}" stands for what the reader has.
        Block(str(page.relative_to(ROOT)), match["language"], textwrap.dedent(match["code"]).replace("{…}", "{}"))
        for page in PAGES
        for match in _BLOCK.finditer(page.read_text("utf-8"))
        if match["language"] in languages and match["why"] is None
    ]


def commands(block: Block) -> list[str]:
    """Lines that call `notifier`; in a console, those after a prompt, with what belongs to them."""
    joined = block.code.replace("\\\n", " ")
    lines = re.findall(r"^\s*(?:\$ )?(?:[A-Z_]+=\S+ )*(notifier [a-z].*)$", joined, re.MULTILINE)
    lines = [line for line in lines if "──" not in line]
    return [re.split(r" [|>&]| < |;", re.sub(r"\s+#.*", "", line))[0] for line in lines]


def problem_of(program: Any, line: str) -> str:
    """Why the command line would refuse it; "" if it would run."""
    words = [_PLACEHOLDERS.get(word, word) for word in shlex.split(line)[1:]]
    command, context = program, typer.Context(program)
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
        context = typer.Context(command, parent=context, info_name=command.name)
    try:
        command.parse_args(context, words)
    except typer.Exit:
        return ""
    except _CLICK_EXCEPTION as error:
        return f"{type(error).__name__}: {error}"
    return ""


def test_every_command_in_a_block_would_be_taken_by_the_command_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_OUTBOX_URL", "postgresql://shop@127.0.0.1/shop")
    program = get_command(app)
    indented = [
        Block(page.name, "", line)
        for page in PAGES
        for line in re.findall(r"^ {4}\$? ?(notifier [a-z].*)$", page.read_text("utf-8"), re.MULTILINE)
    ]
    # Not the usage lines of the reference, nor drawings.
    indented = [block for block in indented if not re.search(r"[\[(]", block.code)]
    every = [*blocks("", "console", "sh", "bash"), *indented]
    lines = [(block.page, line) for block in every for line in commands(block)]
    assert len(lines) > 100
    wrong = [(page, line, problem) for page, line in lines if (problem := problem_of(program, line))]
    assert wrong == [], "\n".join(map(str, wrong))


@pytest.mark.parametrize("block", blocks("python"), ids=lambda block: block.page)
def test_python_compiles_and_imports_what_there_is(block: Block) -> None:
    for node in ast.walk(ast.parse(block.code)):
        if isinstance(node, ast.Import):
            assert all(exists(alias.name) for alias in node.names), ast.unparse(node)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            assert exists(node.module), ast.unparse(node)
            if node.module.partition(".")[0] == "notifier":
                assert all(has_name(node.module, alias.name) for alias in node.names), ast.unparse(node)


def exists(module: str) -> bool:
    return module.partition(".")[0] in _THEIRS or find_spec(module) is not None


def has_name(module: str, name: str) -> bool:
    """Modules for Django are read: to import them, they need a whole project."""
    if "django" not in module:
        return hasattr(importlib.import_module(module), name)
    spec = find_spec(module)
    assert spec is not None
    assert spec.origin is not None
    return re.search(rf"\b{name}\b", Path(spec.origin).read_text("utf-8")) is not None


def test_json_parses_and_messages_keep_to_the_contract() -> None:
    found = [json.loads(block.code) for block in blocks("json")]
    assert found
    messages = [one for one in found if isinstance(one, dict) and {"to", "template"} <= one.keys()]
    assert messages
    for message in messages:
        # Over HTTP the key says who the producer is.
        Message.model_validate_json(json.dumps({"producer": "shop", "idempotency_key": "k"} | message))


def test_toml_and_yaml_parse() -> None:
    for block in blocks("toml"):
        assert tomllib.loads(block.code), str(block)
    for block in blocks("yaml"):
        assert yaml.safe_load(block.code), str(block)


def test_what_a_shell_runs_is_shell() -> None:
    for block in blocks("sh", "bash"):
        checked = subprocess.run(["/bin/sh", "-n"], input=block.code, text=True, capture_output=True, check=False)
        assert checked.returncode == 0, f"{block}\n{checked.stderr}"


def test_every_block_that_is_said_not_to_run_is_there_and_so_is_what_runs_it_instead() -> None:
    assert list(stale_entries()) == []
    reasons = [why for entries in LISTED["not_run"].values() for why in entries.values()]
    assert reasons
    assert not [
        path for why in reasons for path in re.findall(r"tests/\S+\.py", why) if not (ROOT / path).exists()
    ]
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert {target for why in reasons for target in re.findall(r"\bmake ([a-z-]+)", why)} <= targets
