"""Files that cannot be read, parsed or compiled: a fault of their own template, with file, reason and fix."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from notifier.domain.errors import RenderingFailed, TemplateInvalid
from notifier.domain.statuses import Channel
from notifier.rendering import Renderer, Severity, check_templates

from .conftest import MakeTemplate

DEEP = "nested too deeply: split it into files"
DEEP_TOML = "template.toml: error: nested too deeply: declare fewer levels"
HEAD = 'description = "x"\n'


def _nested(begin: str, times: int, end: str, middle: str = "a") -> str:
    return begin * times + middle + end * times


#: (body.txt, what is said of it)
BODIES: dict[str, tuple[str | bytes, str]] = {
    "conditions": (_nested("{% if name %}", 120, "{% endif %}"), DEEP),
    "loops": (_nested("{% for a in [1] %}", 25, "{% endfor %}"), DEEP),
    "macros": (_nested("{% macro m() %}", 120, "{% endmacro %}"), DEEP),
    "parentheses": ("{{ " + _nested("(", 5_000, ")", "1") + " }}", DEEP),
    "lists": ("{{ " + _nested("[", 150, "]", "1") + " | length }}", DEEP),
    "sums": ("{{ name" + " + name" * 4_000 + " }}", DEEP),
    "too much": ("{{ name }} " * 5_000, "more than 20,000 names, signs and spaces in tags: split it into files"),
    "parentheses without end": ("{{ " + "(" * 100_000, "more than 20,000 names"),
    "an argument twice": ("{{ name | replace(old=1, old=2) }}", "argument repeated: old; correct the syntax"),
    "a parameter twice": ("{% macro m(a, a) %}{% endmacro %}", "duplicate argument 'a' in function definition"),
    "a long number": ("{{ " + "1" * 5_000 + " }}", "Exceeds the limit (4300 digits)"),
    "a number without end": ("{{ 1e999 }}", "body.txt:1: error: a number that large cannot be written"),
    "no UTF-8": (b"a\xff", "byte 1 is not UTF-8: save the file as UTF-8"),
    "half a character": (b"\xed\xa0\x80", "byte 0 is not UTF-8"),
    "a null character": (b"a\0b", "holds a null character, which no message can carry: save the file as UTF-8"),
    "large": (b"a" * 10_000_000, "larger than 524288 bytes: split it, or link to what it holds"),
    "half a character in a name": (r'{% include "\ud800" %}', r"there is no file \ud800: correct the name"),
    "a long name": ('{% include "' + "n" * 500_000 + '" %}', "nnn: correct the name, or add it"),
    "an escape": (r'{{ "\x" }}', r"body.txt:1: error: truncated \xXX escape; correct the syntax"),
    "itself": ('{% include "body.txt" %}', "it includes or calls itself without end"),
    "extends itself": ('{% extends "body.txt" %}', "it includes or calls itself without end"),
    "in a circle": ('{% include "subject.txt" %}', "it includes or calls itself without end"),
    "a macro in itself": (
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
        "calls itself without end: give it an",
    ),
}
MANIFESTS = {
    "lists": (HEAD + "a = " + "[" * 100_000, DEEP_TOML),
    "a key": (HEAD + "a." * 50_000 + "b = 1", DEEP_TOML),
    "tables": (HEAD + "a = " + _nested("{b = ", 2_000, "}", "1"), DEEP_TOML),
    "a long number": (HEAD + "a = " + "9" * 5_000, "not valid TOML: Exceeds the limit (4300 digits)"),
    "a null character": (HEAD + "\0", "template.toml: error: holds a null character"),
    "a key of signs": (HEAD + '"\\u0000\\n" = 1', r"\x00\n: unknown key; remove it"),
}


def _socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(os.path.relpath(path))


def _folder_of_bytes(path: Path) -> None:
    Path(os.fsdecode(os.fsencode(path.parent) + b"/\xff.txt")).write_text("x")


#: (what makes the file, what is said of it)
PLACES: dict[str, tuple[Callable[[Path], None], str]] = {
    "folder": (Path.mkdir, "body.txt: error: is a folder, and a file is expected: rename or remove it"),
    "socket": (_socket, "body.txt: error: is no file that holds text: replace it, or remove it"),
    "pipe": (os.mkfifo, "body.txt: error: is no file that holds text: replace it, or remove it"),
    "device": (lambda path: path.symlink_to("/dev/zero"), "body.txt: error: is no file that holds text"),
    "link to nowhere": (lambda path: path.symlink_to("absent"), "body.txt: error: a link that leads nowhere"),
    "link to itself": (lambda path: path.symlink_to(path.name), "body.txt: error: a link that leads to itself"),
    "name": (_folder_of_bytes, r"\udcff.txt: error: its name is not UTF-8: rename it"),
}


def _check(root: Path, expected: str) -> None:
    """What is said of email/hello, and that another template is not touched by it."""
    problems = [str(problem) for problem in check_templates(root)]
    assert expected in "\n".join(problems)
    assert all(problem.isprintable() and len(problem) < 1200 for problem in problems)
    renderer = Renderer(root)
    assert renderer.names(Channel.EMAIL) == ("good", "hello")
    assert renderer.render(Channel.EMAIL, "good", None, {"name": "Ada"}).text == "Hello Ada\n"
    with pytest.raises((TemplateInvalid, RenderingFailed)):
        renderer.render(Channel.EMAIL, "hello", None, {"name": "Ada"})
    faults = renderer.check_context(Channel.EMAIL, "hello", {"name": "Ada"})
    assert {fault.field for fault in faults} <= {"template"}


@pytest.mark.parametrize(("body", "expected"), BODIES.values(), ids=BODIES)
def test_a_part_that_cannot_be_used(make_template: MakeTemplate, body: str | bytes, expected: str) -> None:
    make_template("email/good")
    root = make_template(files={"subject.txt": '{% include "body.txt" %}'} if "subject.txt" in str(body) else {})
    path = root / "email" / "hello" / "body.txt"
    path.write_bytes(body if isinstance(body, bytes) else body.encode())
    _check(root, expected)


@pytest.mark.parametrize(("toml", "expected"), MANIFESTS.values(), ids=MANIFESTS)
def test_a_manifest_that_cannot_be_used(make_template: MakeTemplate, toml: str, expected: str) -> None:
    make_template("email/good")
    _check(make_template(toml=toml), expected)


@pytest.mark.parametrize(("make", "expected"), PLACES.values(), ids=PLACES)
def test_what_is_no_file(make_template: MakeTemplate, make: Callable[[Path], None], expected: str) -> None:
    make_template("email/good")
    root = make_template()
    path = root / "email" / "hello" / "body.txt"
    path.unlink()
    make(path)
    _check(root, expected)


def test_links_that_lead_nowhere_beside_templates_hide_none(make_template: MakeTemplate) -> None:
    root = make_template()
    for name in ("loop", "_loop", "hello/fr"):
        (root / "email" / name).symlink_to(Path(name).name)
    assert Renderer(root).names(Channel.EMAIL) == ("hello",)
    found = [(problem.path, problem.severity) for problem in check_templates(root)]
    assert found == [("email/hello/fr", Severity.WARNING)]


#: (what has lost its rights, which are left, what is said of it)
RIGHTS = [
    ("email/hello/body.txt", 0, "email/hello/body.txt: error"),
    ("email/hello", 0, "email/hello: error"),
    ("email/hello/fr", 0, "email/hello/fr: error"),
    ("email/_x", 0, "email/_x: warning"),
    ("email", 0, "email: error"),
    ("email", 0o444, "email: error"),
]
_AS_NOBODY = """
import os, sys
from pathlib import Path
from notifier.rendering import check_templates

os.chdir(sys.argv[1])
check_templates(Path())  # loads all modules
user = os.getuid()
for path, mode in zip(sys.argv[2::2], sys.argv[3::2], strict=True):
    Path(path).chmod(int(mode))
    os.seteuid(user or 65534)
    print(*check_templates(Path()), "", sep="\\n")
    os.seteuid(user)
    Path(path).chmod(0o755)
"""


def test_who_has_no_right_to_read_is_told_where(make_template: MakeTemplate) -> None:
    root = make_template(files={"fr/body.txt": "Bonjour {{ name }}", "../_x/a.txt": "x"})
    root.chmod(0o755)
    changes = [str(one) for path, mode, _ in RIGHTS for one in (path, mode)]
    command = [sys.executable, "-c", _AS_NOBODY, str(root), *changes]
    found = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    told = [f"{where}: cannot be read (Permission denied): check its permissions" for *_, where in RIGHTS]
    assert [line for line in found if "Permission" in line] == told
