"""`manage.py notifier_relay`: publishes messages that were committed to the outbox."""

from __future__ import annotations

from typing import Any

from django.core.management.base import BaseCommand, CommandError

from notifier.broker.publisher import Wire
from notifier.client.relay import BATCH_ROWS, IDLE_SECONDS, Relay
from notifier.contrib.django.outbox import DjangoOutbox
from notifier.contrib.django.settings import DjangoSettings
from notifier.domain.errors import ConfigurationError, PublishFailed, ServiceUnavailable
from notifier.runtime.shutdown import stop_on_signals


class Command(BaseCommand):  # type: ignore[misc]  # Django ships no types
    """The relay. Run it beside the web processes, in as many copies as you like."""

    help = (
        "Publish the messages that wait in the outbox. Waits without limit for a broker or a database that is "
        "down. Stops on SIGTERM or Ctrl-C, once the current batch is done."
    )

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--once", action="store_true", help="Publish what is there now, then exit.")
        parser.add_argument(
            "--database", help="Alias of the database. Default: where the router writes the outbox."
        )
        parser.add_argument("--batch", type=int, default=BATCH_ROWS, help="Rows per transaction (1 to 1000).")
        parser.add_argument(
            "--idle-seconds", type=float, default=IDLE_SECONDS, help="Pause while the outbox is empty."
        )

    def handle(self, *_: Any, **options: Any) -> None:
        try:
            settings = DjangoSettings.read().require(
                "NOTIFIER_BROKER_URL",
                "NOTIFIER_TIMEOUT_SECONDS",
                "NOTIFIER_BROKER_USER",
                "NOTIFIER_GRACE_SECONDS",
            )
            outbox = DjangoOutbox(options["database"])
            with Wire(
                settings.broker_url, timeout_seconds=settings.timeout_seconds, broker_user=settings.broker_user
            ) as wire:
                relay = Relay(outbox, wire, batch_rows=options["batch"], idle_seconds=options["idle_seconds"])
                if options["once"]:
                    self.stdout.write(f"{relay.drain()} published")
                else:
                    self.stdout.write("publishing what is in the outbox, as it comes; Ctrl-C stops the relay")
                    self.stdout.flush()
                    relay.run(stop_on_signals(settings.grace_seconds))
        except (ConfigurationError, PublishFailed, ServiceUnavailable) as error:
            raise CommandError(str(error)) from None
