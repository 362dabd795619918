"""System checks: `manage.py check` finds a wrong setting before the first customer does."""

from __future__ import annotations

from typing import Any

from django.core.checks import CheckMessage, Error

from notifier.contrib.django.settings import DjangoSettings

#: Setting → id of its check. The ids stay the same, because projects silence checks by id.
IDS = {
    "NOTIFIER_BROKER_URL": "notifier.E001",
    "NOTIFIER_PRODUCER": "notifier.E002",
    "NOTIFIER_TIMEOUT_SECONDS": "notifier.E003",
    "NOTIFIER_BROKER_USER": "notifier.E004",
    "NOTIFIER_GRACE_SECONDS": "notifier.E005",
    "NOTIFIER_SENDERS": "notifier.E006",
}


def check_settings(app_configs: Any, **_: Any) -> list[CheckMessage]:  # noqa: ARG001 - Django's signature
    return [Error(str(problem), id=IDS[problem.setting]) for problem in DjangoSettings.read().problems()]
