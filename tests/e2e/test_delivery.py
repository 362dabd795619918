"""From a published message to the mailbox, through real processes, brokers, database and provider code."""

from __future__ import annotations

import json
from collections import Counter
from datetime import UTC, datetime, timedelta
from email import message_from_bytes, policy
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from notifier import Client
from notifier.dev.smtp_server import Rule
from notifier.domain.statuses import Channel, Status, may_follow
from notifier.rendering import Renderer
from notifier.store.search import Filter
from tests.integration.test_intake import MALFORMED, NO_ENVELOPES
from tests.profiles import brokers, is_full
from tests.support.brokers import publish_raw, push_raw
from tests.support.service import Service, running_service
from tests.waiting import wait_until

TEMPLATES = Path(__file__).parents[2] / "templates"
CODE = {"code": "042137", "valid_minutes": 10}


def sample(channel: Channel, name: str, locale: str | None = None) -> dict[str, Any]:
    samples = Renderer(TEMPLATES).template(channel, name).samples
    return dict(next((s for s in samples if s.locale == locale), samples[0]).context)


def publish_one(service: Service, to: str = "ann@example.com", **fields: Any) -> Any:
    context = sample(Channel.EMAIL, "order_shipped", fields.get("locale"))
    with Client(service.broker_url, producer="shop", timeout_seconds=10) as client:
        return client.send("order_shipped", to, context=context, **fields)


def assert_story_is_lawful(service: Service) -> None:
    """Every move of every notification is in the table."""
    for row in service.audit.search(Filter(), limit=500):
        steps = [Status(e.status) for e in service.audit.story(row.id).events if e.status]
        assert all(may_follow(old, new) for old, new in pairwise(steps)), steps


# The intake alone takes them from both brokers in `tests/integration/test_intake.py`.
@pytest.mark.parametrize("broker_url", brokers(), indirect=True)
def test_malformed_messages_stop_nothing_and_good_ones_behind_them_arrive(
    database_url: str, broker_url: str, tmp_path: Path
) -> None:
    with running_service(database_url, broker_url, tmp_path) as service:
        # The first good one declares the queues and shows that everything runs.
        publish_one(service)
        wait_until(lambda: service.count("sent") == 1, timeout=60)
        before = service.programs.pids
        for routing_key, body, _, properties in MALFORMED.values():
            publish_raw(broker_url, routing_key, body, **properties)
        malformed = len(MALFORMED)
        if broker_url.startswith("redis"):
            for entry, _ in NO_ENVELOPES.values():
                push_raw(broker_url, "notify.email.normal", entry)
            malformed += len(NO_ENVELOPES)
        publish_one(service, "bob@example.com")
        wait_until(lambda: service.count("sent") == 2, timeout=60)
        wait_until(lambda: len(service.audit.rejected(limit=200)) == malformed, timeout=60)
        assert all(fault["problem"] for row in service.audit.rejected(limit=200) for fault in row.faults)
        assert service.programs.pids == before
        assert [mail.rcpt_to for mail in service.mail.messages] == [("ann@example.com",), ("bob@example.com",)]


def test_thousands_of_messages_arrive_each_once(database_url: str, amqp_url: str, tmp_path: Path) -> None:
    count = 10_000 if is_full() else 2_000
    context = sample(Channel.EMAIL, "order_shipped")
    entries = [{"to": f"user{n}@example.com", "idempotency_key": f"k{n}"} for n in range(count)]
    with running_service(database_url, amqp_url, tmp_path) as service:
        with Client(amqp_url, producer="shop", timeout_seconds=30) as client:
            client.send_many(entries, channel="email", lane="normal", template="order_shipped", context=context)
        wait_until(lambda: service.count("sent") == count, timeout=110)
        arrived = Counter(mail.rcpt_to[0] for mail in service.mail.messages)
        assert set(arrived.values()) == {1}
        assert len(arrived) == count
        assert len({mail.message_id for mail in service.mail.messages}) == count
        assert sum(row.count for row in service.audit.count()) == count


def test_single_messages_of_any_amqp_client_are_delivered(
    database_url: str, amqp_url: str, tmp_path: Path
) -> None:
    with running_service(database_url, amqp_url, tmp_path) as service:
        publish_one(service)  # declares the queues
        body = {
            "idempotency_key": "from-another-language",
            "producer": "billing",
            "to": "+15550100123",
            "template": "login_code",
            "context": CODE,
        }
        publish_raw(amqp_url, "sms.urgent", json.dumps(body).encode())
        wait_until(lambda: service.count("sent") == 2, timeout=60)
        (sms,) = service.twilio.messages
        assert (sms.to, sms.num_segments) == ("+15550100123", 1)
        assert "042137" in sms.body


def test_french_and_chinese_arrive_intact(database_url: str, redis_broker_url: str, tmp_path: Path) -> None:
    names = {"fr": "Chloé Lefèvre", "zh-Hans": "王小明"}
    with running_service(database_url, redis_broker_url, tmp_path) as service:
        for locale, name in names.items():
            publish_one(service, f"{name} <{locale}@example.com>", locale=locale)
        wait_until(lambda: service.count("sent") == len(names), timeout=60)
        mails = {mail.rcpt_to[0].partition("@")[0]: mail for mail in service.mail.messages}
        assert mails.keys() == names.keys()
        for locale, name in names.items():
            message = message_from_bytes(mails[locale].content, policy=policy.default)
            rendered = Renderer(TEMPLATES).render(
                Channel.EMAIL, "order_shipped", locale, sample(Channel.EMAIL, "order_shipped", locale)
            )
            text = message.get_body(("plain",))
            assert text is not None
            assert message["To"].addresses[0].display_name == name
            assert message["Subject"] == rendered.subject
            assert text.get_content().replace("\r\n", "\n").strip() == rendered.text.strip()
            assert [part.defects for part in message.walk() if part.defects] == []


def test_a_temporary_refusal_is_retried_and_a_permanent_one_is_not(
    database_url: str, redis_broker_url: str, tmp_path: Path
) -> None:
    rules = [
        Rule("later@example.com", reply="451 4.3.0 try later", times=1),
        Rule("never@example.com", reply="550 5.1.1 no such user"),
    ]
    with running_service(database_url, redis_broker_url, tmp_path, mail_rules=rules) as service:
        later = publish_one(service, "later@example.com", lane="urgent")
        never = publish_one(service, "never@example.com", lane="urgent")
        wait_until(lambda: service.count("sent") == 1 and service.count("failed") == 1, timeout=60)
        stories = {handle.id: service.audit.story(handle.id) for handle in (later, never)}
        assert [a.outcome for a in stories[later.id].attempts] == ["unavailable", "accepted"]
        assert [a.outcome for a in stories[never.id].attempts] == ["rejected"]
        assert stories[never.id].notification.reason == "invalid_recipient"
        assert_story_is_lawful(service)


def test_a_scheduled_message_leaves_at_its_time_and_an_expired_one_never(
    database_url: str, redis_broker_url: str, tmp_path: Path
) -> None:
    with running_service(database_url, redis_broker_url, tmp_path) as service:
        now = datetime.now(UTC)
        send_at = now + timedelta(seconds=4)
        scheduled = publish_one(service, send_at=send_at)
        expired = publish_one(service, "bob@example.com", expires_at=now - timedelta(seconds=1))
        wait_until(lambda: service.count("sent") == 1, timeout=60)
        sent_at = service.audit.story(scheduled.id).notification.sent_at
        assert sent_at is not None
        assert sent_at >= send_at
        assert service.audit.story(expired.id).notification.status == "expired"
        assert len(service.mail.messages) == 1


def test_a_worker_that_is_told_to_stop_finishes_what_is_in_flight(
    database_url: str, redis_broker_url: str, tmp_path: Path
) -> None:
    rules = [Rule("*", stage="body", delay_seconds=0.5)]
    with running_service(database_url, redis_broker_url, tmp_path, mail_rules=rules) as service:
        entries = [{"to": f"user{n}@example.com", "idempotency_key": f"k{n}"} for n in range(60)]
        context = sample(Channel.EMAIL, "order_shipped")
        with Client(redis_broker_url, producer="shop", timeout_seconds=10) as client:
            client.send_many(entries, channel="email", lane="bulk", template="order_shipped", context=context)
        wait_until(lambda: service.count("sending") > 0, timeout=60)
        service.programs.stop()
        assert service.count("sending") == 0
        assert service.count("sent") == len(service.mail.messages)
        service.programs.start()
        wait_until(lambda: service.count("sent") == 60, timeout=60)
        assert set(Counter(mail.rcpt_to for mail in service.mail.messages).values()) == {1}
