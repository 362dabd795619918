"""Who published, and whether that is the producer: every case of the table in the reference."""

from __future__ import annotations

from typing import Any

import pytest

from notifier.broker.user_id import VOUCHED, own_users
from notifier.config.structure import Structure
from notifier.domain.errors import ConfigurationError
from notifier.domain.message import Message, new_id
from notifier.domain.producers import ProducerProof
from notifier.domain.statuses import Channel
from notifier.intake.producers import Producers, check_broker, in_words

TABLES: dict[str, Any] = {
    "shop": {"broker_user": ["shop-a", "shop-b"]},
    "billing": {"broker_user": "billing"},
    "cli": {"channels": ["email"]},
}
OPEN = Structure.model_validate({"producers": TABLES})
STRICT = Structure.model_validate({"producers": TABLES, "require_proof": True})


@pytest.mark.parametrize(
    ("producer", "user", "is_open", "is_strict"),
    [
        ("shop", "shop-a", True, True),
        ("shop", "shop-b", True, True),
        ("billing", "billing", True, True),
        ("shop", None, False, False),
        ("shop", "billing", False, False),
        ("shop", "stranger", False, False),
        ("shop", "shop", False, False),
        ("shop", "SHOP-A", False, False),
        ("cli", None, True, False),
        ("cli", "stranger", True, False),
        ("cli", "shop-a", False, False),
        ("nobody", "billing", False, False),
        ("nobody", "stranger", True, False),
    ],
)
def test_who_is_taken_for_whom(producer: str, user: str | None, is_open: bool, is_strict: bool) -> None:
    for structure, is_accepted in ((OPEN, is_open), (STRICT, is_strict)):
        faults = Producers(structure).proof_faults(producer, user)
        expected = [] if is_accepted else [("producer", "producer_not_proven")]
        assert [(fault.field, fault.code) for fault in faults] == expected
        assert all(fault.fix for fault in faults)
    is_proven = (producer, user) in {("shop", "shop-a"), ("shop", "shop-b"), ("billing", "billing")}
    assert Producers(OPEN).proof(producer, user) is (
        ProducerProof.BROKER_USER if is_proven else ProducerProof.NONE
    )


def test_a_broker_that_tells_no_users_proves_nothing_and_refuses_nothing() -> None:
    producers = Producers(OPEN, own_users=("notifier",), broker_tells_users=False)
    assert producers.publisher("notifier", {VOUCHED: "shop-a"}) is None
    assert producers.proof_faults("shop", None) == []


def test_the_header_counts_from_the_services_own_user_alone() -> None:
    producers = Producers(OPEN, own_users=("notifier",))
    assert producers.publisher("notifier", {VOUCHED: "shop-a"}) == "shop-a"
    assert producers.publisher("billing", {VOUCHED: "shop-a"}) == "billing"
    assert producers.publisher(None, {VOUCHED: "shop-a"}) is None
    assert producers.publisher("notifier", {}) == "notifier"


@pytest.mark.parametrize("odd", ["", b"shop-a", 7, None, ["shop-a"], {"shop-a": 1}])
def test_what_is_no_name_is_nobodys(odd: Any) -> None:
    producers = Producers(OPEN, own_users=("notifier",))
    assert producers.publisher(odd, {}) is None
    assert producers.publisher("notifier", {VOUCHED: odd}) == "notifier"


@pytest.mark.parametrize(
    ("url", "known_as", "expected"),
    [
        ("amqp://notifier:pw@h/v", None, {"notifier"}),
        ("amqp://sh%40op:pw@h/v", None, {"sh@op"}),
        ("amqp://h/v", None, {"guest"}),
        ("amqp://a:pw@h/v;amqp://b:pw@h2/v", None, {"a", "b"}),
        ("amqp://a:pw@h/v;h2", None, {"a"}),
        ("amqps://h/v?login_method=EXTERNAL", None, set()),
        ("amqps://h/v?login_method=EXTERNAL", "CN=notifier", {"CN=notifier"}),
        ("amqp://notifier:pw@h/v", "", set()),
        ("redis://notifier:pw@h/0", None, set()),
    ],
)
def test_the_services_own_user_is_that_of_its_url(url: str, known_as: str | None, expected: set[str]) -> None:
    assert own_users(url, known_as) == expected


def test_proof_that_is_required_and_cannot_be_had_is_a_wrong_setting() -> None:
    check_broker(OPEN, "redis://h/0")
    check_broker(STRICT, "amqp://h/v")
    with pytest.raises(ConfigurationError, match="use RabbitMQ, or take require_proof out"):
        check_broker(STRICT, "redis://h/0")


def test_who_is_proven_is_said_in_words() -> None:
    assert in_words(OPEN, "amqp://h/v") == (
        "proven by their broker users: billing (billing), shop (shop-a, shop-b); others are taken at their word"
    )
    assert in_words(STRICT, "amqp://h/v").endswith("others are refused")
    assert in_words(Structure(), "amqp://h/v").startswith("taken at their word: ")
    assert "cannot tell who publishes" in in_words(OPEN, "redis://h/0")


@pytest.mark.parametrize(
    ("tables", "refused"),
    [({}, 1), ({"shop": {}}, 1), ({"shop": {"templates": ["raw_*"]}}, 0), ({"billing": {"templates": ["*"]}}, 1)],
)
def test_a_producers_own_html_needs_templates_that_name_it(tables: dict[str, Any], refused: int) -> None:
    message = Message(id=new_id(), producer="shop", to="ada@example.com", template="raw_email")
    producers = Producers(Structure.model_validate({"producers": tables}))
    faults = [
        *producers.own_html_faults(message),
        *producers.limit_faults(message, Channel.EMAIL, lambda: None),
    ]
    assert [fault.code for fault in faults] == ["template_not_allowed"] * refused
