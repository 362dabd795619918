"""Counts parts of a template when they run: loops, `~`, slices, and list literals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from jinja2 import Undefined, nodes, pass_context, pass_eval_context
from jinja2.exceptions import TemplateRuntimeError
from jinja2.nodes import EvalContext
from jinja2.runtime import Context, markup_join, str_join
from jinja2.visitor import NodeTransformer

from notifier.rendering.render_limits import (
    OVERHEAD,
    check_text,
    count_made,
    count_turns,
    count_value,
    current_limit,
    too_much,
)

#: What can be written besides text.
_WRITABLE = (int, float, Undefined)


def _turns(values: Any) -> Any:
    """The values of a loop, unchanged. Its turns are counted before the first one."""
    count_turns(values)
    return values


@pass_eval_context
def _joined(context: EvalContext, values: list[Any]) -> str:
    """The result of `~`."""
    check_text(*values)
    text: str = count_value((markup_join if context.autoescape else str_join)(values))
    return text


def _made(value: Any) -> Any:
    """A slice or a list from the template, unchanged."""
    check_text(value)
    return count_value(value)


@pass_context  # otherwise Jinja would evaluate `{{ "a" | replace("a", "aa") }}` at compile time
def written(_: Context, value: Any) -> Any:
    """The value that is written, unchanged but counted. Only texts and numbers are allowed."""
    # "Dear None", "True" or "['a', 'b']" is never what was meant. An undefined value raises when it is written.
    if isinstance(value, str):
        # Does not call `count_made`, because a mail has hundreds of pieces.
        limit = current_limit.get()
        if limit is not None:
            limit.characters -= len(value) + OVERHEAD
            if limit.characters < 0:
                raise too_much()
        return value
    if isinstance(value, _WRITABLE) and not isinstance(value, bool):
        count_made(OVERHEAD)
        return value
    kind = "none" if value is None else f"a {type(value).__name__}"
    raise TemplateRuntimeError(f"texts and numbers can be written, and this is {kind}: test it or loop over it")


#: Filters around these parts. Templates cannot name them.
NODE_FILTERS: Mapping[str, Callable[..., Any]] = MappingProxyType(
    {" turns": _turns, " joined": _joined, " made": _made}
)


def limit_nodes(tree: nodes.Template) -> None:
    """Change the tree in place, so that what the template produces is counted."""
    _Counting().visit(tree)


class _Counting(NodeTransformer):
    def visit_For(self, node: nodes.For) -> nodes.Node:  # noqa: N802 - Jinja's name
        self.generic_visit(node)
        node.iter = _filtered(node.iter, " turns")
        return node

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 - Jinja's name
        self.generic_visit(node)
        return _filtered(nodes.List(node.nodes, lineno=node.lineno), " joined")

    def visit_Getitem(self, node: nodes.Getitem) -> nodes.Node:  # noqa: N802 - Jinja's name
        self.generic_visit(node)
        return _filtered(node, " made") if isinstance(node.arg, nodes.Slice) else node

    def visit_List(self, node: nodes.List) -> nodes.Node:  # noqa: N802 - Jinja's name
        self.generic_visit(node)
        return _unless_constant(node)

    def visit_Tuple(self, node: nodes.Tuple) -> nodes.Node:  # noqa: N802 - Jinja's name
        self.generic_visit(node)
        return _unless_constant(node) if node.ctx == "load" else node

    def visit_Dict(self, node: nodes.Dict) -> nodes.Node:  # noqa: N802 - Jinja's name
        self.generic_visit(node)
        return _unless_constant(node)


def _unless_constant(node: nodes.Expr) -> nodes.Expr:
    """Leave constants alone: they take no more memory than their file. An include also needs its list of names
    unchanged."""
    return node if node.find(nodes.Name) is None else _filtered(node, " made")


def _filtered(node: nodes.Node, name: str) -> nodes.Filter:
    return nodes.Filter(node, name, [], [], None, None, lineno=node.lineno)
