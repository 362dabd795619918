"""Real processes: published → sent or refused → told, signed, to the producer's endpoint."""

from __future__ import annotations

import json
from pathlib import Path

from standardwebhooks import Webhook

from notifier.client import Client
from notifier.dev.smtp_server import Rule
from tests.support.callbacks import SECRETS
from tests.support.receiver import receiver
from tests.support.service import running_service
from tests.waiting import wait_until

RESET = {"reset_url": "https://shop.example.com/reset?token=x", "valid_minutes": 30}


def test_a_producer_is_told_of_what_was_sent_and_of_what_was_refused(
    database_url: str, amqp_url: str, tmp_path: Path
) -> None:
    rules = [Rule("nobody@example.com", "550 5.1.1 no such user")]
    with receiver() as hooks:
        config = tmp_path / "notifier.toml"
        config.write_text(
            '[senders.default]\nemail = "shop@example.com"\n'
            f'[callbacks.shop]\nurl = "http://127.0.0.1:{hooks.port}/"\n'
            'secrets = ["${SHOP_SECRET}"]\nstatuses = ["sent"]\n'
        )
        environment = {
            "NOTIFIER_CONFIG": str(config),
            "NOTIFIER_CALLBACK_ALLOW_HOSTS": "127.0.0.1",
            "SHOP_SECRET": SECRETS[0],
        }
        with (
            running_service(
                database_url, amqp_url, tmp_path, mail_rules=rules, environment=environment
            ) as service,
            Client(amqp_url, producer="shop", timeout_seconds=10) as client,
        ):
            client.send("password_reset", "ann@example.com", context=RESET, reference="good")
            client.send("password_reset", "nobody@example.com", context=RESET, reference="bad")
            wait_until(lambda: len(hooks.got) == 2, timeout=60)
        logs = "".join(log.read_text() for log in service.programs.logs.values())
        told = {}
        for got in hooks.got:
            data = Webhook(SECRETS[0]).verify(got.body, got.headers)["data"]
            told[data["reference"]] = data["status"]
        assert told == {"good": "sent", "bad": "failed"}
        assert not any(b"@example.com" in got.body for got in hooks.got)
        assert "callbacks.called" in logs
        assert json.dumps(SECRETS[0]) not in logs
