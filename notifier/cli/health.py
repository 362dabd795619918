"""`notifier health`: tells probes whether a program on this host or in this container still works."""

from __future__ import annotations

import json
from enum import StrEnum
from http.client import HTTPConnection, HTTPException
from typing import TYPE_CHECKING, Annotated

import typer
from typer import Argument

from notifier.cli.exit_codes import FAILED, report
from notifier.cli.output import print_line
from notifier.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from notifier.config.settings import Settings

#: A program that takes longer to answer hangs. Seconds.
_ANSWER_SECONDS = 5.0
_EVERYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - where they listen, not we


class _NobodyListensError(Exception):
    """Nobody listens there; the text says why."""


class Program(StrEnum):
    """The programs that can be asked."""

    INTAKE = "intake"
    WORKER = "worker"
    CALLBACKS = "callbacks"
    BEAT = "beat"
    BOUNCES = "bounces"
    API = "api"


def health(
    program: Annotated[
        Program | None, Argument(help="The program to ask; default: the one that listens.", show_default=False)
    ] = None,
) -> None:
    """Ask a running program whether it still works, by its /healthz. For container probes.

    A program that waits for a database or a broker is healthy. `notifier doctor` names what is away.
    """
    from notifier.config.settings import load_settings

    settings = load_settings(use_running=False)
    problems: list[str] = []
    for host, port, setting in _places(settings, program):
        try:
            problem = _ask(host, port, program)
        except _NobodyListensError as nobody:
            problems.append(f"nothing answers on port {port}: {nobody} ({setting})")
            continue
        if problem is None:
            print_line(f"healthy: {program or 'the program'} on port {port}")
            return
        # If one program listens but is not well, another healthy one is no excuse.
        problems.append(f"{problem} ({setting})")
        break
    report(f"unhealthy: {'; '.join(problems)}")
    raise typer.Exit(FAILED)


def _places(settings: Settings, program: Program | None) -> list[tuple[str, int, str]]:
    """Host, port and setting of each place where the program may listen; the first one that listens is it.

    Without a name it may be the API, which has no metrics port: in its container nobody listens on that one.
    """
    api = (settings.api_host, settings.api_port, "NOTIFIER_API_PORT")
    if program is Program.API:
        return [api]
    if settings.metrics_port is not None:
        own = (settings.metrics_host, settings.metrics_port, "NOTIFIER_METRICS_PORT")
        return [own] if program else [own, api]
    if program is None:
        return [api]
    raise ConfigurationError(
        f"{program} cannot be asked without a port: set the same NOTIFIER_METRICS_PORT for it and this command",
        setting="NOTIFIER_METRICS_PORT",
    )


def _ask(host: str, port: int, program: Program | None) -> str | None:
    """What is wrong; None: nothing. Raises `_NobodyListensError`."""
    connection = HTTPConnection(_EVERYWHERE.get(host, host), port, timeout=_ANSWER_SECONDS)
    try:
        connection.connect()
    except TimeoutError:
        return _no_answer(port)
    except OSError as error:
        raise _NobodyListensError(error.strerror or type(error).__name__) from None
    try:
        connection.request("GET", "/healthz")
        answer = connection.getresponse()
        said = json.loads(answer.read())
        status, name = said["status"], said.get("program", Program.API)
    except TimeoutError:
        return _no_answer(port)
    except (OSError, HTTPException) as error:
        return f"nothing answers on port {port}: {getattr(error, 'strerror', None) or type(error).__name__}"
    except (ValueError, KeyError, TypeError, AttributeError):
        return f"what answers on port {port} is not a program of notifier"
    finally:
        connection.close()
    if program not in (None, name):
        return f"port {port} belongs to {name}"
    return None if answer.status == 200 else f"{name} is {status}"


def _no_answer(port: int) -> str:
    return f"no answer within {_ANSWER_SECONDS:g} s on port {port}"
