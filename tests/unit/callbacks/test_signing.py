"""Signatures, verified by the library of Standard Webhooks, and the secrets of notifier.toml."""

from __future__ import annotations

import base64
import json
import time

import jsonschema
import pytest
from pydantic import ValidationError
from standardwebhooks import Webhook, WebhookVerificationError

from notifier.callbacks import signing
from notifier.callbacks.payload import encode, json_schema
from notifier.config.callbacks import CallbackTable
from notifier.domain.errors import ConfigurationError
from notifier.domain.message import new_id
from notifier.domain.statuses import FINAL_STATUSES, Status
from notifier.store.callbacks import ClaimedCallback

OLD = "whsec_" + base64.b64encode(b"a" * 32).decode()
NEW = "whsec_" + base64.b64encode(b"b" * 32).decode()
BODY = b'{"type":"notification.status"}'


def signed(*secrets: str, at: int | None = None) -> dict[str, str]:
    keys = CallbackTable.model_validate({"secrets": list(secrets)}).keys("shop")
    return signing.headers(keys, "id-1", at or int(time.time()), BODY)


def test_the_example_of_the_specification_has_its_signature() -> None:
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    found = signing.headers([key], "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}')
    assert found["webhook-signature"] == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@pytest.mark.parametrize("secret", [OLD, NEW])
def test_while_secrets_are_rotated_either_verifies(secret: str) -> None:
    assert Webhook(secret).verify(BODY, signed(OLD, NEW)) == json.loads(BODY)


def test_another_secret_another_body_and_an_old_timestamp_do_not_verify() -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(NEW).verify(BODY, signed(OLD))
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(BODY + b" ", signed(OLD))
    with pytest.raises(WebhookVerificationError):
        Webhook(OLD).verify(BODY, signed(OLD, at=int(time.time()) - 600))


def test_a_secret_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    table = CallbackTable.model_validate({"secrets": ["${SHOP_SECRET}"]})
    with pytest.raises(ConfigurationError, match="SHOP_SECRET"):
        table.keys("shop")
    monkeypatch.setenv("SHOP_SECRET", NEW)
    assert table.keys("shop") == (b"b" * 32,)
    assert NEW not in repr(CallbackTable.model_validate({"secrets": [NEW]}))


@pytest.mark.parametrize("secret", ["", "whsec_", "whsec_c2hvcnQ=", "whsec_!!!", OLD.removeprefix("whsec_")])
def test_what_is_no_secret_is_refused_without_being_repeated(secret: str) -> None:
    with pytest.raises(ConfigurationError, match="openssl rand") as error:
        CallbackTable.model_validate({"secrets": [secret]}).keys("shop")
    assert len(secret) < 10 or secret not in str(error.value)


@pytest.mark.parametrize("secrets", [[], [OLD, NEW, OLD]])
def test_there_are_one_or_two_secrets(secrets: list[str]) -> None:
    with pytest.raises(ValidationError):
        CallbackTable.model_validate({"secrets": secrets})


def test_final_statuses_are_always_told() -> None:
    assert set(CallbackTable.model_validate({"secrets": [OLD]}).told) == FINAL_STATUSES
    asked = CallbackTable.model_validate({"secrets": [OLD], "statuses": ["sent"]})
    assert set(asked.told) == FINAL_STATUSES | {Status.SENT}


def test_a_body_is_as_its_schema_says() -> None:
    from datetime import UTC, datetime

    at = datetime(2026, 11, 22, 9, 30, tzinfo=UTC)
    claimed = ClaimedCallback(
        new_id(), 7, new_id(), "shop", "shop", Status.FAILED, "invalid_recipient", 1, at, 1, 1, "email", None,
        {"cart": "7"}, None, None, False, True, 0.0, 0.0, 0.0,
    )  # fmt: skip
    body = json.loads(encode(claimed))
    jsonschema.validate(body, json_schema(), jsonschema.Draft202012Validator)
    assert body["timestamp"] == body["data"]["occurred_at"] == "2026-11-22T09:30:00Z"
    assert set(body["data"]) == set(json_schema()["$defs"]["StatusData"]["properties"])
