"""Real processes: published → sent or refused → told, signed, to the producer's endpoint."""

from __future__ import annotations

import json
from datetime import datetime
from pathlib import Path

from standardwebhooks import Webhook

from notifier.client.client import Client
from notifier.dev.smtp_server import Rule
from tests.support.callbacks import SECRETS
from tests.support.name_server import NEVER, name_server
from tests.support.receiver import receiver
from tests.support.service import running_service
from tests.waiting import slowness, wait_until

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
        # It needs no provider's secret, and no template.
        none = {
            "NOTIFIER_SMTP_URL": "",
            "NOTIFIER_TWILIO_AUTH_TOKEN": "",
            "NOTIFIER_TEMPLATES": str(tmp_path / "none"),
        }
        with (
            running_service(
                database_url,
                amqp_url,
                tmp_path,
                mail_rules=rules,
                environment=environment,
                own={"callbacks": none},
                callbacks=True,
            ) as service,
            Client(amqp_url, producer="shop", timeout_seconds=10) as client,
        ):
            client.send("password_reset", "ann@example.com", context=RESET, reference="good")
            client.send("password_reset", "nobody@example.com", context=RESET, reference="bad")
            wait_until(lambda: len(hooks.got) == 2, timeout=60)
        logs = {name: log.read_text() for name, log in service.programs.logs.items()}
        told = {}
        for got in hooks.got:
            data = Webhook(SECRETS[0]).verify(got.body, got.headers)["data"]
            told[data["reference"]] = data["status"]
        assert told == {"good": "sent", "bad": "failed"}
        assert not any(b"@example.com" in got.body for got in hooks.got)
        assert [name for name, log in logs.items() if "callbacks.called" in log] == ["callbacks"]
        assert json.dumps(SECRETS[0]) not in "".join(logs.values())


def test_producers_whose_names_nobody_answers_slow_neither_mails_nor_the_callbacks_of_others(
    database_url: str, amqp_url: str, tmp_path: Path
) -> None:
    late = {"never": NEVER}
    with name_server({"hooks.example.com": ("127.0.0.1",)}, late) as names, receiver() as hooks:
        config = tmp_path / "notifier.toml"
        config.write_text(
            '[senders.default]\nemail = "shop@example.com"\n'
            f'[callbacks.shop]\nurl = "http://hooks.example.com:{hooks.port}/"\n'
            'secrets = ["${SHOP_SECRET}"]\nstatuses = ["sent"]\n'
            '[callbacks.slow]\nsecrets = ["${SHOP_SECRET}"]\nstatuses = ["sent"]\n'
        )
        environment = {
            "NOTIFIER_CONFIG": str(config),
            "NOTIFIER_CALLBACK_ALLOW_HOSTS": "hooks.example.com",
            "NOTIFIER_CALLBACK_NAME_SERVERS": names.address,
            "SHOP_SECRET": SECRETS[0],
        }
        with (
            running_service(database_url, amqp_url, tmp_path, environment=environment, callbacks=True) as service,
            Client(amqp_url, producer="slow", timeout_seconds=10) as slow,
            Client(amqp_url, producer="shop", timeout_seconds=10) as shop,
        ):
            for number in range(100):
                url = f"https://never{number}.example.com/"
                slow.send("password_reset", f"s{number}@example.com", context=RESET, callback_url=url)
            wait_until(lambda: service.count("sent") == 100, timeout=60)
            wait_until(lambda: any(name.startswith("never") for name in names.asked), timeout=60)
            for number in range(20):
                shop.send("password_reset", f"f{number}@example.com", context=RESET)
            wait_until(lambda: len(hooks.got) == 20, timeout=30)
            told = [json.loads(got.body)["data"] for got in hooks.got]
            assert {one["producer"] for one in told} == {"shop"}
            waits = sorted(
                got.at - datetime.fromisoformat(one["occurred_at"])
                for got, one in zip(hooks.got, told, strict=True)
            )
            assert waits[10].total_seconds() < 2.5 * slowness()
