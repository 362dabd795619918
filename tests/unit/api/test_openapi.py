"""The OpenAPI document: whole, with right examples, and in step with docs/reference/http-api.md."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from notifier.api.app import make_app
from notifier.operations.api_keys import Scope
from tests.unit.cli.commandline import CommandLine

PAGE = (Path(__file__).parents[3] / "docs" / "reference" / "http-api.md").read_text("utf-8")


@pytest.fixture(scope="module")
def document() -> dict[str, Any]:
    """Made once, and not by processes that run none of these tests."""
    return make_app().openapi()


def test_the_command_prints_it_without_a_server(document: dict[str, Any]) -> None:
    assert CommandLine()("schema", "openapi").json == document


def test_every_route_has_a_name_of_its_own_and_a_line_in_the_docs(document: dict[str, Any]) -> None:
    operations = [one for methods in document["paths"].values() for one in methods.values()]
    assert len({one["operationId"] for one in operations}) == len(operations)
    for path in document["paths"]:
        told = path.replace("{notification}", "{id}").replace("/v1/rejected-messages/{message}", "…/{id}")
        told = told.replace("/v1/callbacks/{callback}", "…/{id}").replace("{recurring_id}", "{id}")
        told = told.replace("{job}", "{id}")
        assert told in PAGE, path


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    names = set(re.findall(r'"#/components/schemas/(\w+)"', json.dumps(document)))
    assert names <= set(document["components"]["schemas"])


@pytest.mark.parametrize("path", ["/v1/notifications", "/v1/notifications/batch"])
def test_an_example_is_one_of_what_it_shows(path: str, document: dict[str, Any]) -> None:
    content = document["paths"][path]["post"]["requestBody"]["content"]["application/json"]
    schema: dict[str, Any] = {**content["schema"], "components": document["components"]}
    jsonschema.validate(content["example"], schema)


@pytest.mark.parametrize("name", ["RetryRequest", "PreviewRequest", "Suppress", "AttachmentReceipt"])
def test_an_example_in_a_schema_is_valid(name: str, document: dict[str, Any]) -> None:
    [example] = document["components"]["schemas"][name]["examples"]
    schema = {"$ref": f"#/components/schemas/{name}", "components": document["components"]}
    jsonschema.validate(example, schema)


def test_every_refusal_is_a_problem(document: dict[str, Any]) -> None:
    for methods in document["paths"].values():
        for one in methods.values():
            for status, answer in one["responses"].items():
                if status >= "400" and one["operationId"] != "readyz":
                    assert list(answer["content"]) == ["application/problem+json"], one["operationId"]


def test_every_scope_is_documented() -> None:
    for word in Scope:
        assert f"`{word}`" in PAGE
