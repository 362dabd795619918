"""One template file, parsed, checked and compiled: what a notification does not need is refused here.

Authors of templates are trusted with the words, not with the machine: a slip, or a pasted snippet, must not read
Python objects or make a text that fills the memory.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from types import CodeType, MappingProxyType
from typing import TypeAlias

from jinja2 import nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.meta import find_undeclared_variables

from notifier.rendering.filters import ALLOWED
from notifier.rendering.problems import TemplateProblem
from notifier.rendering.sandbox import ENVIRONMENT, PROVIDED
from notifier.rendering.time_limit import count_turns

_Referring: TypeAlias = nodes.Extends | nodes.Include | nodes.Import | nodes.FromImport


@dataclass(frozen=True, slots=True)
class Reference:
    """A file that a template extends, includes or imports."""

    name: str
    line: int


@dataclass(frozen=True, slots=True)
class Examined:
    #: None if there are problems.
    code: CodeType | None
    references: tuple[Reference, ...] = ()
    #: Variables that it takes from the context → the first line that does.
    variables: Mapping[str, int] = field(default_factory=dict)
    #: Names set or imported at its top: files that it extends or includes see them, too.
    assigned: frozenset[str] = frozenset()
    problems: tuple[TemplateProblem, ...] = ()


@lru_cache(maxsize=2048)
def examine(name: str, path: str, text: str) -> Examined:
    """A pure function of the text, cached because every edition shares the layout.

    `name` is what templates call the file; `path` is for messages.
    """
    try:
        tree = ENVIRONMENT.parse(text, name, path)
        # Before compiling: the optimiser would evaluate 10 ** 10 ** 10.
        problems = tuple(TemplateProblem(path, line, what) for line, what in _refusals(tree))
        if problems:
            return Examined(None, problems=problems)
        undeclared = find_undeclared_variables(tree) - PROVIDED
        count_turns(tree)
        code = ENVIRONMENT.compile(tree, name, path)
    except TemplateSyntaxError as error:
        text = f"{str(error.message).rstrip('.')}; correct the syntax"
        return Examined(None, problems=(TemplateProblem(path, error.lineno, text),))
    except RecursionError:
        return Examined(None, problems=(TemplateProblem(path, None, "nested too deeply: split it into files"),))
    loads = [node for node in tree.find_all(nodes.Name) if node.ctx == "load"]
    lines = {node.name: node.lineno for node in sorted(loads, key=lambda node: -node.lineno)}
    return Examined(
        code,
        references=tuple(_references(tree)),
        variables=MappingProxyType({name: lines.get(name, 1) for name in sorted(undeclared)}),
        assigned=frozenset(_assigned(tree)),
    )


def near(name: str, known: Iterable[str]) -> str:
    """The end of a sentence about an unknown name: "did you mean …", or the names that there are."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3)
    if close:
        return f"did you mean {' or '.join(close)}"
    return f"use one of {', '.join(names)}" if names else "there is none yet"


def _refusals(tree: nodes.Template) -> Iterator[tuple[int, str]]:
    for node in tree.find_all(nodes.Node):
        if what := _refusal(node):
            yield node.lineno, what


def _refusal(node: nodes.Node) -> str:
    """The problem with one node, and the fix; "": none."""
    match node:
        case nodes.Mul() | nodes.Pow():
            return "templates do not multiply: let the producer send the result"
        case nodes.Getattr(attr=str(key)) | nodes.Getitem(arg=nodes.Const(value=str(key))) if key[:1] == "_":
            return f"{key} is private: names that begin with _ cannot be read"
        case nodes.ScopedEvalContextModifier():
            return "autoescape is fixed (on in .html, off in .txt): remove the tag"
        case nodes.Filter(name=name) if name not in ALLOWED:
            return f"there is no filter {name}: {near(name, ALLOWED)}"
        case nodes.Test(name=name) if name not in ENVIRONMENT.tests:
            return f"there is no test {name}: {near(name, ENVIRONMENT.tests)}"
        case nodes.Extends() | nodes.Include() | nodes.Import() | nodes.FromImport():
            if None in _named(node):
                return f"{type(node).__name__.lower()} needs the name of a file in quotes"
    return ""


def _named(node: _Referring) -> list[str | None]:
    """The names in one reference; None: an expression, known only when it runs."""
    several = node.template.items if isinstance(node.template, nodes.List | nodes.Tuple) else [node.template]
    return [str(name.value) if isinstance(name, nodes.Const) else None for name in several]


def _references(tree: nodes.Template) -> Iterator[Reference]:
    for node in tree.find_all(nodes.Stmt):
        if isinstance(node, _Referring):
            yield from (Reference(name, node.lineno) for name in _named(node) if name is not None)


def _assigned(tree: nodes.Template) -> Iterator[str]:
    for node in tree.body:
        match node:
            case nodes.Assign(target=nodes.Name(name=name)) | nodes.AssignBlock(target=nodes.Name(name=name)):
                yield name
            case nodes.Import(target=name) | nodes.Macro(name=name):
                yield name
            case nodes.FromImport(names=names):
                yield from (name if isinstance(name, str) else name[1] for name in names)
