"""The app for INSTALLED_APPS."""

from __future__ import annotations

from django.apps import AppConfig
from django.core import checks


class NotifierConfig(AppConfig):  # type: ignore[misc]  # Django ships no types
    """The app's label is `notifier`: `manage.py migrate notifier` creates the outbox table."""

    name = "notifier.contrib.django"
    label = "notifier"
    verbose_name = "notifier outbox"
    default_auto_field = "django.db.models.BigAutoField"

    def ready(self) -> None:
        from notifier.contrib.django.checks import check_settings

        checks.register(check_settings, "notifier")
