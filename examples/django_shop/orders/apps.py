"""The app's configuration for INSTALLED_APPS."""

from django.apps import AppConfig


class OrdersConfig(AppConfig):
    """The app has the label `orders`."""

    name = "orders"
    default_auto_field = "django.db.models.BigAutoField"
