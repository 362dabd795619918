"""The AsyncAPI document in the docs is the one that the code makes, and its examples are messages."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest

from notifier.broker.async_api import async_api
from notifier.domain.statuses import Channel, Lane
from notifier.domain.validation import parse_body

FILE = Path(__file__).parents[3] / "docs" / "reference" / "asyncapi.json"


def test_the_document_of_the_docs_is_current() -> None:
    assert json.loads(FILE.read_text()) == async_api(), (
        "run `notifier schema asyncapi > docs/reference/asyncapi.json`"
    )


@pytest.mark.parametrize("name", ["Message", "Batch", "CloudEvent"])
def test_its_examples_are_messages_that_are_accepted(name: str) -> None:
    document = async_api()
    message = document["components"]["messages"][name]
    (example,) = (one["payload"] for one in message["examples"])
    jsonschema.validate(example, {**message["payload"], "components": document["components"]})
    assert [entry.faults for entry in parse_body(json.dumps(example).encode(), Channel.SMS, Lane.URGENT)] == [()]
