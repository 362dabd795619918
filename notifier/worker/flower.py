"""Runs Celery's Flower, read-only and with a password."""

from __future__ import annotations

import logging
import os
import secrets
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from celery.app.control import Inspect

from notifier.config.settings import Settings
from notifier.domain.errors import ConfigurationError, MissingPackage, add_extra
from notifier.worker.app import make_app

#: Flower's own variable, "user:password", so that no list of processes shows the password.
LOGIN = "FLOWER_BASIC_AUTH"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")


class _Unasked(Inspect):  # type: ignore[misc]  # Celery ships no types
    """Asks nothing. Flower asks all workers at its start, and again for the page of a worker. If they answer no
    questions, it waits for each of its eight questions and logs a warning."""

    def _request(self, _command: str, **_: Any) -> dict[str, Any]:
        return {}


def run_flower(settings: Settings, host: str, port: int, *, announce: Callable[[str], None]) -> None:
    """Serve until SIGTERM or SIGINT. `announce` gets the address, and the login if it was made for this run.

    Raises:
        MissingPackage: Flower is not installed.
        ConfigurationError: others could reach it and no password is set, or the login is not in Flower's form.
    """
    if find_spec("flower") is None:
        raise MissingPackage(f"Flower is not installed: {add_extra('flower')}")
    _set_login(host, announce)
    announce(f"Flower at http://{host}:{port}")
    options = [f"--address={host}", f"--port={port}", "--read_only=True"]
    if "FLOWER_CONF" not in os.environ:
        # It would run a flowerconfig.py of the folder it is started in, which can set another login, or none.
        options.append(f"--conf={os.devnull}")
    _refuse_strange_logins()
    # Its warnings are about what strangers ask for, who could fill a disk with them.
    logging.getLogger("tornado.general").setLevel(logging.ERROR)
    app = make_app(settings)
    if not settings.worker_questions:
        app.control.inspect = app.subclass_with_self(_Unasked, reverse="control.inspect")
    app.start(["--quiet", "flower", *options])


def _set_login(host: str, announce: Callable[[str], None]) -> None:
    """Check the login in the environment, where Flower reads it. If it is missing or empty, make one."""
    login = os.environ.get(LOGIN, "")
    if not login:
        if host not in _LOOPBACK:
            raise ConfigurationError(
                f"{LOGIN} is not set, and others can reach {host}: set it to user:password", setting=LOGIN
            )
        login = os.environ[LOGIN] = f"operator:{secrets.token_urlsafe(9)}"
        announce(f"login for this run: {login.replace(':', ', password ')}")
    user, _, password = login.partition(":")
    if not user or not password:
        raise ConfigurationError(f"{LOGIN} lacks a user or a password: set it to user:password", setting=LOGIN)
    if "," in login:
        # Flower would read several logins: with "op:a,b" the password would be "a".
        raise ConfigurationError(f"{LOGIN} has a comma, where Flower would cut it: choose another", setting=LOGIN)
    if not login.isascii():
        # Flower compares ASCII alone: nobody could log in.
        raise ConfigurationError(
            f"{LOGIN} has other characters than ASCII, which Flower cannot compare: choose another", setting=LOGIN
        )


def _refuse_strange_logins() -> None:
    """Somebody shows a login with other characters than ASCII: it is wrong, as any other. Flower would answer 500
    and log a trace, as often as anybody likes."""
    from flower.views import BaseHandler
    from tornado.web import HTTPError

    def checked(handler: BaseHandler) -> Any:
        try:
            return compared(handler)
        except TypeError:
            raise HTTPError(401) from None

    compared, BaseHandler.get_current_user = BaseHandler.get_current_user, checked
