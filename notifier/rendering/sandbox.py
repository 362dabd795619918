"""The language of templates: a reduced Jinja in a sandbox.

It has three defences, each of which stops most attacks. Values of a context are never parsed as a template. A dot
or a subscript on a value reads a key or an index of its JSON, never an attribute of a Python object.
`static_checks` refuses, when a template is loaded, whatever a notification does not need. In addition,
`render_limits` stops what takes too long or too much memory. Nothing is evaluated before a message is rendered.
"""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from types import CodeType
from typing import Any

from jinja2 import BaseLoader, Environment, StrictUndefined, Template, TemplateNotFound
from jinja2.environment import TemplateModule
from jinja2.exceptions import SecurityError
from jinja2.runtime import Context, Macro
from jinja2.sandbox import ImmutableSandboxedEnvironment

from notifier.rendering.filters import ALLOWED
from notifier.rendering.limited_nodes import NODE_FILTERS, written
from notifier.rendering.render_limits import OVERHEAD, check_text, concat, count_made, count_step

#: What every template may use besides its own variables: the text's BCP 47 tag, and "ltr" or "rtl".
PROVIDED = frozenset({"locale", "direction"})

_JSON = (str, int, float, list, type(None))


class _Sandbox(ImmutableSandboxedEnvironment):
    """Jinja's sandbox, in which JSON values have keys and indexes and nothing else."""

    # "%999999999d" % 1 would make a text of a gigabyte, and + makes texts and lists.
    intercepted_binops = frozenset({"%", "+"})
    concat = staticmethod(concat)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """A dot. On a JSON object it reads the key, so `order.items` is never a method of dict."""
        if isinstance(obj, dict):
            return obj[attribute] if attribute in obj else self.undefined(obj=obj, name=attribute)
        if isinstance(obj, _JSON):
            return self.undefined(obj=obj, name=attribute)
        if isinstance(obj, TemplateModule) and attribute[:1] != "_" and attribute in obj.__dict__:
            return obj.__dict__[attribute]  # for an imported macro or text, without the sandbox's ten checks
        return super().getattr(obj, attribute)

    def getitem(self, obj: Any, argument: Any) -> Any:
        """A subscript; also used by `map(attribute=…)`, `sort(attribute=…)` and similar filters."""
        if not isinstance(obj, (dict, *_JSON)):
            return super().getitem(obj, argument)
        try:
            return obj[argument]  # type: ignore[index]  # a number has no items: that is the TypeError
        except (TypeError, LookupError):
            # Jinja's own text would repeat the key, which may come from the context.
            return self.undefined("a list or an object has no such entry")

    def call(self, context: Context, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        """A call. Macros take a shortcut, because an HTML mail has dozens of them and Jinja's way takes 5 µs."""
        count_step()
        if type(obj) is not Macro:
            return super().call(context, obj, *args, **kwargs)
        kwargs.pop("_block_vars", None)
        kwargs.pop("_loop_vars", None)
        return obj(context.eval_ctx, *args, **kwargs)

    def get_template(self, *args: Any, **kwargs: Any) -> Template:
        """A file that is included or imported."""
        count_step()
        return super().get_template(*args, **kwargs)

    def call_binop(self, context: Context, operator: str, left: Any, right: Any) -> Any:
        """`%` works on numbers only; what `+` produces is counted."""
        if operator == "+":
            if hasattr(left, "__len__") and hasattr(right, "__len__"):
                check_text(left, right)
                length = len(left) + len(right)
                count_made(length if isinstance(left, str) else OVERHEAD * length)
        elif not isinstance(left, int | float):
            raise SecurityError("% is for numbers; write texts with ~ and filters")
        return super().call_binop(context, operator, left, right)


def _make_environment() -> Environment:
    environment = _Sandbox(
        undefined=StrictUndefined,
        autoescape=lambda name: name is not None and name.endswith(".html"),
        finalize=written,
        optimized=False,  # otherwise constants would be evaluated when a template is loaded, under no limit
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    # No range, dict, lipsum, cycler, joiner, namespace: a message is made from its context alone.
    environment.globals.clear()
    environment.filters = {**ALLOWED, **NODE_FILTERS}
    return environment


#: Parses and compiles. Never changed after this line; editions use overlays with a loader of their own.
ENVIRONMENT = _make_environment()


class _Files(BaseLoader):
    """The files of one edition. Jinja gets no access to the disk."""

    def __init__(self, files: Mapping[str, CodeType]) -> None:
        self._files = files

    def load(
        self,
        environment: Environment,
        name: str,
        globals: MutableMapping[str, Any] | None = None,  # noqa: A002 - Jinja's name
    ) -> Template:
        if name not in self._files:
            raise TemplateNotFound(name)
        return environment.template_class.from_code(environment, self._files[name], globals or {})


def environment_of(files: Mapping[str, CodeType]) -> Environment:
    """An environment in which these files, and no others, extend and include each other by name."""
    return ENVIRONMENT.overlay(loader=_Files(files), cache_size=-1)
