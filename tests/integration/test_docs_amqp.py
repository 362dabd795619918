"""The Python of "Publish from any language" publishes to RabbitMQ with the variables that `notifier up` prints."""

from __future__ import annotations

from typing import Any

import pytest
from kombu import Connection

from notifier.broker.topology import declare_for_producers
from tests.support.pages import DOCS, blocks_of

PAGE = DOCS / "how-to" / "publish-from-any-language.md"


@pytest.mark.parametrize("begin", ["from notifier import Client\n\nwith", "import amqp, json"])
def test_a_block_publishes_as_it_stands(amqp_url: str, monkeypatch: pytest.MonkeyPatch, begin: str) -> None:
    monkeypatch.setenv("NOTIFIER_BROKER_URL", amqp_url)
    # The client declares what it publishes to; a plain library does not.
    with Connection(amqp_url) as connection:
        declare_for_producers(connection.default_channel)
        (block,) = (block for block in blocks_of(PAGE) if block.begins(begin))
        names: dict[str, Any] = {}
        exec(compile(block.code, PAGE.name, "exec", dont_inherit=True), names)
        assert connection.default_channel.queue_declare("notify.sms.urgent", passive=True).message_count == 1
