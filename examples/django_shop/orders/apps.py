"""The app, as INSTALLED_APPS finds it."""

from django.apps import AppConfig


class OrdersConfig(AppConfig):
    """Label `orders`."""

    name = "orders"
    default_auto_field = "django.db.models.BigAutoField"
