"""Tables change before programs do, so a revision may only add: programs of the version before go on beside it."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from notifier.store.schema.revisions import UNRELEASED
from tests.support.next_version import write_next_revisions

VERSIONS = sorted((Path(__file__).parents[2] / "migrations" / "versions").glob("[0-9]*.py"))


def problems(source: str) -> list[str]:
    """What in `upgrade` does more than add, or keeps programs waiting; nothing if the revision says why it may."""
    module = ast.parse(source)
    if _explanation(module):
        return []
    (upgrade,) = (node for node in module.body if isinstance(node, ast.FunctionDef) and node.name == "upgrade")
    calls = list(_operations(upgrade))
    made = {_first_string(call) for name, call in calls if name == "create_table"}
    found = [text for name, call in calls if (text := _problem(name, call, made))]
    changed = {_first_string(call) for name, call in calls if name == "add_column"} - made
    if len(changed) > 1:
        # It would hold the one and wait for the other, and a program the other way round.
        found.append(f"{' and '.join(sorted(changed))} need a revision each")
    return found


def _explanation(module: ast.Module) -> str:
    """The value of a global `not_additive = "…"`."""
    for node in module.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "not_additive":
            return str(ast.literal_eval(node.value)).strip()
    return ""


def _operations(upgrade: ast.FunctionDef) -> Iterator[tuple[str, ast.Call]]:
    """Calls of Alembic's `op`; `op.f` only marks a name."""
    for node in ast.walk(upgrade):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        if ast.unparse(node.func.value) == "op" and node.func.attr != "f":
            yield node.func.attr, node


def _problem(name: str, call: ast.Call, made: set[str]) -> str | None:
    match name:
        case "create_table":
            return None
        case "create_index":
            table = str(ast.literal_eval(call.args[1]))
            return None if table in made else f"an index on {table} stops its writers while it is built"
        case "add_column":
            return _problem_of_column(ast.unparse(call.args[1]), call.args[1])
    return f"op.{name} does more than add"


def _problem_of_column(text: str, column: ast.expr) -> str | None:
    assert isinstance(column, ast.Call)
    options = {option.arg: ast.unparse(option.value) for option in column.keywords}
    if options.get("nullable") == "False" and "server_default" not in options:
        return f"{text}: programs of the version before leave it out"
    if "ForeignKey" in text or {"unique", "index"} & options.keys():
        return f"{text}: a constraint looks at every row"
    return None


def _first_string(call: ast.Call) -> str:
    return str(ast.literal_eval(call.args[0]))


def test_a_revision_after_the_first_only_adds_or_says_why_not() -> None:
    found = {path.name: problems(path.read_text("utf-8")) for path in VERSIONS[1:]}
    assert not any(found.values()), found


def test_no_revision_has_a_number_from_before_the_first_release() -> None:
    """Databases that still have such tables are told apart from later ones by it."""
    assert UNRELEASED.isdisjoint(path.name[:4] for path in VERSIONS)
    assert VERSIONS[0].name.startswith("0001_")


@pytest.mark.parametrize("path", VERSIONS, ids=lambda path: path.stem)
def test_the_name_of_a_file_begins_with_its_revision(path: Path) -> None:
    """`store.revisions` reads no more of it than that."""
    assert f'\nrevision = "{path.name[:4]}"\n' in path.read_text("utf-8")
    assert path.name[4] == "_"


def test_what_the_upgrade_test_runs_keeps_to_the_rule(tmp_path: Path) -> None:
    sources = [path.read_text("utf-8") for path in write_next_revisions(tmp_path / "next").glob("*.py")]
    assert len(sources) > 1
    assert [problems(source) for source in sources] == [[]] * len(sources)


def test_an_explanation_allows_what_is_not_only_added() -> None:
    source = 'def upgrade() -> None:\n    op.drop_table("old_things")\n'
    assert problems(source) == ["op.drop_table does more than add"]
    assert problems(f'not_additive = "no version since 2.0 reads it"\n{source}') == []


@pytest.mark.parametrize(
    "operation",
    [
        'op.drop_column("notifications", "detail")',
        'op.rename_table("events", "history")',
        'op.alter_column("notifications", "reference", nullable=False)',
        'op.alter_column("notifications", "reference", type_=sa.Integer())',
        'op.execute("UPDATE states SET detail = NULL")',
        'op.add_column("events", sa.Column("note", sa.Text(), nullable=False))',
        'op.add_column("events", sa.Column("note", sa.Text(), sa.ForeignKey("notes.id")))',
        'op.create_index("ix_events_kind", "events", ["kind"])',
        'op.add_column("events", sa.Column("a", sa.Text())); op.add_column("attempts", sa.Column("a", sa.Text()))',
    ],
)
def test_what_breaks_the_version_before_is_found(operation: str) -> None:
    assert len(problems(f"def upgrade() -> None:\n    {operation}\n")) == 1


def test_additions_are_free() -> None:
    source = """
def upgrade() -> None:
    op.create_table("notes", sa.Column("id", sa.UUID(), nullable=False))
    op.create_index("ix_notes_id", "notes", ["id"])
    op.add_column("events", sa.Column("note", sa.Text(), nullable=True))
    op.add_column("events", sa.Column("size", sa.Integer(), server_default=sa.text("0"), nullable=False))
"""
    assert problems(source) == []
