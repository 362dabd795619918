"""The command line as a whole: help, version, start, errors."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
import typer
from typer.main import get_command
from typer.testing import CliRunner

from notifier.cli.app import PANELS, app
from notifier.cli.command_tree import Family
from notifier.cli.exit_codes import Commands
from notifier.domain.errors import ConfigurationError, Fault, InvalidMessage, NotFound, ServiceUnavailable
from tests.unit.cli.commandline import CommandLine

HEAVY = ("sqlalchemy", "alembic", "celery", "jinja2", "babel", "twilio", "aiosmtplib", "psycopg", "structlog")


def test_help_names_every_command(notifier: CommandLine) -> None:
    shown = notifier("--help").out
    for command in (
        "send",
        "publish",
        "show",
        "search",
        "rejected",
        "templates",
        "db",
        "queues",
        "schema",
        "doctor",
    ):
        assert f" {command} " in shown


def test_version_is_one_line(notifier: CommandLine) -> None:
    answer = notifier("--version")
    assert answer.code == 0
    assert answer.out.startswith("notifier ")


def test_help_loads_nothing_that_is_slow_to_import() -> None:
    program = f"""
import sys
from notifier.cli.app import app
app(["--help"], standalone_mode=False)
print([name for name in {HEAVY} if name in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_without_its_packages_one_line_says_what_installs_them() -> None:
    # None in place of a module: it cannot be imported.
    program = "import sys; sys.modules['typer'] = None; from notifier.__main__ import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert re.fullmatch(r"error: the commands need typer: install notifier\[worker\] from [^\n]+\n", done.stderr)


@pytest.mark.parametrize("command", [command for commands in PANELS.values() for command in commands])
def test_the_list_of_commands_says_what_the_help_of_each_says(command: Any) -> None:
    root: Any = get_command(app)
    found = root.commands[command.name]
    assert command.help
    assert " ".join(found.help.split()).startswith(command.help)
    if isinstance(command, Family):
        assert len(found.commands) == len(command.commands) > 0


def test_no_help_has_what_a_terminal_takes_for_markup() -> None:
    for path, command in walk(get_command(app), "notifier"):
        texts = [command.help, *(getattr(parameter, "help", None) for parameter in command.params)]
        assert not [text for text in texts if re.search(r"\[[a-z#/@]", text or "")], path


def test_no_option_breaks_a_list_of_words_on_a_narrow_terminal(
    notifier: CommandLine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    for path, _ in walk(get_command(app), "notifier"):
        shown = notifier(*path.split()[1:], "--help").out
        assert not re.findall(r"--\S+ +<[a-z]+[|][^>\n]*\n", shown), path


def test_a_command_imports_no_module_of_another() -> None:
    program = """
import sys
from notifier.cli.app import app
app(["schema", "message"], standalone_mode=False)
names = ("notifications", "publish", "suppressions", "doctor", "up")
print([name for name in names if f"notifier.cli.{name}" in sys.modules], file=sys.stderr)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_a_name_that_is_almost_right_is_proposed(notifier: CommandLine) -> None:
    assert "'search'" in notifier("serch").err


def test_wrong_usage_exits_with_2(notifier: CommandLine) -> None:
    assert notifier("nosuch").code == 2
    assert notifier("show").code == 2


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (NotFound("no such thing"), 1),
        (ServiceUnavailable("the database is away"), 1),
        (ConfigurationError("NOTIFIER_X is not set: set it", setting="NOTIFIER_X"), 2),
        (InvalidMessage([Fault("to", "bad", "is wrong", "Mend it"), Fault("", "bad", "too", "Mend")]), 1),
        (RuntimeError("a bug"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_an_error_is_told_without_a_trace(error: BaseException, code: int) -> None:
    answer = CliRunner().invoke(app_that_raises(error), ["fail"])
    assert answer.exit_code == code
    assert answer.stdout == ""
    assert "Traceback" not in answer.stderr


def test_every_fault_of_a_message_is_told_on_its_line() -> None:
    error = InvalidMessage([Fault("to", "bad", "is wrong", "Mend it"), Fault("", "bad", "is empty", "Fill it")])
    lines = CliRunner().invoke(app_that_raises(error), ["fail"]).stderr.splitlines()
    assert lines[1:] == ["  to: is wrong. Mend it.", "  body: is empty. Fill it."]


def test_a_trace_is_shown_to_whoever_asks_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NOTIFIER_LOG_LEVEL", "debug")
    assert "Traceback" in CliRunner().invoke(app_that_raises(NotFound("no such thing")), ["fail"]).stderr


def test_an_error_cannot_steer_the_terminal() -> None:
    shown = CliRunner().invoke(app_that_raises(NotFound("no \x1b[2J here")), ["fail"]).stderr
    assert "\x1b" not in shown
    assert r"no \x1b[2J here" in shown


def test_a_reader_that_goes_away_is_no_reason_for_noise() -> None:
    command = [sys.executable, "-c", "from notifier.cli.app import main; main()", "schema", "message"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ("schema message >/dev/full", "No space left on device"),
        ("--help >/dev/full", "No space left on device"),
        ("schema message >&-", "Bad file descriptor"),
    ],
)
def test_an_output_that_takes_nothing_is_said_in_one_line(words: str, why: str) -> None:
    program = f"{sys.executable} -c 'from notifier.cli.app import main; main()' {words}"
    done = subprocess.run(program, shell=True, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert done.stderr.startswith(f"error: standard output cannot be written: {why}. What the command did stays")


def test_an_input_that_is_closed_is_said_in_one_line_and_an_error_stream_need_not_be_there() -> None:
    program = f"{sys.executable} -c 'from notifier.cli.app import main; main()' "
    done = subprocess.run(f"{program} send x a@example.com -c @- <&-", shell=True, capture_output=True, text=True)
    assert (done.returncode, "- cannot be read: Bad file descriptor" in done.stderr) == (2, True), done.stderr
    assert subprocess.run(f"{program} schema message 2>&- >/dev/null", shell=True).returncode == 0


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device", "x.csv"), OSError(9, "Bad file descriptor")]
)
def test_a_full_disk_is_no_fault_of_ours(error: OSError) -> None:
    shown = CliRunner().invoke(app_that_raises(error), ["fail"])
    assert (shown.exit_code, str(error.strerror) in shown.stderr, "fault of" in shown.stderr) == (1, True, False)


def walk(command: Any, path: str) -> Iterator[tuple[str, Any]]:
    for name, found in getattr(command, "commands", {}).items():
        yield f"{path} {name}", found
        yield from walk(found, f"{path} {name}")


def app_that_raises(error: BaseException) -> typer.Typer:
    failing = typer.Typer(cls=Commands, pretty_exceptions_enable=False)

    @failing.callback()
    def root() -> None:
        """Keeps the name of the only command."""

    @failing.command()
    def fail() -> None:
        raise error

    return failing


def test_the_app_has_no_traces_of_typers_own() -> None:
    assert app.pretty_exceptions_enable is False
