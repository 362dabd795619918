"""Checks of `notifier doctor` on status callbacks."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from notifier.broker.inspection import Broker
from notifier.broker.topology import callbacks_queue
from notifier.callbacks.url_guard import url_problem
from notifier.cli.check_result import Check, split_error
from notifier.domain.errors import ConfigurationError

if TYPE_CHECKING:
    from notifier.bootstrap import Services
    from notifier.config.settings import Settings

#: What must be running.
_FIX = "run `notifier callbacks run`, or a worker with --callbacks, and `notifier beat`"


def check_callbacks(settings: Settings) -> Iterator[Check]:
    """Checks the endpoints and secrets in notifier.toml. No endpoint is called."""
    tables, allowed = settings.structure.callbacks, settings.callback_hosts
    wrong = []
    for producer, table in tables.items():
        problem = url_problem(table.url, allowed) if table.url else None
        if problem:
            fix = (
                "use https on port 443 or 8443 of a public host, or add its host to NOTIFIER_CALLBACK_ALLOW_HOSTS"
            )
            wrong.append(Check("callbacks", False, f"the url of [callbacks.{producer}] {problem}", fix))
        try:
            table.keys(producer)
        except ConfigurationError as error:
            wrong.append(Check("callbacks", False, *split_error(str(error))))
    yield from wrong
    if not wrong and tables:
        hosts = f"; any address is allowed for {', '.join(sorted(allowed))}" if allowed else ""
        yield Check("callbacks", True, f"told: {', '.join(sorted(tables))}{hosts}")


def check_endpoints(services: Services) -> Iterator[Check]:
    """Checks for suspended endpoints and late callbacks."""
    late = 0
    for stuck in services.callbacks.stuck():
        if stuck.cause == "endpoint_suspended":
            fix = f"when it works again: notifier callbacks resume '{stuck.endpoint}'"
            detail = f"{stuck.endpoint} is suspended: every call for days has failed"
            yield Check("callbacks", False, detail, fix)
        else:
            late += stuck.count
    if late:
        yield Check("callbacks", False, f"{late} are late: no process makes them, or not fast enough", _FIX)


def check_readers(broker: Broker) -> Iterator[Check]:
    """Whether any process calls producers' endpoints. While a service is being set up, none has to run yet."""
    if not broker.state(callbacks_queue()).consumers:
        yield Check("callbacks", True, "no process calls the endpoints of producers at the moment", _FIX)
