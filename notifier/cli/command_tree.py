"""The commands by name. A command's module is imported only when it is called, or when its own help is requested.

So `notifier --help` and every command start without the imports and options of all the others, which took more
than half of their time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from importlib import import_module
from inspect import cleandoc
from typing import Any

import typer
from typer.core import TyperCommand
from typer.main import get_group

from notifier.cli.exit_codes import Commands
from notifier.config.imports import without


@dataclass(frozen=True)
class LazyCommand:
    """A command: a function in this package."""

    #: Its module and name, such as `callbacks.list_`.
    home: str
    #: The beginning of its docstring, for the list of all commands. In a family, the docstrings themselves are
    #: read.
    help: str = ""

    @property
    def name(self) -> str:
        """The command's name: `list_` becomes `list`, `apply_held` becomes `apply-held`."""
        return self.home.rpartition(".")[2].rstrip("_").replace("_", "-")

    def load(self) -> Callable[..., None]:
        module, _, name = self.home.partition(".")
        found: Callable[..., None] = getattr(import_module(f"notifier.cli.{module}"), name)
        return found


@dataclass(frozen=True)
class Family:
    """Commands with a common first word."""

    name: str
    help: str
    #: The homes of its commands, and the families in it.
    commands: Sequence[str | Family]
    #: The home of the function that the word alone calls; None: it shows the help.
    alone: str | None = None

    def load(self) -> typer.Typer:
        shows_help = self.alone is None
        found = typer.Typer(help=self.help, no_args_is_help=shows_help, invoke_without_command=not shows_help)
        if self.alone is not None:
            found.callback()(LazyCommand(self.alone).load())
        _add(found, (LazyCommand(one) if isinstance(one, str) else one for one in self.commands))
        return found


class CommandTree(Commands):
    """The root of all commands."""

    #: Set by `rooted_in`.
    panels: Mapping[str, Sequence[LazyCommand | Family]]

    def __init__(self, **attributes: Any) -> None:
        super().__init__(**attributes)
        self.commands: Any = _Loaded(self.panels)

    def list_commands(self, ctx: Any) -> list[str]:
        return list(self.commands)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Show the help from the table alone: no command is imported for it."""
        listed = copy(self)
        listed.commands = {
            one.name: TyperCommand(one.name, short_help=one.help, rich_help_panel=panel)
            for panel, commands in self.panels.items()
            for one in commands
        }
        # Rich would import it to show objects made with it, which takes a tenth of the help's time.
        with without("attr"):
            super(CommandTree, listed).format_help(ctx, formatter)


def rooted_in(panels: Mapping[str, Sequence[LazyCommand | Family]]) -> type[CommandTree]:
    """The class of a root with these commands under these headings, for `typer.Typer(cls=…)`."""
    return type("CommandTree", (CommandTree,), {"panels": panels})


class _Loaded(Mapping[str, Any]):
    """Each command of the root, made when it is asked for."""

    def __init__(self, panels: Mapping[str, Sequence[LazyCommand | Family]]) -> None:
        self._known = {one.name: one for commands in panels.values() for one in commands}
        self._made: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        if name not in self._made:
            alone = typer.Typer()
            _add(alone, [self._known[name]])
            self._made |= get_group(alone).commands
        return self._made[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._known)

    def __len__(self) -> int:
        return len(self._known)


def _add(to: typer.Typer, commands: Iterable[LazyCommand | Family]) -> None:
    for command in commands:
        if isinstance(command, Family):
            to.add_typer(command.load(), name=command.name)
        else:
            function = command.load()
            to.command(command.name, help=_help(function))(function)


def _help(function: Callable[..., None]) -> str:
    """Its docstring, one line a paragraph: Typer would keep the line breaks of all but the first."""
    paragraphs = cleandoc(function.__doc__ or "").split("\n\n")
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in paragraphs)
