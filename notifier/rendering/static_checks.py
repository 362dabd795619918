"""Parses, checks and compiles one template file, and refuses whatever a notification does not need.

Authors of templates are trusted with the words, but not with the machine: a slip or a pasted snippet must not read
Python objects or make a text that fills the memory.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from types import CodeType, MappingProxyType
from typing import TypeAlias

from jinja2 import nodes
from jinja2.exceptions import TemplateSyntaxError
from jinja2.meta import TrackingCodeGenerator

from notifier.rendering.filters import ALLOWED
from notifier.rendering.limited_nodes import limit_nodes
from notifier.rendering.problems import TemplateProblem
from notifier.rendering.sandbox import ENVIRONMENT, PROVIDED

#: Maximum number of tokens that are not plain text; more take seconds to compile.
MAX_TOKENS = 20_000
#: The prefix that Jinja gives to a template's variables.
_JINJA_PREFIX = re.compile(r"\bl_\d+_")

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
    #: Variables that the file takes from the context → the first line that does.
    variables: Mapping[str, int] = field(default_factory=dict)
    #: Names set or imported at the top of the file. Files that it extends or includes see them as well.
    assigned: frozenset[str] = frozenset()
    problems: tuple[TemplateProblem, ...] = ()


@lru_cache(maxsize=2048)
def examine(name: str, path: str, text: str) -> Examined:
    """Examine one file. A pure function of the text, cached because all editions share the layout.

    `name` is what templates call the file; `path` is used in messages.
    """
    try:
        if sum(1 for _ in islice(ENVIRONMENT.lex(text), MAX_TOKENS + 1)) > MAX_TOKENS:
            what = f"more than {MAX_TOKENS:,} names, signs and spaces in tags: split it into files"
            return Examined(None, problems=(TemplateProblem(path, None, what),))
        tree = ENVIRONMENT.parse(text, name, path)
        problems = tuple(TemplateProblem(path, line, what) for line, what in _refusals(tree))
        if problems:
            return Examined(None, problems=problems)
        loads = [node for node in tree.find_all(nodes.Name) if node.ctx == "load"]
        lines = {node.name: node.lineno for node in sorted(loads, key=lambda node: -node.lineno)}
        undeclared = sorted(_undeclared(tree) - PROVIDED)
        references, assigned = tuple(_references(tree)), frozenset(_assigned(tree))
        limit_nodes(tree)
        return Examined(
            ENVIRONMENT.compile(tree, name, path),
            references=references,
            variables=MappingProxyType({name: lines.get(name, 1) for name in undeclared}),
            assigned=assigned,
        )
    except Exception as error:  # whatever Jinja or Python says about the file, it is the file's fault
        line = error.lineno if isinstance(error, TemplateSyntaxError) else None
        return Examined(None, problems=(TemplateProblem(path, line, _why_not_compiled(error)),))


def _why_not_compiled(error: Exception) -> str:
    match error:
        case TemplateSyntaxError(message=what):
            return f"{str(what).rstrip('.')}; correct the syntax"
        # The last two come from Python, about the code that Jinja makes.
        case RecursionError() | MemoryError() | IndentationError():
            return "nested too deeply: split it into files"
        case SyntaxError(msg=what) if "nested" in what:
            return "nested too deeply: split it into files"
        case SyntaxError(msg=what):
            return f"{_JINJA_PREFIX.sub('', what)}; correct the syntax"
    return f"cannot be compiled ({error}): write it more simply"


def _undeclared(tree: nodes.Template) -> set[str]:
    """Like Jinja's `find_undeclared_variables`, which would evaluate constants under no limit."""
    generator = TrackingCodeGenerator(ENVIRONMENT)
    generator.optimizer = None
    generator.visit(tree)
    return generator.undeclared_identifiers


def near(name: str, known: Iterable[str]) -> str:
    """What to do about an unknown name: use a name that is like it, or one of those that exist."""
    names = sorted(known)
    close = difflib.get_close_matches(name, names, n=3)
    if close:
        return f"use {' or '.join(close)}"
    return f"use one of {', '.join(names)}" if names else "add it: there is none yet"


def _refusals(tree: nodes.Template) -> Iterator[tuple[int, str]]:
    for node in tree.find_all(nodes.Node):
        if what := _refusal(node):
            yield node.lineno, what


def _refusal(node: nodes.Node) -> str:
    """The problem with one node, and the fix; "": there is none."""
    match node:
        case nodes.Mul() | nodes.Pow():
            return "templates do not multiply: let the producer send the result"
        case nodes.Getattr(attr=str(key)) | nodes.Getitem(arg=nodes.Const(value=str(key))) if key[:1] == "_":
            return f"{key} is private: names that begin with _ cannot be read"
        case nodes.Const(value=float(number)) if not math.isfinite(number):
            return "a number that large cannot be written: leave it out"
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
    """The names in one reference; None: an expression that is only known at run time."""
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
