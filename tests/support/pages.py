"""Runs the code blocks of a page in order, as a reader pastes them: see `docs/blocks.toml`."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import subprocess
import textwrap
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tests.support.up import Up
from tests.waiting import patient

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = (ROOT / "README.md", *sorted(DOCS.rglob("*.md")))
LISTED: Mapping[str, Mapping[str, Any]] = tomllib.loads((DOCS / "blocks.toml").read_text("utf-8"))
_BLOCK = re.compile(
    r"^(?P<indent> *)```(?P<language>\S*)[^\n]*\n(?P<code>.*?)^(?P=indent)```", re.MULTILINE | re.DOTALL
)
_SHELL = ("", "console", "sh", "bash")
#: How the line of a command begins, in a block that does not say what it is.
_COMMAND = re.compile(
    r"(\$ )?([A-Z_]+=\S+ )*"
    r"(notifier|make|python3?|\.venv/\S+|\.|curl|export|printf|echo|pip|npm|cp|amqp-publish|kubectl|rabbitmqctl|"
    r"systemctl|systemd-run|apt-get|docker|podman|createdb|psql|sudo) (?!.*(──|◀|▶))"
)
#: Each block is a shell of its own, and gets the variables of the previous ones.
_BEGIN = "if [ -e .variables ]; then . ./.variables; fi\nset -aeuo pipefail\n"
_KEEP = "\nset +a\nexport -p > .variables\n"


class PageBlock(NamedTuple):
    page: str
    language: str
    code: str

    @property
    def is_code(self) -> bool:
        """Whether a reader runs it: Python, or what a shell takes. Other blocks are data, settings or output."""
        if self.language in _SHELL:
            return any(_COMMAND.match(line) for line in self.code.splitlines())
        return self.language == "python"

    def listed(self, table: str) -> str | None:
        """The reason why it is not run, or must fail (`not_run`, `fails`); None: it is not in that table."""
        entries: Mapping[str, str] = LISTED[table].get(self.page, {})
        return next((why for start, why in entries.items() if self.begins(start)), None)

    def begins(self, start: str) -> bool:
        return self.code.startswith(start)

    def commands(self) -> str:
        """What a reader types: in a console, the lines after a prompt and their continuation lines."""
        lines = self.code.splitlines()
        if not any(line.startswith("$ ") for line in lines):
            return self.code
        typed: list[str] = []
        for line in lines:
            if line.startswith("$ "):
                typed.append(line[2:])
            elif typed and _goes_on(typed[-1]):
                typed[-1] += f"\n{line}"
        return "\n".join(typed)


class PageRun:
    """The run of one page: a folder, a shell's variables and a Python namespace, kept from block to block."""

    def __init__(self, folder: Path, environment: Mapping[str, str], replaced: Mapping[str, str]) -> None:
        """`environment`: that of a terminal into which the lines of `up` were pasted. `replaced`: placeholder for
        a reader's value → the value here."""
        self._folder = folder
        # What a preview writes for a browser is deleted with the folder.
        self._environment = {**environment, "TMPDIR": str(folder)}
        self._replaced = replaced
        self._namespace: dict[str, Any] = {"__name__": "page"}

    def run(self, page: Path) -> tuple[int, int]:
        """Run every block in order. Returns how many ran, and how many code blocks did not, each of which is
        listed.

        Raises:
            AssertionError: a block did not end as the page says.
        """
        ran = left = 0
        blocks = blocks_of(page)
        if before := LISTED["before"].get(blocks[0].page if blocks else ""):
            self._shell(before, "before", fails=False)
        with settings_of(self._environment):
            if blocks:
                self._python(LISTED["names"].get(blocks[0].page, ""), "names")
            try:
                for block in blocks:
                    if name := block.listed("saved"):
                        (self._folder / name).write_text(block.code)
                    elif block.is_code and block.listed("not_run") is None:
                        self._block(block)
                        ran += 1
                    else:
                        left += block.is_code
            finally:
                self._close()
        return ran, left

    def _block(self, block: PageBlock) -> None:
        code = block.commands()
        for placeholder, value in self._replaced.items():
            code = code.replace(placeholder, value)
        if block.language == "python":
            self._python(code, block.page)
        else:
            self._shell(code, block.page, fails=block.listed("fails") is not None)

    def _python(self, code: str, name: str) -> None:
        before = dict(self._namespace)
        exec(compile(code, name, "exec", dont_inherit=True), self._namespace)
        # The block assigned something else to the name, and nobody would close the earlier value.
        _close_all(value for key, value in before.items() if self._namespace.get(key) is not value)

    def _shell(self, code: str, name: str, *, fails: bool) -> None:
        done = subprocess.run(
            ["/bin/bash", "-c", f"{_BEGIN}{code}{_KEEP}"],
            cwd=self._folder,
            env=self._environment,
            capture_output=True,
            text=True,
            timeout=patient(120),
            check=False,
        )
        said = f"{name}\n{code}\nended with {done.returncode}\n{done.stdout}{done.stderr}"
        assert (done.returncode != 0) == fails, said

    def _close(self) -> None:
        """Close what the page left open, above all clients."""
        _close_all(self._namespace.values())


def blocks_of(page: Path) -> list[PageBlock]:
    """Every block of a page, in order."""
    name = str(page.relative_to(DOCS if page.is_relative_to(DOCS) else ROOT))
    return [
        PageBlock(name, match["language"], textwrap.dedent(match["code"]))
        for match in _BLOCK.finditer(page.read_text("utf-8"))
    ]


def readers_values(up: Up) -> dict[str, str]:
    """Placeholder for a reader's value in the pages → the value of this service."""
    variables = up.variables
    known = up.shell(
        "notifier send password_reset ada@example.com -c reset_url=https://shop.example.com -c valid_minutes=9 "
        "--wait 60 --json"
    )
    return {
        "01a2047b-fb2a-7da5-858e-3be3814fe3b0": json.loads(known)["id"],
        "https://notifier.example.com": variables["NOTIFIER_API_URL"],
        "http://127.0.0.1:8080": variables["NOTIFIER_API_URL"],
        "ntf_live_…": variables["NOTIFIER_API_KEY"],
        # It exits with 1 if anything is late, which may be so here.
        "notifier stuck\n": "notifier stuck || [ $? = 1 ]\n",
        # Nobody waits as long as the page shows.
        "--send-at 20s": "--send-at 2s",
    }


def stale_entries() -> Iterator[str]:
    """Entries of `docs/blocks.toml` that match no page."""
    blocks = [block for page in PAGES for block in blocks_of(page)]
    for table in ("not_run", "fails", "saved"):
        for page, starts in LISTED[table].items():
            there = [block for block in blocks if block.page == page and (block.is_code or table == "saved")]
            yield from (f"{page}: {start}" for start in starts if not any(block.begins(start) for block in there))


@contextlib.contextmanager
def settings_of(variables: Mapping[str, str]) -> Iterator[None]:
    """During the block, Python code finds the service as programs in a terminal do."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _close_all(values: Iterable[Any]) -> None:
    for value in values:
        close = getattr(value, "close", None)
        if callable(close) and not isinstance(value, type):
            with contextlib.suppress(TypeError):
                close()


def _goes_on(line: str) -> bool:
    """Whether the command continues on the next line: an open quote, or a backslash at the end."""
    if line.endswith("\\"):
        return True
    try:
        shlex.split(line, comments=True)
    except ValueError:
        return True
    return False
