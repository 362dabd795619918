"""Dead letters as the broker gives them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import amqp

from notifier.broker.amqp_transport import to_publish_again
from notifier.broker.dead_letters import dead_letter, producers_own

DIED_AT = datetime(2026, 11, 22, 9, 30)  # noqa: DTZ001 - as py-amqp gives it


def message(body: Any = b"{}", **headers: Any) -> Any:
    written = amqp.Message(body, application_headers=headers, content_type="text/json")
    return read(body, written._serialize_properties())


def read(body: Any, raw: bytes) -> Any:
    """As the frame reader gives it."""
    found = amqp.Message(body)
    found.raw_properties = raw
    return found


def test_a_dead_letter_knows_where_it_died() -> None:
    deaths = [{"queue": "notify.sms.bulk", "reason": "delivery_limit", "time": DIED_AT, "count": 1}]
    letter = dead_letter(message(**{"x-death": deaths}))
    assert (letter.queue, letter.reason) == ("notify.sms.bulk", "delivery_limit")
    assert letter.died_at == DIED_AT.replace(tzinfo=UTC)
    assert (letter.raw.queue, letter.raw.content_type) == ("notify.sms.bulk", "text/json")


def test_what_somebody_else_put_there_is_shown_all_the_same() -> None:
    wrong: list[dict[str, Any]] = [{}, {"x-death": "?"}, {"x-death": []}, {"x-death": ["?"]}, {"x-death": [{}]}]
    for headers in wrong:
        letter = dead_letter(message(**headers))
        assert (letter.queue, letter.reason, letter.died_at) == ("", "", None)
    bare = dead_letter(amqp.Message(None))
    assert bare.raw.body == b""


def test_its_id_is_made_of_what_it_holds() -> None:
    assert dead_letter(message(b"a", n=1)).id == dead_letter(message(b"a", n=2)).id
    assert dead_letter(message(b"a")).id != dead_letter(message(b"b")).id


def test_the_brokers_own_headers_do_not_travel_on() -> None:
    headers = {"x-death": [], "x-delivery-count": 3, "x-first-death-queue": "q", "x-last-death-reason": "r"}
    assert producers_own(headers | {"trace": "t1", "x-mine": 1}) == {"trace": "t1", "x-mine": 1}


def test_one_with_properties_that_cannot_be_read_still_knows_where_it_died() -> None:
    deaths = [{"queue": "notify.sms.bulk", "reason": "delivery_limit", "count": 1}]
    written = amqp.Message(b"{}", application_headers={"x-death": deaths})._serialize_properties()
    odd = b"\x07sent_atT" + (1_764_400_000_000).to_bytes(8, "big")
    raw = written[:2] + (len(written) - 6 + len(odd)).to_bytes(4, "big") + odd + written[6:]
    letter = dead_letter(read(b"{}", raw))
    assert (letter.queue, letter.reason) == ("notify.sms.bulk", "delivery_limit")
    assert "headers.sent_at" in letter.problem
    # Published again, it is what its producer sent.
    assert letter.raw.properties == written[:2] + len(odd).to_bytes(4, "big") + odd


def test_what_is_published_again_is_without_the_name_of_another_user() -> None:
    written = amqp.Message(b"", content_type="a", user_id="shop", app_id="b")._serialize_properties()
    expected = amqp.Message(b"", content_type="a", app_id="b")._serialize_properties()
    assert to_publish_again(written, lambda _: False) == expected
