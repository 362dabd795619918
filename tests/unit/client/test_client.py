"""The client's checks, batches and handles, on the recording client: nothing leaves the process."""

from __future__ import annotations

import json
import pickle
from copy import deepcopy
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry.sdk.trace import TracerProvider

from notifier import (
    Channel,
    Client,
    ConfigurationError,
    InvalidMessage,
    Lane,
    NotifierResult,
    RecordingClient,
    new_id,
)
from notifier.broker.batch_form import MAX_ENTRY_BYTES, join, portions
from notifier.broker.publisher import Wire
from notifier.domain.message import MAX_BATCH_ENTRIES, MAX_BODY_BYTES
from notifier.domain.validation import parse_body


@pytest.fixture(autouse=True)
def nothing_runs_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No `notifier up` of the developer is found."""
    monkeypatch.setenv("NOTIFIER_DATA_DIR", str(tmp_path))


@pytest.fixture
def client() -> RecordingClient:
    return RecordingClient(producer="shop")


def test_a_message_is_recorded_with_the_handle_that_its_producer_got(client: RecordingClient) -> None:
    handle = client.send("order_shipped", "ann@example.com", context={"n": 1}, idempotency_key="order-1")
    (sent,) = client.sent
    assert sent.handle == handle
    assert (sent.message.producer, sent.message.template, sent.message.context) == (
        "shop",
        "order_shipped",
        {"n": 1},
    )
    assert (handle.channel, handle.lane, handle.idempotency_key) == (Channel.EMAIL, Lane.NORMAL, "order-1")
    assert handle.id == sent.message.id


def test_without_an_idempotency_key_the_id_is_the_key(client: RecordingClient) -> None:
    handle = client.send("hello", "ann@example.com")
    assert handle.idempotency_key == str(handle.id)


def test_a_number_makes_it_sms_and_a_given_channel_wins(client: RecordingClient) -> None:
    assert client.send("code", "+15550100123", lane="urgent").channel is Channel.SMS
    with pytest.raises(InvalidMessage, match="not an e-mail address"):
        client.send("code", "+15550100123", channel="email")


def test_everything_that_is_wrong_is_said_at_once_and_nothing_is_taken(client: RecordingClient) -> None:
    with pytest.raises(InvalidMessage) as refused:
        client.send("no spaces", "ann@example.com", colour="red", locale="?")
    assert {fault.field for fault in refused.value.faults} == {"template", "colour", "locale"}
    assert client.sent == []


def test_an_unknown_channel_or_lane_names_the_known_ones_beside_all_else(client: RecordingClient) -> None:
    with pytest.raises(InvalidMessage, match="is not one of email, sms") as refused:
        client.send("no spaces", "nobody", channel="fax", lane="slow", colour="red")
    assert {fault.field for fault in refused.value.faults} == {"channel", "lane", "template", "to", "colour"}
    entries = [{"to": "+15550100123"}, {"to": "a@example.com", "locale": "?"}]
    with pytest.raises(InvalidMessage) as refused:
        client.send_many(entries, channel="fax", lane="slow", template="news")
    assert [fault.field for fault in refused.value.faults] == ["channel", "lane", "1.locale"]
    for wrong in ({"channel": "fax"}, {"lane": "slow"}):
        with pytest.raises(InvalidMessage, match="is not one of"):
            client.send("hello", "ann@example.com", **wrong)  # type: ignore[arg-type]
    assert client.sent == []


@pytest.mark.parametrize("to", ["555", "15550100123", "nobody", "555 0100"])
def test_a_recipient_of_no_channel_is_held_against_both(client: RecordingClient, to: str) -> None:
    both = (
        r"to: neither an e-mail address nor a number in E.164. Write it as name@example.com or as \+15550100123."
    )
    with pytest.raises(InvalidMessage, match=both):
        client.send("code", to)
    for channel, of_one in (("email", "not an e-mail address"), ("sms", "not an E.164 number")):
        with pytest.raises(InvalidMessage, match=f"to: {of_one}"):
            client.send("code", to, channel=channel)
    for other in ("+555", "nobody@", "", "a\x00b"):
        with pytest.raises(InvalidMessage, match=r"to: (?!neither)"):
            client.send("code", other)


@pytest.mark.parametrize("to", [None, 5, b"+15550100123"])
def test_a_recipient_that_is_no_text_is_a_fault(client: RecordingClient, to: Any) -> None:
    with pytest.raises(InvalidMessage) as refused:
        client.send("hello", to)
    assert [fault.field for fault in refused.value.faults] == ["to"]


@pytest.mark.parametrize("field", ["lane", "channel", "id", "attachments", "send_at", "metadata"])
def test_a_field_without_end_is_a_fault(client: RecordingClient, field: str) -> None:
    endless: Any = []
    for _ in range(5000):
        endless = [endless]
    with pytest.raises(InvalidMessage):
        client.send("hello", "ann@example.com", **{field: endless})
    with pytest.raises(InvalidMessage):
        client.send_many([{"template": "hello", "to": "ann@example.com", field: endless}], channel="email")


@pytest.mark.parametrize("context", [0, "", [], (), set(), False])
def test_a_context_that_is_no_object_is_a_fault(client: RecordingClient, context: Any) -> None:
    with pytest.raises(InvalidMessage, match="context: is not an object"):
        client.send("hello", "ann@example.com", context=context)


def test_a_message_above_the_limit_is_refused_before_it_is_published(client: RecordingClient) -> None:
    with pytest.raises(InvalidMessage) as refused:
        client.send("hello", "ann@example.com", context={"text": "x" * MAX_BODY_BYTES})
    assert [fault.code for fault in refused.value.faults] == ["too_large"]


def test_many_take_the_defaults_and_their_own_fields_win(client: RecordingClient) -> None:
    entries = [{"to": "a@example.com"}, {"to": "b@example.com", "template": "other"}]
    handles = client.send_many(entries, channel="email", template="news", reference="may")
    assert [sent.message.template for sent in client.sent] == ["news", "other"]
    assert {sent.message.reference for sent in client.sent} == {"may"}
    assert [handle.lane for handle in handles] == [Lane.BULK, Lane.BULK]


def test_one_bad_entry_of_many_keeps_all_of_them_and_names_its_position(client: RecordingClient) -> None:
    entries: list[dict[str, Any]] = [
        {"to": "a@example.com"},
        {"to": "nobody"},
        {"to": "c@example.com", "locale": "?"},
    ]
    with pytest.raises(InvalidMessage) as refused:
        client.send_many(entries, channel="email", template="news")
    assert [fault.field for fault in refused.value.faults] == ["1.to", "2.locale"]
    entries = [{"to": "a@example.com", "channel": "email", "lane": None}, {"to": "b@example.com", "lane": "high"}]
    with pytest.raises(InvalidMessage) as refused:
        client.send_many([*entries, {"to": "c@example.com", "channel": "sms"}], channel="email", template="news")
    assert [fault.field for fault in refused.value.faults] == ["1.lane", "2.channel"]
    assert client.sent == []


def test_a_handle_is_a_value_of_its_ids(client: RecordingClient) -> None:
    handle = client.send("hello", "ann@example.com")
    for copied in (pickle.loads(pickle.dumps(handle)), deepcopy(handle), replace(handle)):
        assert (copied, repr(copied), hash(copied)) == (handle, repr(handle), hash(handle))
    assert asdict(handle).keys() == {"id", "idempotency_key", "channel", "lane"}
    with pytest.raises(ConfigurationError, match="NOTIFIER_API_URL"):
        handle.status()


def test_what_is_no_message_no_id_and_no_address_is_said_by_its_name(client: RecordingClient) -> None:
    with pytest.raises(InvalidMessage) as refused:
        client.send_many([{"to": "a@example.com"}, 3, "x"], channel="email", template="news")  # type: ignore[list-item]
    assert [(fault.field, fault.code) for fault in refused.value.faults] == [
        ("1", "not_an_object"),
        ("2", "not_an_object"),
    ]
    for ask in (NotifierResult, Client("amqp://127.0.0.1:1//").status):
        with pytest.raises(ValueError, match="notification_id is not a UUID: give the id of the handle"):
            ask("junk")
    wrong: Any = 5
    for make in (Client, lambda url: Client(api_url=url, api_key="x").status(new_id())):
        with pytest.raises(ConfigurationError, match="URL"):
            make(wrong)
    with pytest.raises(ConfigurationError, match="key"):
        Client(api_url="http://127.0.0.1:1", api_key=wrong).status(new_id())


def test_many_of_none_is_nothing(client: RecordingClient) -> None:
    assert client.send_many([], channel="email", template="news") == []


def test_a_client_without_a_broker_says_what_it_needs() -> None:
    with pytest.raises(ConfigurationError, match="outbox="):
        Client(producer="shop").send("hello", "ann@example.com")


def test_no_repr_shows_the_password() -> None:
    url = "amqp://shop:secret@broker.example.com:5672//"
    assert "secret" not in repr(Client(url, producer="shop")) + repr(Wire(url))


def test_an_engine_is_no_transaction_to_write_in() -> None:
    with pytest.raises(TypeError, match="Session or a Connection, not str"):
        Client(producer="shop").send("hello", "ann@example.com", outbox="session")  # type: ignore[arg-type]


def test_a_recording_client_keeps_what_goes_to_an_outbox_too(client: RecordingClient) -> None:
    client.send("hello", "ann@example.com", outbox=object())  # type: ignore[arg-type]
    assert len(client.sent) == 1


def test_a_message_alone_travels_as_it_is_and_several_as_a_batch() -> None:
    assert join([b'{"a":1}']) == b'{"a":1}'
    assert json.loads(join([b'{"a":1}', b'{"b":2}'])) == {"batch": [{"a": 1}, {"b": 2}]}


def test_a_portion_holds_as_many_entries_as_the_contract_allows() -> None:
    sizes = [len(portion) for portion in portions([b"{}"] * (2 * MAX_BATCH_ENTRIES + 1), bytes)]
    assert sizes == [MAX_BATCH_ENTRIES, MAX_BATCH_ENTRIES, 1]


def test_a_portion_is_filled_to_the_last_byte() -> None:
    half = b"x" * ((MAX_ENTRY_BYTES - 1) // 2)
    rest = b"x" * (MAX_ENTRY_BYTES - 1 - len(half))
    assert [len(join(portion)) for portion in portions([half, rest], bytes)] == [MAX_BODY_BYTES]
    assert len(list(portions([half, rest + b"x"], bytes))) == 2


@given(st.lists(st.integers(min_value=2, max_value=MAX_ENTRY_BYTES // 2), max_size=30))
def test_portions_lose_nothing_keep_the_order_and_the_limits(sizes: list[int]) -> None:
    found = list(portions(enumerate(sizes), lambda item: b"x" * item[1]))
    assert [item for portion in found for item in portion] == list(enumerate(sizes))
    for portion in found:
        assert sum(size for _, size in portion) + len(portion) - 1 <= MAX_ENTRY_BYTES


def test_the_intake_reads_every_entry_of_what_is_joined(client: RecordingClient) -> None:
    client.send_many([{"to": f"{n}@example.com"} for n in range(3)], channel="email", template="news")
    body = join([sent.message.encode() for sent in client.sent])
    entries = parse_body(body, Channel.EMAIL, Lane.BULK)
    assert [entry.message for entry in entries] == [sent.message for sent in client.sent]


def test_a_given_id_stays(client: RecordingClient) -> None:
    chosen = new_id()
    assert client.send("hello", "ann@example.com", id=chosen).id == chosen


@pytest.mark.parametrize("name", ["x" * 256, "é" * 128, "\ud800", 5])
@pytest.mark.parametrize("url", ["amqp://127.0.0.1:1//", "redis://127.0.0.1:1/0"])
def test_a_broker_user_that_can_be_nobody_is_refused_at_once(url: str, name: Any) -> None:
    with pytest.raises(ConfigurationError, match="broker_user is not a possible name") as refused:
        Client(url, producer="shop", broker_user=name)
    assert refused.value.setting == "broker_user"


def test_a_message_belongs_to_the_span_in_which_it_was_sent(client: RecordingClient) -> None:
    with TracerProvider(shutdown_on_exit=False).get_tracer("shop").start_as_current_span("order") as span:
        client.send("hello", "ann@example.com")
        client.send_many([{"to": "a@example.com"}], channel="email", template="news")
        client.send("hello", "ann@example.com", traceparent=f"00-{'1' * 32}-{'2' * 16}-00")
    client.send("hello", "ann@example.com")
    context = span.get_span_context()
    own = f"00-{context.trace_id:032x}-{context.span_id:016x}-{context.trace_flags:02x}"
    given = f"00-{'1' * 32}-{'2' * 16}-00"
    assert [sent.message.traceparent for sent in client.sent] == [own, own, given, None]
    # As the broker and an outbox get it.
    assert json.loads(client.sent[0].message.encode())["traceparent"] == own
