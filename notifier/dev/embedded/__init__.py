"""PostgreSQL and Valkey out of Python wheels, and the RabbitMQ that is installed: the real servers, with no
set-up, on a folder of ours.

    postgres = EmbeddedPostgres(settings.data_dir)
    database_url = postgres.start()
    ...
    postgres.stop()

One process owns a folder at a time; a second one gets a ConfigurationError. Data survives restarts, and kill -9 of
the servers, of their owner or of both.
"""

from notifier.dev.embedded.postgres import EmbeddedPostgres
from notifier.dev.embedded.rabbitmq import EmbeddedRabbitmq
from notifier.dev.embedded.valkey import EmbeddedValkey

__all__ = ["EmbeddedPostgres", "EmbeddedRabbitmq", "EmbeddedValkey"]
