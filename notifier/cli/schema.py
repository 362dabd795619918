"""`notifier schema`: prints the formats that other programs use."""

from __future__ import annotations

from notifier.cli.output import print_json
from notifier.domain.errors import MissingPackage, add_extra


def message() -> None:
    """Print the JSON Schema of a message, and of a batch of messages."""
    from notifier.domain.message import json_schema

    print_json(json_schema())


def callback() -> None:
    """Print the JSON Schema of a callback, as a producer's endpoint receives it."""
    from notifier.callbacks.payload import json_schema

    print_json(json_schema())


def asyncapi() -> None:
    """Print the AsyncAPI document of the queues that producers publish to."""
    from notifier.broker.async_api import async_api

    print_json(async_api())


def openapi() -> None:
    """Print the OpenAPI document of the HTTP API. Needs no server and no settings."""
    try:
        from notifier.api.app import make_app
    except ImportError:
        raise MissingPackage(f"the HTTP API needs more packages: {add_extra('web')}") from None
    print_json(make_app().openapi())
