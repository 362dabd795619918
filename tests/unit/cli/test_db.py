"""What needs no service: the schema."""

from __future__ import annotations

import jsonschema

from notifier.domain.message import json_schema
from tests.unit.cli.commandline import CommandLine


def test_schema_message_prints_the_schema(notifier: CommandLine) -> None:
    printed = notifier("schema", "message").json
    assert printed == json_schema()
    jsonschema.Draft202012Validator.check_schema(printed)
