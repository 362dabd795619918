"""Pointers, statuses and cursors."""

from __future__ import annotations

from typing import Any

import pytest

from notifier.api.errors import pointer_of, retry_after, status_of
from notifier.api.export import wanted
from notifier.api.schemas import read_cursor, write_cursor
from notifier.domain.errors import Fault, WrongSelection
from notifier.domain.message import new_id


@pytest.mark.parametrize(
    ("field", "value", "pointer"),
    [
        ("", {}, ""),
        ("to", {"to": 1}, "/to"),
        ("context.items.0.name", {"context": {"items": [{"name": 1}]}}, "/context/items/0/name"),
        ("metadata.a.b", {"metadata": {"a.b": 1}}, "/metadata/a.b"),
        ("metadata.a.b", {"metadata": {"a": {"b": 1}}}, "/metadata/a/b"),
        ("metadata.a/b~c", {"metadata": {"a/b~c": 1}}, "/metadata/a~1b~0c"),
        ("context.order.id", {"context": {}}, "/context/order/id"),
        ("batch.3", {"batch": [1]}, "/batch/3"),
        ("a.", {"a": {}}, "/a"),
        ("x.0", None, "/x/0"),
    ],
)
def test_a_field_becomes_a_pointer_into_its_json(field: str, value: Any, pointer: str) -> None:
    assert pointer_of(field, value) == pointer


def test_the_status_is_that_of_the_weightiest_fault() -> None:
    def faults(*codes: str) -> list[Fault]:
        return [Fault("", code, "", "") for code in codes]

    assert status_of(faults("missing")) == 422
    assert status_of(faults("missing", "channel_not_allowed")) == 403
    assert status_of(faults("idempotency_conflict")) == 409
    assert status_of(faults("not_json")) == 400
    assert status_of(faults("technical_error", "missing")) == 500


def test_a_client_is_never_told_to_come_back_at_once() -> None:
    assert [retry_after(s)["Retry-After"] for s in (-1, 0, 0.2, 1.2)] == ["1", "1", "1", "2"]


def test_a_cursor_comes_back_as_the_id_it_was_made_of() -> None:
    last = new_id()
    assert read_cursor(write_cursor(last)) == last
    assert str(last) not in write_cursor(last)
    for wrong in ("", "x", "ä", "A" * 50, str(last)):
        with pytest.raises(WrongSelection):
            read_cursor(wrong)


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("", "json"),
        ("*/*", "json"),
        ("text/csv", "csv"),
        ("text/html, text/csv;q=0.9, */*", "csv"),
        ("application/x-ndjson", "jsonl"),
        ("application/json, text/csv", "json"),
    ],
)
def test_the_first_form_of_ours_that_is_accepted_is_sent(accept: str, kind: str) -> None:
    assert wanted(accept) == kind
