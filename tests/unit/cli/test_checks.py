"""What `notifier doctor` says about receipts, and how it ends when it is stopped."""

from __future__ import annotations

import gc
import signal
from types import SimpleNamespace
from typing import Any, cast

import pytest

from notifier.bootstrap import Services
from notifier.cli.checks import check_providers_and_senders, check_receipts
from notifier.config.settings import Settings
from notifier.config.structure import Structure
from notifier.providers import registry
from notifier.runtime.shutdown import Stopped

TWILIO = {"name": "text", "kind": "twilio", "account_sid": "AC" + "0" * 32, "auth_token": "x"}
VONAGE = {"name": "text", "kind": "vonage", "api_key": "abcd1234", "api_secret": "x"}
PUBLIC = "https://notify.example.com"


@pytest.mark.parametrize(
    ("table", "public_url", "detail", "fix"),
    [
        (TWILIO, PUBLIC, f"come to {PUBLIC}/webhooks/twilio/", ""),
        (
            TWILIO,
            None,
            "cannot arrive: no public URL; Twilio is asked after five minutes",
            "set NOTIFIER_PUBLIC_URL to where providers reach `notifier api`",
        ),
        (
            VONAGE,
            None,
            "cannot arrive: no public URL; SMS stay sent",
            "set NOTIFIER_PUBLIC_URL to where providers reach `notifier api`",
        ),
        (
            VONAGE,
            PUBLIC,
            "are refused: without signature_secret their sender cannot be verified",
            "set signature_secret of text, and turn signing on at the provider",
        ),
        (VONAGE | {"signature_secret": "x"}, PUBLIC, f"come to {PUBLIC}/webhooks/vonage/", ""),
    ],
)
def test_one_line_says_whether_receipts_can_arrive(
    table: dict[str, Any], public_url: str | None, detail: str, fix: str
) -> None:
    settings = Settings(public_url=public_url, structure=Structure.model_validate({"providers": [table]}))
    [check] = check_receipts(settings)
    assert (check.name, check.ok, check.detail, check.fix) == ("receipts of text", True, detail, fix)


def test_mail_alone_has_nothing_to_say() -> None:
    tables = [{"name": "relay", "kind": "smtp", "url": "smtp://127.0.0.1:1"}]
    assert not list(check_receipts(Settings(structure=Structure.model_validate({"providers": tables}))))


def test_a_signal_while_providers_are_asked_leaves_no_error_behind(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def stop(_table: object, _settings: object) -> None:
        raise Stopped(signal.SIGTERM)

    monkeypatch.setattr(registry, "load", stop)
    tables = [{"name": name, "kind": "smtp", "url": "smtp://127.0.0.1:1"} for name in ("one", "two")]
    services = SimpleNamespace(settings=Settings(structure=Structure.model_validate({"providers": tables})))
    with pytest.raises(Stopped):
        list(check_providers_and_senders(cast("Services", services)))
    gc.collect()
    assert caplog.records == []
