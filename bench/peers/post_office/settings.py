"""Django settings of the peer django-post_office, from the environment of `bench.peers.post_office`."""

import os

SECRET_KEY = "for measurements only"
USE_TZ = True
INSTALLED_APPS = ["django.contrib.contenttypes", "post_office"]
DEFAULT_AUTO_FIELD = "django.db.models.BigAutoField"
DATABASES = {
    "default": {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": os.environ["BENCH_DATABASE"],
        "USER": os.environ["BENCH_USER"],
        "HOST": os.environ["BENCH_HOST"],
    }
}
TEMPLATES = [{"BACKEND": "django.template.backends.django.DjangoTemplates", "DIRS": [], "APP_DIRS": False}]
EMAIL_BACKEND = "django.core.mail.backends.smtp.EmailBackend"
EMAIL_HOST = "127.0.0.1"
EMAIL_PORT = int(os.environ["BENCH_SMTP_PORT"])
EMAIL_TIMEOUT = 30
POST_OFFICE = {
    # How many mails one round takes, for which it forks processes and opens connections.
    "BATCH_SIZE": int(os.environ["BENCH_BATCH"]),
    "THREADS_PER_PROCESS": int(os.environ["BENCH_THREADS"]),
    "MAX_RETRIES": 3,
    "MESSAGE_ID_ENABLED": True,
}
LOGGING = {"version": 1, "disable_existing_loggers": True}
