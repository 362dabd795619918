"""Runs PostgreSQL and Valkey from Python wheels, and the installed RabbitMQ: real servers without set-up, in a
folder of ours.

    postgres = EmbeddedPostgres(settings.data_dir)
    database_url = postgres.start()
    ...
    postgres.stop()

One process at a time owns a folder; a second one gets a ConfigurationError. Data survives restarts, and kill -9 of
the servers, of their owner, or of both.
"""

from notifier.dev.embedded.postgres import EmbeddedPostgres
from notifier.dev.embedded.rabbitmq import EmbeddedRabbitmq
from notifier.dev.embedded.valkey import EmbeddedValkey

__all__ = ["EmbeddedPostgres", "EmbeddedRabbitmq", "EmbeddedValkey"]
