"""A small project that sends through notifier. SQLite unless SHOP_POSTGRES names a database."""

import os
from pathlib import Path

import django
from django.core.exceptions import ImproperlyConfigured

SECRET_KEY = os.environ.get("SHOP_SECRET_KEY", "an example, not a secret")
# Only then does runserver show /admin/ with its styles.
DEBUG = os.environ.get("SHOP_DEBUG") == "1"
ALLOWED_HOSTS = ["localhost", "127.0.0.1", "testserver"]
ROOT_URLCONF = "django_shop.urls"
USE_TZ = True

INSTALLED_APPS = [
    "notifier.contrib.django",
    "orders",
    # For /admin/, and for Django's own mails.
    "django.contrib.admin",
    "django.contrib.auth",
    "django.contrib.contenttypes",
    "django.contrib.messages",
    "django.contrib.sessions",
    "django.contrib.staticfiles",
]
MIDDLEWARE = [
    "django.contrib.sessions.middleware.SessionMiddleware",
    "django.middleware.csrf.CsrfViewMiddleware",
    "django.contrib.auth.middleware.AuthenticationMiddleware",
    "django.contrib.messages.middleware.MessageMiddleware",
]
TEMPLATES = [
    {
        "BACKEND": "django.template.backends.django.DjangoTemplates",
        "APP_DIRS": True,
        "OPTIONS": {
            "context_processors": [
                "django.template.context_processors.request",
                "django.contrib.auth.context_processors.auth",
                "django.contrib.messages.context_processors.messages",
            ]
        },
    }
]
STATIC_URL = "static/"

# Where the relay publishes; the web processes never connect to it.
NOTIFIER_BROKER_URL = os.environ.get("NOTIFIER_BROKER_URL", "amqp://guest:guest@127.0.0.1:5672//")
# The name under which operators find this shop's notifications.
NOTIFIER_PRODUCER = "shop"
# NOTIFIER_API_URL and NOTIFIER_API_KEY, for the page that shows what became of a mail, come from the environment.

# Django's own mails, such as a new password for /admin/, go the same way.
BACKEND = "notifier.contrib.django.mail.EmailBackend"
if django.VERSION >= (6, 1):
    MAILERS = {"default": {"BACKEND": BACKEND}}
else:
    EMAIL_BACKEND = BACKEND
DEFAULT_FROM_EMAIL = "Corner Shop <hello@shop.example.com>"
NOTIFIER_SENDERS = {"support@shop.example.com": "support"}

DATABASES: dict[str, dict[str, object]] = {
    "default": {
        "ENGINE": "django.db.backends.sqlite3",
        "NAME": os.environ.get("SHOP_SQLITE", Path(__file__).parents[1] / "shop.sqlite3"),
    }
}
if postgres := os.environ.get("SHOP_POSTGRES"):
    # "host=… port=… dbname=… user=… password=…", as libpq takes it.
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
