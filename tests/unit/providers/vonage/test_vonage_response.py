"""Answers of Vonage that are not what they should be."""

from __future__ import annotations

import json

import pytest

from notifier.domain.errors import OutcomeUnknown, Unavailable
from notifier.providers.base import Receipt
from notifier.providers.vonage.response import read_receipt

TAKEN = {"status": "0", "message-id": "0C000000217B7F02"}


def test_one_part_accepted_is_a_receipt() -> None:
    body = json.dumps({"message-count": "1", "messages": [TAKEN]})
    assert read_receipt(body) == Receipt("0C000000217B7F02", "accepted")


@pytest.mark.parametrize(
    "body",
    [
        "",
        "<html>",
        "null",
        "[]",
        "{}",
        '{"messages": null}',
        '{"messages": []}',
        '{"messages": ["0"]}',
        '{"messages": [{}]}',
        '{"message-count": "many", "messages": [{"status": "0", "message-id": "x"}]}',
        '{"message-count": "2", "messages": [{"status": "0", "message-id": "x"}]}',
        '{"message-count": "2", "messages": [{"status": "9"}]}',
        '{"message-count": "1", "messages": [{"status": "0"}]}',
        '{"message-count": "1", "messages": [{"status": null}]}',
    ],
)
def test_what_cannot_be_read_is_unknown(body: str) -> None:
    with pytest.raises(OutcomeUnknown):
        read_receipt(body)


def test_a_status_may_be_a_number() -> None:
    with pytest.raises(Unavailable):
        read_receipt('{"message-count": 1, "messages": [{"status": 9}]}')


def test_numbers_in_the_words_are_masked() -> None:
    body = json.dumps({"messages": [{"status": "13", "error-text": "no way to 15550100123"}]})
    with pytest.raises(Unavailable) as failed:
        read_receipt(body)
    assert failed.value.detail == "no way to ***23"
