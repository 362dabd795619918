"""The smallest project that sends through notifier. SQLite unless SHOP_POSTGRES names a database."""

import os
from pathlib import Path

from django.core.exceptions import ImproperlyConfigured

SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "an example, not a secret")
DEBUG = False
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "testserver"]
ROOT_URLCONF = "django_shop.urls"
USE_TZ = True

INSTALLED_APPS = ["notifier.contrib.django", "orders"]

# Where the relay publishes; the web processes never connect to it.
NOTIFIER_BROKER_URL = os.environ.get("NOTIFIER_BROKER_URL", "amqp://guest:guest@127.0.0.1:5672//")
# The name under which operators find this shop's notifications.
NOTIFIER_PRODUCER = "shop"

DATABASES: dict[str, dict[str, object]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SHOP_SQLITE", Path(__file__).parents[1] / "shop.sqlite3"),
    }
}
if postgres := os.environ.get("SHOP_POSTGRES"):
    # "host=… port=… dbname=… user=… password=…", as libpq has it.
    try:
        options = dict(part.split("=", 1) for part in postgres.split())
    except ValueError:
        raise ImproperlyConfigured("SHOP_POSTGRES is written as host=… dbname=… user=… password=…") from None
    DATABASES["default"] = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": options.get("dbname", "shop"),
        "USER": options.get("user", ""),
        "PASSWORD": options.get("password", ""),
        "HOST": options.get("host", ""),
        "PORT": options.get("port", ""),
    }
