"""Ends a command that did not succeed: with one clear line, an exit code, and no traceback that nobody asked for.

Exit codes: 0 success only · 1 it failed · 2 wrong usage or configuration · 124 it did not end within its grace ·
129 stopped by SIGHUP, 130 by Ctrl-C, 143 by SIGTERM. The programs of the service end with 0 when they are stopped.
"""

from __future__ import annotations

import os
import sys
import traceback
from errno import EBADF, EDQUOT, EFBIG, EIO, ENOSPC, EROFS
from typing import Any

import typer
from typer.core import TyperGroup

from notifier.cli.output import clean, first_line, hint, print_parts
from notifier.cli.standard_streams import OutputFailed, forget_output
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
#: How long a command may take to stop when it is told to. Seconds.
GRACE_SECONDS = 10.0
#: Errors of files and streams that are not our fault.
_OF_THE_MACHINE = (EBADF, EDQUOT, EFBIG, EIO, ENOSPC, EROFS)


class Commands(TyperGroup):
    """The root of all commands: every error of every command ends here."""

    def invoke(self, ctx: Any) -> Any:
        try:
            result = super().invoke(ctx)
            # Here and not in the interpreter's last moments, where nobody can catch an error.
            sys.stdout.flush()
        except OSError as error:
            raise typer.Exit(explain_os(error)) from None
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


def explain_os(error: OSError) -> int:
    """Like `explain`, but silent if a reader of our output has left."""
    if isinstance(error, BrokenPipeError):
        forget_output()
        return FAILED
    return explain(error)


def explain(error: Exception) -> int:
    """Print what went wrong and what to do. Returns the exit code."""
    # Read directly from the environment, because the settings may be what is wrong.
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
                hint("next: run it for fewer at a time, for example with --since; notifier doctor")
            elif isinstance(error, ServiceUnavailable | PublishFailed):
                hint("next: notifier doctor")
            return FAILED
        case OutputFailed():
            forget_output()
            report(
                f"standard output cannot be written: {error.strerror}. What the command did stays done; give it "
                "an output that can be written"
            )
            return FAILED
        case OSError() if error.errno in _OF_THE_MACHINE:
            place = error.filename or "a file or standard input"
            report(f"{place} cannot be used: {error.strerror}; make room for it, or give another one")
            return FAILED
    report(
        f"{type(error).__name__}: {first_line(error)}\nThis is a fault of notifier's own. Run it again with "
        "NOTIFIER_LOG_LEVEL=debug to see where, and report it."
    )
    return FAILED


def report(text: str) -> None:
    print_parts(("error: ", "bold red"), (clean(text), ""), stream=sys.stderr)
