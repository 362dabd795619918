"""Dead letters as the broker gives them."""

from __future__ import annotations

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

from notifier.requeueing import dead_letter, producers_own

DIED_AT = datetime(2026, 11, 22, 9, 30)  # noqa: DTZ001 - as py-amqp gives it


def message(body: Any = b"{}", **headers: Any) -> Any:
    return SimpleNamespace(body=body, properties={"application_headers": headers, "content_type": "text/json"})


def test_a_dead_letter_knows_where_it_died() -> None:
    deaths = [{"queue": "notify.sms.bulk", "reason": "delivery_limit", "time": DIED_AT, "count": 1}]
    letter = dead_letter(message(**{"x-death": deaths}))
    assert (letter.queue, letter.reason) == ("notify.sms.bulk", "delivery_limit")
    assert letter.died_at == DIED_AT.replace(tzinfo=UTC)
    assert (letter.raw.queue, letter.raw.content_type) == ("notify.sms.bulk", "text/json")


def test_what_somebody_else_put_there_is_shown_all_the_same() -> None:
    for headers in ({}, {"x-death": "?"}, {"x-death": []}, {"x-death": ["?"]}, {"x-death": [{}]}):
        letter = dead_letter(message(**headers))
        assert (letter.queue, letter.reason, letter.died_at) == ("", "", None)
    bare = dead_letter(SimpleNamespace(body=None, properties={}))
    assert bare.raw.body == b""


def test_its_id_is_made_of_what_it_holds() -> None:
    assert dead_letter(message(b"a", n=1)).id == dead_letter(message(b"a", n=2)).id
    assert dead_letter(message(b"a")).id != dead_letter(message(b"b")).id


def test_the_brokers_own_headers_do_not_travel_on() -> None:
    headers = {"x-death": [], "x-delivery-count": 3, "x-first-death-queue": "q", "x-last-death-reason": "r"}
    assert producers_own(headers | {"trace": "t1", "x-mine": 1}) == {"trace": "t1", "x-mine": 1}
