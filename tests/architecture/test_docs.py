"""What the code has, the documentation has: fails when something is added and not documented."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

from notifier.api.record_metrics import KnownNames, RecordState, broker_families, record_families
from notifier.cli.app import app
from notifier.config.callbacks import CallbackTable
from notifier.config.console import SignInTable
from notifier.config.producers import ProducerTable
from notifier.config.settings import Settings
from notifier.config.structure import ProviderTable, Sender, Structure
from notifier.domain.message import Message, json_schema
from notifier.domain.producers import ProducerProof
from notifier.domain.retry_policy import LaneRetry
from notifier.domain.statuses import (
    CallbackFailure,
    CallbackState,
    Channel,
    Lane,
    OnUnknown,
    Outcome,
    Reason,
    Status,
    SuppressionReason,
)
from notifier.store.metrics import Gauges
from notifier.store.schema.all_tables import Base
from notifier.telemetry.metrics import REGISTRY

ROOT = Path(__file__).parents[2]
REFERENCE = ROOT / "docs" / "reference"
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")])

#: Call → position of the code among its arguments.
_CODE_ARGUMENT = {"Fault": 1, "_refused": 0, "rule_error": 0, "_bad": 1}


#: Kind of metric → what its samples have after its name.
_SUFFIXES = {"counter": "_total", "info": "_info"}


def text(name: str) -> str:
    return (REFERENCE / name).read_text("utf-8")


def missing(names: Iterable[str], page: str) -> list[str]:
    """Those that the page does not have as a `code span`."""
    spans = set(re.findall(r"`([^`\n]+)`", page))
    return sorted(name for name in names if name not in spans)


def test_every_setting_is_documented() -> None:
    fields = [name for name, field in Settings.model_fields.items() if not field.exclude]
    assert not missing([f"NOTIFIER_{name.upper()}" for name in fields], text("settings.md"))


@pytest.mark.parametrize(
    "table", [Structure, Sender, ProviderTable, LaneRetry, CallbackTable, ProducerTable, SignInTable]
)
def test_every_key_of_notifier_toml_is_documented(table: Any) -> None:
    assert not missing(table.model_fields, text("settings.md"))


@pytest.mark.parametrize(
    "words",
    [
        Status,
        Reason,
        SuppressionReason,
        Outcome,
        OnUnknown,
        Lane,
        Channel,
        CallbackState,
        CallbackFailure,
        ProducerProof,
    ],
)
def test_every_word_of_the_closed_lists_is_documented(words: type[StrEnum]) -> None:
    assert not missing(words, text("statuses.md"))


def test_every_field_of_a_message_and_a_batch_is_documented() -> None:
    batch = json_schema()["$defs"]["Batch"]["properties"]
    assert not missing([*Message.model_fields, *batch], text("message.md"))


def test_every_fault_code_is_documented() -> None:
    modules = [path for path in (ROOT / "notifier").rglob("*.py") if "dev" not in path.relative_to(ROOT).parts]
    codes = {code for path in modules for code in fault_codes(path)}
    assert {"not_e164", "missing", "celery_message", "bad_time", "not_an_envelope"} <= codes
    assert not missing(codes, text("message.md"))


def test_every_command_is_documented() -> None:
    headings = re.findall(r"^## `(.+)`$", text("cli.md"), flags=re.MULTILINE)
    assert set(commands(get_command(app), "notifier")) <= set(headings)


def test_every_log_event_is_documented() -> None:
    modules = [path for path in (ROOT / "notifier").rglob("*.py") if "dev" not in path.relative_to(ROOT).parts]
    events = {event for path in modules for event in log_events(path)}
    assert {"api.start", "deliver.batch", "upkeep.failed"} <= events
    assert not missing(events, text("log-events.md"))


def test_every_metric_is_documented_and_every_documented_one_exists() -> None:
    record = record_families(RecordState(Gauges((), 0, 0.0, (), 0)), KnownNames())
    families = (*REGISTRY.collect(), *record, *broker_families(None))
    names = {f"{one.name}{_SUFFIXES.get(one.type, '')}" for one in families if one.name[:8] == "notifier"}
    page = text("metrics.md")
    assert not missing(names, page)
    assert set(re.findall(r"`(notifier_\w+)`", page)) <= names


def test_every_command_that_a_page_shows_exists_with_these_options() -> None:
    program = get_command(app)
    shown = [(page.name, line) for page in PAGES for line in shown_commands(page)]
    assert len(shown) > 100
    assert [(page, line) for page, line in shown if not is_command(program, line.split()[1:])] == []


def test_every_shipped_template_is_mentioned() -> None:
    names = [path.parent.name for path in (ROOT / "templates").rglob("template.toml")]
    everything = "\n".join(page.read_text("utf-8") for page in PAGES)
    assert names
    assert not [name for name in names if name not in everything]


@pytest.mark.parametrize("table", Base.metadata.sorted_tables, ids=str)
def test_every_column_is_documented(table: Any) -> None:
    assert not missing(table.columns.keys(), about(table.name))


def test_every_module_on_the_walks_of_contributing_exists() -> None:
    walks = (ROOT / "CONTRIBUTING.md").read_text("utf-8").partition("## Where is")[2].partition("\n## ")[0]
    modules = re.findall(r"`([\w/]+\.py)`", walks)
    assert modules
    assert not [module for module in modules if not (ROOT / "notifier" / module).exists()]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", without_code(page)):
        path, _, heading = link.partition("#")
        if not re.match(r"\w+:", link):
            target = (page.parent / path).resolve() if path else page
            assert target.exists(), link
            assert not heading or heading in headings(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_page_names_a_path_of_the_machine_it_was_written_on(page: Path) -> None:
    assert not re.search(r"(?<![\w.])/(work|tmp/w|root)\b", page.read_text("utf-8"))


def fault_codes(path: Path) -> Iterator[str]:
    """The codes that a module writes down, in calls and in the table `_TEXTS`."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        found: list[ast.expr] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in _CODE_ARGUMENT:
            found = node.args[_CODE_ARGUMENT[node.func.id] :][:1]
        elif isinstance(node, ast.AnnAssign) and ast.unparse(node.target) == "_TEXTS" and node.value:
            found = [part.elts[0] for part in ast.walk(node.value) if isinstance(part, ast.Tuple)]
        yield from (code.value for code in found if isinstance(code, ast.Constant) and isinstance(code.value, str))


def log_events(path: Path) -> Iterator[str]:
    """The names that a module gives to its own log lines; the relay's lines are sentences."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Call) and re.fullmatch(r"log\.\w+|log_failure", ast.unparse(node.func)):
            found = [part.value for part in ast.walk(node.args[0]) if isinstance(part, ast.Constant)]
            yield from (str(event) for event in found if re.fullmatch(r"[a-z_]+(\.[a-z_]+)?", str(event)))


def commands(command: Any, path: str) -> Iterator[str]:
    for name, found in command.commands.items():
        if not hasattr(found, "commands") or found.invoke_without_command:
            yield f"{path} {name}"
        if hasattr(found, "commands"):
            yield from commands(found, f"{path} {name}")


def shown_commands(page: Path) -> list[str]:
    """Code that calls `notifier`, without quoted text and comments; not the usage lines of the reference."""
    page_text = page.read_text("utf-8")
    blocks = [
        match[1] for match in re.findall(r"^( *)```[^\n]*\n(.*?)^\1```", page_text, re.MULTILINE | re.DOTALL)
    ]
    code = "\n".join([*blocks, *re.findall(r"^ {4,}.*$", page_text, re.MULTILINE)])
    found = [
        *re.findall(r"^ *(?:\$ )?(notifier [a-z].*)$", code, re.MULTILINE),
        *re.findall(r"`(notifier [a-z][^`]*)`", page_text),
    ]
    lines = [re.sub(r"'[^']*'|\"[^\"]*\"|#.*|&&.*", "", line) for line in found]
    return [line for line in lines if not re.search(r"[\[|()]|  unix  ", line)]


def is_command(command: Any, words: list[str]) -> bool:
    while words and words[0] in getattr(command, "commands", {}):
        command, words = command.commands[words[0]], words[1:]
    known = {name for option in command.params for name in (*option.opts, *option.secondary_opts, "--help")}
    options = [word.partition("=")[0] for word in words if re.match(r"--?[a-z]", word)]
    is_whole = not words or not hasattr(command, "commands") or command.invoke_without_command
    return is_whole and set(options) <= known


def about(table: str) -> str:
    """What database.md says about one table: its section, or its line in a list of tables."""
    section = re.search(rf"^## `{table}`\n(.*?)(?=^## |\Z)", text("database.md"), re.MULTILINE | re.DOTALL)
    line = re.search(rf"^\| `{table}` \|.*$", text("database.md"), re.MULTILINE)
    return section[1] if section else line[0] if line else ""


def without_code(page: Path) -> str:
    return re.sub(r"^( *)```.*?^\1```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)


def headings(page: Path) -> set[str]:
    """Anchors as GitHub makes them."""
    titles = re.findall(r"^#+ (.+)$", without_code(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}
