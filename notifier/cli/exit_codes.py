"""What ends a command other than success: one clear line, an exit code, never a trace that nobody asked for.

Exit codes: 0 success only · 1 it failed · 2 wrong usage or configuration · 124 it did not end within its grace ·
130 stopped by Ctrl-C, 143 by SIGTERM. The programs of the service end with 0 when they are stopped.
"""

from __future__ import annotations

import os
import sys
import traceback
from typing import Any

import typer
from typer.core import TyperGroup

from notifier.cli.output import clean, first_line, hint, print_parts
from notifier.domain.errors import (
    ConfigurationError,
    InvalidMessage,
    NotifierError,
    PublishFailed,
    ServiceUnavailable,
    StatementCancelled,
)
from notifier.runtime.shutdown import Stopped

FAILED = 1
WRONG_USAGE = 2
INTERRUPTED = 130
#: How long a command has to stop when told to. Seconds.
GRACE_SECONDS = 10.0


class Commands(TyperGroup):
    """The root of all commands: every error of every command ends here."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            # Here, not in the interpreter's last moments, where nobody can catch it.
            sys.stdout.flush()
        except BrokenPipeError:
            _forget_standard_output()
            raise typer.Exit(FAILED) from None
        except KeyboardInterrupt as stopped:
            hint("\nstopped")
            raise typer.Exit(stopped.exit_code if isinstance(stopped, Stopped) else INTERRUPTED) from None
        except NotifierError as error:
            raise typer.Exit(explain(error)) from None
        except Exception as error:
            if type(error).__module__.startswith("typer."):
                raise
            raise typer.Exit(explain(error)) from None
        return result


def explain(error: Exception) -> int:
    """Print what went wrong and what to do; returns the exit code."""
    # Straight from the environment: the settings may be what is wrong.
    if os.environ.get("NOTIFIER_LOG_LEVEL") == "debug":
        traceback.print_exception(error)
    match error:
        case InvalidMessage():
            report("the input is not valid; nothing was sent or changed")
            for fault in error.faults:
                sys.stderr.write(f"  {clean(str(fault))}\n")
            return FAILED
        case ConfigurationError():
            report(str(error))
            return WRONG_USAGE
        case NotifierError():
            report(str(error))
            if isinstance(error, StatementCancelled):
                hint("next: the same for less at once, as with --since; notifier doctor")
            elif isinstance(error, ServiceUnavailable | PublishFailed):
                hint("next: notifier doctor")
            return FAILED
    report(
        f"{type(error).__name__}: {first_line(error)}\nThis is a fault of notifier's own. Run it again with "
        "NOTIFIER_LOG_LEVEL=debug to see where, and report it."
    )
    return FAILED


def report(text: str) -> None:
    print_parts(("error: ", "bold red"), (clean(text), ""), stream=sys.stderr)


def _forget_standard_output() -> None:
    """Nobody reads any more. What is still buffered would raise again when the interpreter ends."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
