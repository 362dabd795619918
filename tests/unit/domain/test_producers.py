"""What somebody may send."""

from __future__ import annotations

from typing import Any

import pytest

from notifier.domain.producers import SendingRights
from notifier.domain.statuses import Channel, Lane


def fields(rights: SendingRights, **more: Any) -> list[tuple[str, str]]:
    message = {"channel": Channel.EMAIL, "lane": Lane.NORMAL, "template": "order_shipped", **more}
    found = rights.faults(owner="the producer shop", remedy="have it added", **message)
    return [(fault.field, fault.code) for fault in found]


def test_what_is_left_out_is_not_limited() -> None:
    assert fields(SendingRights(), identities={"sender": "anyone"}) == []


@pytest.mark.parametrize(
    ("template", "may"),
    [("order_shipped", True), ("receipt", True), ("receipts", False), ("my_order_1", False), ("ORDER_x", False)],
)
def test_templates_are_patterns(template: str, may: bool) -> None:
    rights = SendingRights(templates=("order_*", "receipt"))
    assert fields(rights, template=template) == ([] if may else [("template", "template_not_allowed")])


def test_everything_outside_is_named_at_once() -> None:
    rights = SendingRights(channels=("sms",), lanes=("bulk",), templates=("code",), senders=("shop",))
    assert fields(rights, identities={"sender": "shop", "reply_to": "support"}) == [
        ("channel", "channel_not_allowed"),
        ("lane", "lane_not_allowed"),
        ("template", "template_not_allowed"),
        ("reply_to", "sender_not_allowed"),
    ]


def test_a_fault_says_whose_limit_it_is_what_is_allowed_and_who_can_change_it() -> None:
    [fault] = SendingRights(lanes=("urgent", "bulk")).faults(
        owner="the producer shop",
        remedy="have it added",
        channel=Channel.SMS,
        lane=Lane.NORMAL,
        template="code",
    )
    assert str(fault) == "lane: is not a lane of the producer shop. Send on bulk or urgent, or have it added."
