"""What a reader relies on: imports between modules go one way, and a class name means one thing."""

from __future__ import annotations

import ast
from collections import defaultdict
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

ROOT = Path(__file__).parents[2]


@cache
def trees() -> dict[str, ast.Module]:
    """Of every module. Not at import: each process that collects the tests would parse them all."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
            path.read_bytes()
        )
        for path in (ROOT / "notifier").rglob("*.py")
    }


def imports_of(module: str) -> set[str]:
    """Modules of ours that `module` imports anywhere: at the top, within functions, for type checkers."""
    found: set[str] = set()
    for node in ast.walk(trees()[module]):
        if isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}:{node.lineno}: a relative import"
            source = str(node.module)
            names = {f"{source}.{alias.name}" for alias in node.names}
            found.update(name if name in trees() else source for name in names)
    return found.intersection(trees()) - {module}


def test_imports_make_no_circle() -> None:
    try:
        TopologicalSorter({module: imports_of(module) for module in trees()}).prepare()
    except CycleError as error:
        raise AssertionError("a circle of imports: " + " <- ".join(error.args[1])) from None


def test_no_two_modules_define_a_public_class_of_one_name() -> None:
    homes: dict[str, list[str]] = defaultdict(list)
    for module, tree in trees().items():
        for node in tree.body:
            if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
                homes[node.name].append(module)
    assert {name: modules for name, modules in homes.items() if len(modules) > 1} == {}
